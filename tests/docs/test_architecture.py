"""The packet's way in ARCHITECTURE.md names functions that there are, in the classes that it
says."""

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
