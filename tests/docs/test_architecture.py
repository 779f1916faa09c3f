"""ARCHITECTURE.md names modules, classes and functions that there are."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def classes():
    """Of each class what it defines; where a name stands for several, all of them together."""
    found = {}
    for path in (ROOT / "ssasr").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                defined = {
                    each.name
                    for each in node.body
                    if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
                }
                found.setdefault(node.name, set()).update(defined)
    return found


def test_every_function_on_the_way_is_there():
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    way = text.partition("## One packet")[2].partition("\n## ")[0]
    named = re.findall(r"`(_?[A-Z]\w+)\.(\w+)`", way)
    there = classes()
    assert len(named) > 25
    assert [
        f"{name}.{function}" for name, function in named if function not in there.get(name, ())
    ] == []


def test_every_module_and_class_is_there():
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    there = classes()
    modules = re.findall(r"`([a-z_]+(?:[./][a-z_]+)+)`", text)
    assert len(modules) > 12
    for name in modules:
        path = name.removesuffix(".py").replace(".", "/")
        found = [ROOT / start / (path + end) for start in ("", "ssasr") for end in (".py", "")]
        assert any(each.exists() for each in found), name
    aliases = {"Rewrite"}  # a type of functions
    for name in re.findall(r"`(_?[A-Z]\w+)`", text):
        assert name in there.keys() | aliases, name
