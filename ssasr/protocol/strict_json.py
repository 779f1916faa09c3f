"""JSON text from outside, read strictly: nothing that JSON does not have, and no half characters.

A JSON escape can write half of a surrogate pair, which is no text: it cannot be encoded, so it
would fail wherever it is first written out again, long after the one who sent it could be answered.
"""

import json
from typing import NoReturn


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# json.loads with arguments builds a decoder for every call; these two are immutable.
_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode
_encode = json.JSONEncoder(ensure_ascii=False).encode


def read(text: str) -> object:
    """Raises ValueError, RecursionError."""
    value: object = _decode(text)
    if "\\ud" in text or "\\uD" in text:
        try:
            _encode(value).encode()
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair is not text") from None
    return value
