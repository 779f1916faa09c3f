"""Which package may import which. The table is ARCHITECTURE.md's, and every module is in it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "ssasr"

EVERYTHING = {
    "audio", "bench", "cli", "client", "engine", "errors", "gateway", "models", "net", "protocol",
    "routing", "runtime", "session", "telemetry",
}  # fmt: skip

# Packages of ours that a package may import besides itself. ``errors`` is open to all.
MAY_IMPORT = {
    "errors": set(),
    "protocol": set(),
    "telemetry": {"protocol"},
    "runtime": {"telemetry"},
    "models": {"runtime"},
    "audio": {"protocol"},
    "net": {"protocol", "runtime", "telemetry"},
    "routing": {"net", "protocol", "runtime", "telemetry"},
    "session": {
        "audio",
        "net.websocket",
        "protocol",
        "runtime",
        "telemetry",
        "routing.engine_stream",
    },
    "gateway": {"audio", "net", "protocol", "routing", "runtime", "session", "telemetry"},
    "engine": {"models", "net", "protocol", "runtime", "telemetry"},
    "client": {"audio", "models", "net", "protocol", "runtime"},
    "bench": {"audio", "client", "models", "net", "protocol", "runtime", "session.formatting"},
    "cli": EVERYTHING,
    "__main__": {"cli"},
}

# Modules inside those packages that keep to less: pure functions of their arguments.
PURE = {
    "session.turns", "session.segment", "session.transcript", "session.speech_activity",
    "session.formatting", "session.heartbeat", "session.spoken", "engine.scheduler",
    "engine.streams", "engine.recognizer", "engine.scripted", "routing.replay", "routing.retry",
    "gateway.openai.json_object", "gateway.openai.realtime_events",
    "gateway.openai.realtime_link", "gateway.openai.realtime_settings",
}  # fmt: skip
IMPURE = {"trio", "torch", "structlog", "prometheus_client", "time", "socket", "os",
          "ssasr.runtime", "ssasr.telemetry", "ssasr.net"}  # fmt: skip

# Third-party packages that only these packages or modules may import.
RESERVED = {
    "torch": ("engine",),
    "trio_websocket": ("net", "gateway", "client.connection", "routing.engine_client",
                       "engine.server"),
    "cattrs": ("protocol.codec",),
    "hypercorn": ("net.http_server",),
    "starlette": ("gateway", "cli.processes"),
    "opentelemetry": ("telemetry",),
}  # fmt: skip


def name_of(path):
    """Without the leading ``ssasr.``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(module):
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name, prefixes):
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
PACKAGES = {module.split(".")[0] for module in MODULES} - {""}


def test_every_package_has_a_rule_and_every_rule_a_package():
    assert set(MAY_IMPORT) == PACKAGES
    assert set(MODULES) >= PURE


def test_the_table_of_the_architecture_is_this_one():
    text = (ROOT.parent / "ARCHITECTURE.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| .+ \| (.+) \|$", text, re.MULTILINE)
    written = {package: set(cell.split(", ")) - {"nothing"} for package, cell in rows}
    expected = {package: inners for package, inners in MAY_IMPORT.items()
                if package not in ("errors", "__main__")}  # fmt: skip
    assert written == expected | {"cli": {"everything"}}


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_a_package_says_what_it_is_for(package):
    assert ast.get_docstring(ast.parse(MODULES[package].read_text()))


@pytest.mark.parametrize("module", [module for module in MODULES if module])
def test_imports(module):
    package = module.split(".")[0]
    allowed = MAY_IMPORT[package] | {package, "errors", "__version__"}
    for imported in imports(module):
        first, _, rest = imported.partition(".")
        if first == "ssasr":
            assert within(rest, allowed), f"{module} must not import {imported}"
        if first in RESERVED:
            assert within(module, RESERVED[first]), f"{module} must not import {first}"
        if module in PURE or package == "protocol":
            assert not within(imported, IMPURE), f"{module} is pure, and imports {imported}"


def test_packages_import_each_other_in_one_direction():
    arrows = {
        package: {inner.split(".")[0] for inner in inners} for package, inners in MAY_IMPORT.items()
    }
    while arrows:
        leaves = {package for package, inners in arrows.items() if not inners & set(arrows)}
        leaves |= {"cli"} if set(arrows) <= {"cli", "__main__"} else set()
        assert leaves, f"a circle among {sorted(arrows)}"
        arrows = {package: inners for package, inners in arrows.items() if package not in leaves}


def test_the_command_starts_without_torch():
    for module in ("cli.commands", "gateway.gateway"):
        assert not [name for name in imports(module) if within(name, ["torch"])]
