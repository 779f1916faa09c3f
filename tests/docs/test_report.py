"""README's figures, the table of processors and the standing report are what the results say."""

from pathlib import Path

from benchmarks import processors, readme, report

ROOT = Path(__file__).parents[2]


def test_readme_is_what_the_report_script_writes():
    text = (ROOT / "README.md").read_text()
    assert readme.insert(text, report.load()) == text, "run python -m benchmarks.report"


def test_the_table_of_processors_is_what_the_report_script_writes():
    text = processors.PAGE.read_text()
    assert processors.insert(text, report.load()) == text, "run python -m benchmarks.report"


def test_report_is_what_the_report_script_writes():
    text = (ROOT / "benchmarks" / "REPORT.md").read_text()
    assert report.report(report.load()) == text, "run python -m benchmarks.report"
