"""README's figures, the tables in the guides and the standing report are what the results say."""

from pathlib import Path

import pytest

from benchmarks import report

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("table", report.INSERTED, ids=lambda table: table.name)
def test_tables_in_readme_and_the_guides_are_what_the_report_script_writes(table):
    text = table.page.read_text()
    assert table.insert(text, report.load()) == text, "run python -m benchmarks.report"


def test_report_is_what_the_report_script_writes():
    text = (ROOT / "benchmarks" / "REPORT.md").read_text()
    assert report.report(report.load()) == text, "run python -m benchmarks.report"
