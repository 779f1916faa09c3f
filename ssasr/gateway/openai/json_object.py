"""The JSON of a client: reads values of the right type; what is wrong is named by its path."""

import base64
import binascii
from typing import Any

from attrs import frozen

from ssasr.gateway.openai.errors import ApiError
from ssasr.protocol import strict_json


class Refused(ApiError):
    """What a client asked for and cannot have; ``param``: the path of the value at fault."""

    def __init__(self, text: str, code: str = "invalid_value", param: str | None = None) -> None:
        super().__init__(400, code, text.encode("utf-8", "replace").decode("utf-8"), param)


@frozen
class JsonObject:
    """A JSON object and where it stands. Every method answers None for what is absent or null, and
    raises Refused for a value that cannot be used."""

    fields: dict[str, Any]
    path: str = ""

    @classmethod
    def read(cls, text: str | bytes) -> "JsonObject":
        try:
            value = strict_json.read(text if isinstance(text, str) else text.decode())
        except (ValueError, RecursionError):
            raise Refused("The message is not JSON", "invalid_json") from None
        if not isinstance(value, dict):
            raise Refused("Expected a JSON object", "invalid_json")
        return cls(value)

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    def refused(self, name: str, expected: str) -> Refused:
        path = f"{self.path}.{name}" if self.path else name
        return Refused(f"Invalid value for '{path}': expected {expected}", param=path)

    def inner(self, name: str) -> "JsonObject | None":
        value = self._typed(name, "an object", dict)
        path = f"{self.path}.{name}" if self.path else name
        return None if value is None else JsonObject(value, path)

    def text(self, name: str, choices: tuple[str, ...] = ()) -> str | None:
        value: str | None = self._typed(name, "a string", str)
        if choices and value is not None and value not in choices:
            raise self.refused(name, f"one of {', '.join(choices)}")
        return value

    def texts(self, name: str) -> tuple[str, ...] | None:
        value = self._typed(name, "an array of strings", list)
        if value is not None and not all(isinstance(each, str) for each in value):
            raise self.refused(name, "an array of strings")
        return None if value is None else tuple(value)

    def number(self, name: str, low: float, high: float) -> float | None:
        value: float | None = self._typed(name, "a number", int, float)
        if value is not None and not low <= value <= high:
            raise self.refused(name, f"a number between {low:g} and {high:g}")
        return value

    def integer(self, name: str, low: int, high: int) -> int | None:
        value: int | None = self._typed(name, "an integer", int)
        if value is not None and not low <= value <= high:
            raise self.refused(name, f"an integer between {low} and {high}")
        return value

    def octets(self, name: str) -> bytes:
        """Base64; absent is at fault as well."""
        text = self.text(name)
        if text is None:
            raise self.refused(name, "base64")
        try:
            return base64.b64decode(text.encode(), validate=True)
        except (binascii.Error, ValueError):
            raise self.refused(name, "base64") from None

    def _typed(self, name: str, expected: str, *kinds: type) -> Any:
        value = self.fields.get(name)
        if value is not None and type(value) not in kinds:  # not isinstance: a bool is an int
            raise self.refused(name, expected)
        return value
