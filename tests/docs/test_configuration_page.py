"""docs/configuration.md lists every option of the servers as it is, and no other."""

import re
from pathlib import Path

import pytest

from ssasr.cli import commands as cli

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")


def default(value: object) -> str:
    if value in (None, {}):
        return ""
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("command", ["serve", "gateway", "engine"])
def test_the_table_says_what_the_command_takes(command: str):
    section = PAGE.split(f"\n### `ssasr {command}`\n")[1].split("\n#")[0]
    rows = re.findall(
        r"^\| `([^`]+)` \| `([^`]+)` \| ?([^|]*?) ?\| (.*) \|$", section, re.MULTILINE
    )
    shown = [(flag, variable, value.strip("`"), text) for flag, variable, value, text in rows]
    assert shown == [
        (
            f"{option.flag} {option.metavar}" if option.metavar else option.flag,
            option.variable,
            default(option.default),
            option.help,
        )
        for option in cli.COMMANDS[command].options
    ]


def test_every_variable_that_is_named_anywhere_is_known():
    known = {option.variable for each in cli.COMMANDS.values() for option in each.options}
    known |= {"SSASR_CACHE", "SSASR_MODELS_DIR"}
    for page in Path(__file__).parents[2].glob("docs/*.md"):
        named = set(re.findall(r"\bSSASR_[A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8")))
        assert named <= known, page.name
