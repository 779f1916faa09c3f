"""The position of a stream: what was sent, what is acknowledged, and which finalize is open.

Each carrier of a stream (the session's replay buffer, either end of an engine link, a stream within
the process) has one and passes it every message of both directions, in order. It enforces the rules
of ``recognition`` about positions: audio has no gaps, answers are about the open segment and not
about the future, and one finalize is open at a time. Pure.
"""

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

    def note(self, message: object) -> None:
        """Take any message; other kinds change nothing. Raises OutOfPlace."""
        # No dispatch of any kind for the two that come all the time, several times each.
        if type(message) is Audio:
            if message.start != self.sent:
                raise OutOfPlace(f"audio at sample {message.start}, expected {self.sent}")
            size = len(message.pcm)
            if size % 2:
                raise OutOfPlace("audio that ends inside a sample")
            self.sent += size // 2
        elif type(message) is Update:
            position = message.position
            if message.segment != self.segment:
                raise OutOfPlace(f"update of segment {message.segment}, {self.segment} is open")
            if not self.start <= position <= self.sent:
                raise OutOfPlace(f"update at sample {position} of {self.sent}")
            if self.finalize is None and position > self.acknowledged:
                self.acknowledged = position
        else:
            self._note_seldom(message)

    def _note_seldom(self, message: object) -> None:
        match message:
            case Finalize(segment, at):
                if segment != self.segment or self.finalize is not None:
                    raise OutOfPlace(f"finalize of segment {segment}, {self.segment} is open")
                if not self.start <= at <= self.sent:
                    raise OutOfPlace(f"finalize at sample {at} of {self.sent}")
                self.finalize = message
            case Final(segment, at):
                asked = self.finalize
                if asked is None or (segment, at) != (asked.segment, asked.at):
                    raise OutOfPlace(f"final of segment {segment} at {at} answers nothing")
                self.finalize = None
                self.segment += 1
                self.start = self.acknowledged = at
            case Open():
                self.begin(message)
