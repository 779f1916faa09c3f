"""Parts of the README and the guides that are made from ``benchmarks/results``."""

from collections.abc import Callable
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).parents[1]


@frozen
class Inserted:
    """What stands in a page between two marks with its name."""

    page: Path
    name: str
    made: Callable[[dict], str]
    """From the results, by file name."""

    def insert(self, text: str, results: dict) -> str:
        """The page's ``text`` with what is between the marks replaced."""
        begin = f"<!-- {self.name}: written by python -m benchmarks.report -->\n"
        end = f"<!-- end of {self.name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        return before + begin + self.made(results) + end + after
