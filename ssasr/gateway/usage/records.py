"""Usage records: one line a session, for the operator's own accounts.

The allow-list is ``UsageRecord``: its fields are all that is ever written or sent. No audio, no
text, no addresses, no credential (``key_id`` is a digest's beginning).
"""

import json
from pathlib import Path

import attrs
from attrs import frozen

from ssasr.gateway.outbox.journal import Journal

NAME, WHAT = "usage", "usage records"


@frozen
class UsageRecord:
    """Times are Unix seconds; ``key_id`` identifies a key without being it."""

    session_id: str
    started: float
    ended: float
    audio_seconds: float
    model: str
    close_code: int
    key_id: str

    def line(self) -> bytes:
        return json.dumps(attrs.asdict(self), separators=(",", ":")).encode() + b"\n"


def keep_record(journal: Journal, record: UsageRecord) -> None:
    journal.add(record.line())


def open_usage(directory: Path) -> Journal:
    """Raises StartRefused."""
    return Journal(directory, NAME, WHAT).prepare()
