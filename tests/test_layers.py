"""Who may import whom. The layers and the reasons are in ARCHITECTURE.md."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "ssasr"

# Every import a module may make besides the standard library and its own package; longest prefix
# of the module's name decides.
ALLOWED = {
    "ssasr.protocol": {"attrs", "ssasr.errors", "ssasr.protocol"},
    "ssasr.protocol.codec": {"attrs", "cattrs", "ssasr.errors", "ssasr.protocol"},
    "ssasr.errors": set(),
    "ssasr.turns": {"attrs", "ssasr.formatting", "ssasr.protocol", "ssasr.transcript",
                    "ssasr.voicing"},
    "ssasr.transcript": {"attrs", "ssasr.formatting", "ssasr.protocol"},
    "ssasr.voicing": {"attrs", "ssasr.protocol"},
    "ssasr.formatting": set(),
    "ssasr.engine.streams": {"attrs", "numpy", "ssasr.errors", "ssasr.protocol", "ssasr.engine"},
    "ssasr.engine.scheduler": {"attrs", "ssasr.protocol", "ssasr.engine.recognizer",
                               "ssasr.engine.streams"},
    "ssasr.engine.recognizer": {"attrs", "numpy", "ssasr.protocol"},
    "ssasr.engine.scripted": {"attrs", "numpy", "ssasr.engine.recognizer", "ssasr.protocol"},
}  # fmt: skip

# Third-party packages that only these modules may import.
RESERVED = {
    "torch": ("ssasr.engine.whisper", "ssasr.engine.fastconformer", "ssasr.engine.vad",
              "ssasr.engine.features", "ssasr.engine.onnx_file",
              "ssasr.engine.weights", "ssasr.engine.smart_turn",
              "ssasr.engine.devices", "ssasr.engine.graphs"),
    "hypercorn": ("ssasr.listener", "ssasr.http", "ssasr.gateway", "ssasr.engine.server"),
    "trio_websocket": ("ssasr.gateway", "ssasr.session", "ssasr.express", "ssasr.client",
                       "ssasr.websocket", "ssasr.link", "ssasr.routing.engine_client",
                       "ssasr.engine.server"),
    "cattrs": ("ssasr.protocol.codec",),
    "opentelemetry": ("ssasr.tracing", "ssasr.tracing_export"),
}  # fmt: skip


def name_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path, *, top_level=False):
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def within(name, prefixes):
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


@pytest.mark.parametrize("module", MODULES)
def test_imports(module):
    rules = [prefix for prefix in ALLOWED if within(module, [prefix])]
    allowed = ALLOWED[max(rules, key=len)] if rules else None
    for imported in imports(MODULES[module]):
        package = imported.split(".")[0]
        if package in RESERVED:
            assert within(module, RESERVED[package]), f"{module} must not import {package}"
        ours_or_theirs = package == "ssasr" or package in {
            "attr", "attrs", "cattrs", "numpy", "torch", "trio", "soundfile", "soxr", "rich",
            "structlog", "hypercorn", "trio_websocket", "prometheus_client",
        }  # fmt: skip
        if allowed is not None and ours_or_theirs:
            assert within(imported, allowed), f"{module} must not import {imported}"
        if within(module, ["ssasr.engine"]):
            assert not within(imported, ["ssasr.routing", "ssasr.session", "ssasr.gateway"])
        if within(module, ["ssasr.session", "ssasr.inference", "ssasr.gateway", "ssasr.routing"]):
            assert not within(imported, ["ssasr.engine"]), f"{module} reaches into the engine"


def test_the_command_starts_without_torch():
    assert "torch" not in {i for m in ("ssasr.cli", "ssasr.gateway") for i in imports(MODULES[m])}


def test_the_rules_name_modules_that_exist():
    assert set(ALLOWED) <= set(MODULES)
