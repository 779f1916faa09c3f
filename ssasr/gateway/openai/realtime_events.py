"""The server's events of an OpenAI session, as text."""

import json
import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from attrs import define, field

from ssasr.gateway.openai.json_object import JsonObject, Refused
from ssasr.gateway.openai.realtime_settings import LOGPROBS, WORDS, RealtimeSettings
from ssasr.protocol.joining import join, space_between
from ssasr.protocol.messages import Turn, TurnWord
from ssasr.session.speakers.labels import PENDING

TRANSCRIPTION = "conversation.item.input_audio_transcription"

_write = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


@define(eq=False)
class Item:
    """``discarded``: nothing more is said of it."""

    id: str
    seconds: float = 0.0
    started_ms: int | None = None
    """Where its speech began, once that has been said and until it is said to be over."""
    sent: str = ""
    sent_words: int = 0
    """Of the turn that is open."""
    parts: list[str] = field(factory=list)
    """The turns that have ended."""
    words: list[TurnWord] = field(factory=list)
    language: str | None = None
    segments: int = 0
    """That have been said."""
    discarded: bool = False


@define(eq=False)
class EventWriter:
    """Numbers the events of one session. ``session_id``: letters and digits only."""

    session_id: str
    _count: int = 0

    def segments(self, item: Item, turn: Turn) -> list[str]:
        """The turn in parts, each with who says it."""
        said = []
        for speaker, group in groupby(turn.words, lambda word: word.speaker or PENDING):
            words = list(group)
            item.segments += 1
            segment = {
                "id": f"seg_{item.id.removeprefix('item_')}_{item.segments}",
                "text": join(word.text for word in words),
                "speaker": speaker,
                "start": words[0].start / 1_000,
                "end": words[-1].end / 1_000,
            }
            said.append(self.transcription("segment", item, **segment))
        return said

    def delta(self, item: Item, text: str, turn: Turn, settings: RealtimeSettings) -> str:
        before = item.parts[-1] if item.parts and not item.sent else ""
        extra: dict[str, Any] = {}
        if LOGPROBS in settings.include:
            extra["logprobs"] = logprobs(turn.words[item.sent_words : finals_of(turn)])
        return self.transcription("delta", item, delta=space_between(before, text) + text, **extra)

    def completed(self, item: Item, settings: RealtimeSettings) -> str:
        extra: dict[str, Any] = {}
        if item.language is not None:
            extra["languages"] = [{"code": item.language}]
        if LOGPROBS in settings.include:
            extra["logprobs"] = logprobs(item.words)
        if WORDS in settings.include:
            extra["words"] = [
                {"word": word.text, "start": word.start / 1_000, "end": word.end / 1_000}
                for word in item.words
            ]
        return self.transcription(
            "completed",
            item,
            transcript=join(item.parts),
            usage={"type": "duration", "seconds": round(item.seconds, 3)},
            **extra,
        )

    def transcription(self, kind: str, item: Item, **fields: object) -> str:
        return self.event(f"{TRANSCRIPTION}.{kind}", item_id=item.id, content_index=0, **fields)

    def event(self, kind: str, **fields: object) -> str:
        self._count += 1
        return _write(
            {"type": kind, "event_id": f"event_{self.session_id}_{self._count}", **fields}
        )

    def error(self, refused: Refused, message: JsonObject | None) -> str:
        asked = None if message is None else message.fields.get("event_id")
        return self.event(
            "error",
            error={
                "type": "invalid_request_error",
                "code": refused.code,
                "message": refused.text,
                "param": refused.param,
                "event_id": asked[:512] if isinstance(asked, str) else None,
            },
        )


def finals_of(turn: Turn) -> int:
    """How many of the words are final: those at the beginning."""
    return sum(word.word_is_final for word in turn.words)


def logprobs(words: Sequence[TurnWord]) -> list[dict[str, Any]]:
    """A word is a token: its confidence is what is known."""
    return [
        {
            "token": word.text,
            "bytes": list(word.text.encode()),
            "logprob": round(math.log(max(word.confidence, 1e-9)), 4),
        }
        for word in words
    ]
