"""README's figures, the tables in the guides and the standing report are what the results say."""

from pathlib import Path

import pytest

from benchmarks import live_streams, processors, readme, report, trial_page

ROOT = Path(__file__).parents[2]


def test_readme_is_what_the_report_script_writes():
    text = (ROOT / "README.md").read_text()
    assert readme.insert(text, report.load()) == text, "run python -m benchmarks.report"


@pytest.mark.parametrize(
    "page", [processors, live_streams, trial_page], ids=lambda page: page.__name__
)
def test_tables_in_the_guides_are_what_the_report_script_writes(page):
    text = page.PAGE.read_text()
    assert page.insert(text, report.load()) == text, "run python -m benchmarks.report"


def test_report_is_what_the_report_script_writes():
    text = (ROOT / "benchmarks" / "REPORT.md").read_text()
    assert report.report(report.load()) == text, "run python -m benchmarks.report"
