"""The documents: the site builds without a warning, nothing is loaded from elsewhere, links and
commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ssasr.cli import commands as cli
from ssasr.protocol.parameters import parse_parameters

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
WRITTEN = [ROOT / "README.md", ROOT / "examples" / "README.md", *PAGES]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.slow
def test_site_builds_without_a_warning(site):
    for page in PAGES:
        name = "index.html" if page.stem == "index" else f"{page.stem}/index.html"
        assert (site / name).is_file()


@pytest.mark.slow
def test_site_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|iframe)[^>]+src="([^"]+)"', page.read_text("utf-8"))
        loaded += re.findall(r'<link rel="stylesheet" href="([^"]+)"', page.read_text("utf-8"))
        assert loaded, page
        assert not [each for each in loaded if re.match(r"(https?:)?//", each)], page


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_as_the_parser_has_them(page):
    """Every ``ssasr COMMAND --option`` in a document."""
    for line in re.findall(r"ssasr ((?:[a-z]+)(?: [^`\n&|]*)?)", page.read_text("utf-8")):
        command, *words = line.split()
        if command not in cli.COMMANDS:
            continue
        helped = subprocess_help(command)
        for option in (word.strip("[]().,;") for word in words):
            if option.startswith("--"):
                assert option in helped, f"{page.name}: ssasr {command} {option}"


def subprocess_help(command):
    root = cli.parser()
    (commands,) = [each for each in root._actions if hasattr(each, "choices") and each.choices]
    return commands.choices[command].format_help()


def test_parameters_in_the_page_are_the_protocols():
    """The page's own query parses, and none of it is ignored as unknown."""
    source = (ROOT / "ssasr" / "web" / "settings.js").read_text()
    assert 'format_turns: "true"' in source
    query = "sample_rate=44100&encoding=pcm_s16le&speech_model=whisper-rt&format_turns=true"
    parameters = parse_parameters(query + "&language_codes=%5B%22de%22%5D")
    assert (parameters.languages, parameters.ignored) == (("de",), ())
