"""docs/redaction.md says what was measured."""

import json
from pathlib import Path

from benchmarks.redaction import table

TOP = Path(__file__).parents[2]


def test_the_guide_has_the_measured_recall():
    result = json.loads((TOP / "benchmarks" / "results" / "redaction.json").read_text())
    assert table(result) in (TOP / "docs" / "redaction.md").read_text()
