"""One rule for spaces between words, in Python and in the page."""

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssasr.protocol.joining import columns, join

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "data" / "joined_words.json"
VECTORS = json.loads(FILE.read_text("utf-8"))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["text"][:12])
def test_words_are_joined_as_their_script_is_written(vector):
    assert join(vector["words"]) == vector["text"]
    assert columns(vector["text"]) == vector["columns"]


@given(st.lists(st.text(min_size=1, max_size=4), max_size=5))
def test_nothing_but_spaces_is_added(words):
    assert join(words).replace(" ", "") == "".join(words).replace(" ", "")


def test_the_page_has_the_same_rule():
    script = (
        f"import {{ columns, join }} from {json.dumps(str(ROOT / 'ssasr/web/joining.js'))};"
        f"import fs from 'node:fs';"
        f"const all = JSON.parse(fs.readFileSync({json.dumps(str(FILE))}, 'utf8'));"
        "console.log(JSON.stringify(all.map(({ words, text }) => [join(words), columns(text)])));"
    )
    command = ["node", "--input-type=module", "--no-warnings", "--eval", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[one["text"], one["columns"]] for one in VECTORS]
