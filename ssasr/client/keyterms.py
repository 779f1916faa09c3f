"""``--keyterms``: a file with one term a line, or terms with commas between."""

import re
from pathlib import Path

from ssasr.protocol.limits import KEYTERM_LIMIT, PARAMETERS

_PATH = re.compile(r"(/|\./|\.\./|~/)[^,]*|[^,]*\.(txt|csv|list)")
"""What nobody says: the name of a file."""


def read_keyterms(given: str) -> tuple[str, ...]:
    """ValueError for what the server would refuse or pass over. Empty lines and lines that begin
    with # do not count."""
    path = Path(given)
    try:
        is_file = path.is_file()
    except OSError:  # too long to be a name
        is_file = False
    if not is_file and _PATH.fullmatch(given):
        raise ValueError(f"there is no file {given}")
    try:
        parts = path.read_text("utf-8").splitlines() if is_file else given.split(",")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the terms: {error}") from None
    terms = [part.strip() for part in parts]
    terms = [term for term in terms if term and not term.startswith("#")]
    most = PARAMETERS["keyterms_prompt"].high
    if most is not None and len(terms) > most:
        raise ValueError(f"{len(terms)} terms; the server takes {most:.0f}")
    if long := next((term for term in terms if len(term) > KEYTERM_LIMIT), None):
        raise ValueError(f"{long!r} is longer than {KEYTERM_LIMIT} characters")
    return tuple(terms)
