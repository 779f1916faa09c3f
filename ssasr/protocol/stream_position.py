"""The position of a stream: what was sent, what is acknowledged, and which finalize is open.

Each carrier of a stream (the session's replay buffer, either end of an engine link, a stream within
the process) has one and passes it every message of both directions, in order. It enforces the rules
of ``recognition`` about positions: audio has no gaps, answers are about the open segment and not
about the future, and one finalize is open at a time. Pure.
"""

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define

from ssasr.protocol.recognition import Audio, Final, Finalize, Open, Update


class OutOfPlace(Exception):
    """A message that the rules about positions do not allow. The position has not changed."""


@define
class StreamPosition:
    """Positions are stream samples. The methods raise OutOfPlace."""

    segment: int = 0
    start: int = 0
    """Where the open segment starts."""
    sent: int = 0
    """Audio was sent up to here."""
    acknowledged: int = 0
    """The engine has processed the audio up to here and need not go back. Updates of a segment that
    is being finalized do not count: the audio after its end will be processed again."""
    finalize: Finalize | None = None
    """The one that is not answered yet."""

    @classmethod
    def of(cls, opening: Open) -> "StreamPosition":
        """The position of a stream that has just been opened."""
        position = cls()
        position.begin(opening)
        return position

    @property
    def unacknowledged(self) -> int:
        """Samples sent and not yet processed; negative while ``Open.context`` is being sent."""
        return self.sent - self.acknowledged

    def begin(self, opening: Open) -> None:
        self.segment, self.start, self.acknowledged = opening.segment, opening.start, opening.start
        self.sent = opening.start - opening.context

    def note_audio(self, audio: Audio) -> None:
        if audio.start != self.sent:
            raise OutOfPlace(f"audio at sample {audio.start}, expected {self.sent}")
        if len(audio.pcm) % 2:
            raise OutOfPlace("audio that ends inside a sample")
        self.sent += len(audio.pcm) // 2

    def note_update(self, update: Update) -> None:
        if update.segment != self.segment:
            raise OutOfPlace(
                f"update of segment {update.segment}, the current one is {self.segment}"
            )
        if not self.start <= update.position <= self.sent:
            raise OutOfPlace(f"update at sample {update.position} of {self.sent}")
        if self.finalize is None and update.position > self.acknowledged:
            self.acknowledged = update.position

    def note_finalize(self, finalize: Finalize) -> None:
        if finalize.segment != self.segment or self.finalize is not None:
            raise OutOfPlace(f"finalize of segment {finalize.segment}, {self.segment} is open")
        if not self.start <= finalize.at <= self.sent:
            raise OutOfPlace(f"finalize at sample {finalize.at} of {self.sent}")
        self.finalize = finalize

    def note_final(self, final: Final) -> None:
        asked = self.finalize
        if asked is None or (final.segment, final.at) != (asked.segment, asked.at):
            raise OutOfPlace(f"final of segment {final.segment} at {final.at} answers nothing")
        self.finalize = None
        self.segment += 1
        self.start = self.acknowledged = final.at

    def note(self, message: object) -> None:
        """Take any message; other kinds change nothing. Raises OutOfPlace."""
        take = _TAKEN.get(type(message))
        if take is not None:
            take(self, message)


_TAKEN: Mapping[type, Callable[[StreamPosition, Any], None]] = {
    Open: StreamPosition.begin,
    Audio: StreamPosition.note_audio,
    Update: StreamPosition.note_update,
    Finalize: StreamPosition.note_finalize,
    Final: StreamPosition.note_final,
}
"""By type, because this is called several times for each message."""
