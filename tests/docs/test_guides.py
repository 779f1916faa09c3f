"""The guides' commands: ours parse and Helm's render. Each that can run here is run, as it
stands, by ``test_guides_run.py``."""

import re
import shlex
from pathlib import Path

import helm_python
import pytest

from ssasr.cli import commands as cli

TOP = Path(__file__).parents[2]
PAGES = [TOP / "README.md", TOP / "examples" / "README.md", *sorted(TOP.glob("docs/*.md"))]
COMMAND = r"[A-Za-z.][^│]*$"
"""What one looks like; other lines of code blocks are drawings."""


def code_blocks() -> list[tuple[str, str]]:
    """Of all pages: the language that stands at the fence, and what is between the fences."""
    block = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
    return [found for page in PAGES for found in block.findall(page.read_text(encoding="utf-8"))]


def commands() -> list[str]:
    """Every line of every code block that is one, continued lines joined, without comments."""
    found = []
    for language, block in code_blocks():
        if language in ("", "sh", "bash"):
            lines = [
                re.sub(r"\s# .*", "", line) for line in block.replace("\\\n", " ").splitlines()
            ]
            found += [re.sub(r"\s+", " ", line.strip()) for line in lines]
    return [line for line in found if re.match(COMMAND, line)]


def python_samples() -> list[str]:
    return [block for language, block in code_blocks() if language == "python"]


def test_every_code_block_is_of_a_kind_that_runs():
    """Or is text of a program's."""
    assert {language for language, _ in code_blocks()} <= {"", "sh", "bash", "python", "text"}


def without_environment(command: str) -> str:
    return re.sub(r"^(?:[A-Z_]+=\S+ )+", "", command)


OURS = [
    bare.removeprefix(".venv/bin/")
    for bare in map(without_environment, commands())
    if re.match(r"(\.venv/bin/)?ssasr ", bare)
]


@pytest.mark.parametrize("command", OURS)
def test_our_own_commands_parse(command: str):
    cli.parser().parse_args(shlex.split(command)[1:])


def test_there_are_some():
    assert len(OURS) >= 5


def test_helm_install_renders():
    (install,) = [command for command in commands() if command.startswith("helm install")]
    chart = TOP / shlex.split(install)[3]
    values: dict = {}
    for setting in re.findall(r"--set (\S+)", install):
        parsed = helm_python.parse_set_string(setting)
        for name, value in parsed.items():
            merge(values, name, value)
    with helm_python.Chart.load(chart) as loaded:
        loaded.validate_schema(values)
        assert loaded.render(values, name="asr", namespace="speech")


def merge(into: dict, name: str, value: object) -> None:
    if isinstance(value, dict):
        for inner, content in value.items():
            merge(into.setdefault(name, {}), inner, content)
    else:
        into[name] = value


def test_files_that_guides_name_exist():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for path in re.findall(r"`((?:docker|lb|docs|tests)/[\w./-]+)`", text):
            assert (TOP / path).exists(), f"{page.name}: {path}"
        for sibling in re.findall(r"`([\w-]+\.md)`", text):
            assert (page.parent / sibling).exists() or (TOP / sibling).exists(), sibling
        for name in re.findall(r"compose\.\w*\.?yaml", text):
            assert (TOP / "docker" / name).exists(), f"{page.name}: {name}"
