"""Reads typed values out of a URL's query string; the limits are those of ``limits.PARAMETERS``.

Tolerance lives here and nowhere else: booleans in any case (Python's ``urlencode`` writes ``True``)
and as 1 or 0, the last of a repeated name wins, unknown names are ignored.
"""

import re
from typing import TypeVar
from urllib.parse import parse_qsl

from ssasr.protocol import strict_json
from ssasr.protocol.faults import invalid_value
from ssasr.protocol.limits import check

T = TypeVar("T")

_INTEGER = re.compile(r"[+-]?[0-9]{1,15}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,15}(\.[0-9]{0,30})?|\.[0-9]{1,30})([eE][+-]?[0-9]{1,3})?")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class Query:
    """One session's query string. Every method answers None when the name is absent and raises
    ``ClientFault`` 3006 when its value cannot be used."""

    def __init__(self, query: str) -> None:
        self._values = dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True))

    def names(self) -> frozenset[str]:
        """The names that were given."""
        return frozenset(self._values)

    def integer(self, name: str) -> int | None:
        """A decimal integer within its limits."""
        text = self._values.get(name)
        if text is None:
            return None
        if not _INTEGER.fullmatch(text):
            raise invalid_value(name, "expected an integer")
        value = int(text)
        check(name, value)
        return value

    def number(self, name: str) -> float | None:
        """A decimal number within its limits; no ``nan``, no ``inf``."""
        text = self._values.get(name)
        if text is None:
            return None
        if not _NUMBER.fullmatch(text):
            raise invalid_value(name, "expected a number")
        value = float(text)
        check(name, value)
        return value

    def boolean(self, name: str) -> bool | None:
        """``true``/``false`` in any case, ``1``/``0``."""
        text = self._values.get(name)
        if text is None:
            return None
        value = _BOOLEANS.get(text.lower())
        if value is None:
            raise invalid_value(name, "expected true or false")
        return value

    def text(self, name: str) -> str | None:
        """Text within its limits, or one of its choices."""
        text = self._values.get(name)
        if text is not None:
            check(name, text)
        return text

    def names_in(self, name: str) -> tuple[str, ...] | None:
        """A JSON array of strings, or names with commas between."""
        text = self._values.get(name)
        if text is None or text.lstrip().startswith("["):
            return self.strings(name)
        listed = tuple(part.strip() for part in text.split(",") if part.strip())
        check(name, listed)
        return listed

    def fields(self, name: str) -> dict[str, object] | None:
        """A JSON object."""
        return self._json(name, dict, "expected a JSON object")

    def strings(self, name: str) -> tuple[str, ...] | None:
        """A JSON array of strings."""
        expected = "expected a JSON array of strings"
        value = self._json(name, list, expected)
        if value is None:
            return None
        if not all(isinstance(item, str) for item in value):
            raise invalid_value(name, expected)
        check(name, tuple(value))
        return tuple(value)

    def _json(self, name: str, kind: type[T], expected: str) -> T | None:
        """``expected``: what is said of a value that is no JSON of that kind."""
        text = self._values.get(name)
        if text is None:
            return None
        try:
            value = strict_json.read(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, kind):
            raise invalid_value(name, expected)
        return value
