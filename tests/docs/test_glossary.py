"""The words of ``docs/glossary.md``: the private ones they replaced do not come back."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RETIRED = (
    "lane", "lanes", "doorbell", "express", "crew", "ledger", "tape", "tapes", "told", "heard",
    "news", "short way", "short ways", "hearing", "voicing", "front door", "doors", "let go of",
    "parcel", "parcels", "pulse", "walk", "walks", "walked", "walking",
)  # fmt: skip
PATTERN = re.compile(rf"(?<![\w/.-])({'|'.join(RETIRED)})(?![\w/-])", re.IGNORECASE)
PLACES = ("ssasr/**/*.py", "ssasr/web/*.js", "tests/**/*.py", "docs/*.md", "*.md")
HERE = Path(__file__)


@pytest.mark.parametrize("place", PLACES)
def test_retired_words_are_gone(place):
    found = []
    for path in sorted(ROOT.glob(place)):
        if path == HERE or "node_modules" in path.parts:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if match := PATTERN.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert not found, "see docs/glossary.md: " + ", ".join(found)


def test_every_word_has_a_meaning():
    text = (ROOT / "docs/glossary.md").read_text()
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", text, re.MULTILINE)
    words = [word for word, _ in rows[2:]]
    assert len(words) == len(set(words)) > 30
