"""What to keep of a stream so that another engine can take it over, and which of its answers
are new.

Theory of operation. A stream is a chain of segments. The answers about a segment are a function of
the segment's audio, the options in force at each position, and the end that is asked for; they do
not depend on time, on earlier segments, or on which engine gives them (``recognition``). So any
engine can continue a stream from the start of its open segment: open a stream there, send the same
messages again in the same order, and ignore answers until they are about something new.

Four things are kept:

* the **messages** sent since the start of the open segment: audio, Configure, and the Finalize that
  is not answered yet. When ``Final(k, at)`` has been delivered, everything before ``at`` is
  dropped; audio that straddles ``at`` is cut. A Configure belongs to a position: the end of the
  audio sent before it. Those at or before ``at`` have become the **options** that the next segment
  opens with, because an engine applies new options from the first step that holds later audio;
* how far answers have been **delivered**: segment, position, and how much of it was decoded.
  Answers that do not go beyond that are old. While two engines answer, one that is leaving and one
  that is taking over, whichever gives a new answer first is used;
* the language that was spoken before the open segment;
* the words of the open segment that were delivered as final (**committed**). A new engine is given
  them, and later answers begin with them as they were delivered, whatever that engine finds there.
  So a final word never changes, even if two engines differ in the last bit of a number.

A session sends a Finalize only when the one before has been answered, so at most one is kept. Audio
is kept as references to the messages themselves, up to ``MAX_KEPT``: of a longer segment only the
end is kept, and while its start is missing the stream cannot be replayed. The next segment can.

For a session that asks for speakers, the audio before the open segment that speaker windows may
reach back to (``CONTEXT``) is kept too, and is sent first (``Open.context``).

Pure: no I/O, no clock, no tasks. Nothing here depends on which engines there are.
"""

from collections import deque

from attrs import evolve

from ssasr.protocol.recognition import (
    SAMPLE_RATE,
    Audio,
    Configure,
    Final,
    Finalize,
    Open,
    ToEngine,
    Update,
    Word,
    language_after,
)
from ssasr.protocol.stream_position import StreamPosition
from ssasr.protocol.voices import CONTEXT

MAX_KEPT = 300 * SAMPLE_RATE
"""Samples kept of one stream: five minutes without a pause, 9.6 MB."""


class Replay:
    """What is kept of one stream; see the module. ``max_kept`` in samples."""

    def __init__(self, opening: Open, max_kept: int = MAX_KEPT) -> None:
        self._session_id = opening.session_id
        self._options = opening.options
        self.position = StreamPosition.of(opening)
        """The session's: what it has sent and received, of whichever engine."""
        self._kept_from = opening.start
        self._committed = opening.committed
        self._committed_at = opening.committed_at
        self._language_before = opening.language_before
        self._delivered_to = (opening.start, -1)  # position, decoded
        self._context = CONTEXT if opening.options.speakers else 0
        self._max_kept = max_kept + self._context
        self._kept: deque[tuple[int, ToEngine]] = deque()
        """Messages with their positions, ascending: audio with its end, others with the end of the
        audio sent before them."""
        self.dropped = 0
        """Answers that were old and not delivered."""

    @property
    def kept(self) -> int:
        """Samples kept."""
        return self.position.sent - self._kept_from

    @property
    def replayable(self) -> bool:
        """Whether all audio of the open segment is kept."""
        return self._kept_from <= self.position.start

    @property
    def nothing_delivered(self) -> bool:
        """Whether no answer of the open segment has been delivered."""
        return self._delivered_to == (self.position.start, -1)

    # -- towards the engine ------------------------------------------------------------------------

    def add(self, message: ToEngine) -> None:
        """Keep a message that the session sends."""
        self.position.note(message)
        if isinstance(message, Configure):
            self._drop_replaced()
        self._kept.append((self.position.sent, message))
        while self.position.sent - self._kept_from > self._max_kept:
            self._drop_oldest_audio()

    def opening(self) -> Open:
        """The Open for the next engine."""
        assert self.replayable, "the start of the segment has been dropped"
        return Open(
            self._session_id, self._options, self.position.segment, self.position.start,
            self._committed, self._committed_at, self._language_before,
            self.position.start - self._kept_from,
        )  # fmt: skip

    def messages(self) -> list[ToEngine]:
        """What the next engine is sent after Open, oldest first."""
        return [message for _, message in self._kept]

    def is_caught_up(self, answer: Update | Final) -> bool:
        """Whether an engine that has just given ``answer`` has reached what was delivered to the
        session."""
        match answer:
            case Update(segment, position):
                return (segment, position) >= (self.position.segment, self._delivered_to[0])
            case Final(segment):
                return segment + 1 >= self.position.segment and self.nothing_delivered

    # -- towards the session -----------------------------------------------------------------------

    def deliver(self, answer: Update | Final) -> Update | Final | None:
        """The part of an engine's answer to deliver to the session; None if it is old."""
        asked = self.position.finalize
        old = answer.segment != self.position.segment
        if isinstance(answer, Update):
            old = old or (answer.position, answer.decoded) <= self._delivered_to
        else:
            old = old or asked is None or answer.at != asked.at
        if old:
            self.dropped += 1
            return None
        self.position.note(answer)
        answer = self._pinned(answer)
        if isinstance(answer, Final):
            self._language_before = language_after(
                self._language_before, answer.words, answer.language, answer.language_confidence
            )
            self._next_segment(answer.at)
        else:
            self._delivered_to = (answer.position, answer.decoded)
            if asked is None:  # otherwise the answer is stale, and its words are not shown
                self._commit(answer.words, answer.position)
        return answer

    def _pinned(self, answer: Update | Final) -> Update | Final:
        """The answer with its first words replaced by the committed ones."""
        count = len(self._committed)
        words = answer.words
        if words[:count] == self._committed:  # nearly always, and by identity
            return answer
        if isinstance(answer, Final):
            # The segment may end before a committed word, so only as many as it has are replaced.
            pinned = self._committed[: len(words)] + words[count:]
            return evolve(answer, words=pinned)
        return evolve(answer, words=self._committed + words[count:])

    def _commit(self, words: tuple[Word, ...], position: int) -> None:
        count = known = len(self._committed)
        while count < len(words) and words[count].final:
            count += 1
        if count > known:
            self._committed, self._committed_at = words[:count], position

    def _next_segment(self, at: int) -> None:
        self._delivered_to = (at, -1)
        self._committed, self._committed_at = (), 0
        cut = max(at - self._context, self._kept_from)
        later: list[tuple[int, ToEngine]] = []
        for end, message in self._kept:
            match message:
                case Audio(start, pcm):
                    if start < cut < end:
                        later.append((end, Audio(cut, pcm[2 * (cut - start) :])))
                    elif start >= cut:
                        later.append((end, message))
                case Configure(options):
                    if end <= at:
                        self._options = options
                    else:
                        later.append((end, message))
                case Finalize():
                    pass  # has just been answered
        self._kept = deque(later)
        self._kept_from = cut

    def _drop_replaced(self) -> None:
        """Options that are replaced before there was audio for them need not be kept: a client may
        send new ones without end."""
        position, last = self._kept[-1] if self._kept else (0, None)
        if isinstance(last, Configure) and position == self.position.sent:
            self._kept.pop()

    def _drop_oldest_audio(self) -> None:
        """Called when the segment is longer than what may be kept. Its options and its Finalize
        stay, because the next segment depends on them."""
        for index, (end, message) in enumerate(self._kept):
            if isinstance(message, Audio):
                del self._kept[index]
                self._kept_from = end
                return

    def check_integrity(self) -> None:
        """Assert what must hold between any two calls."""
        audio = [message for _, message in self._kept if isinstance(message, Audio)]
        position = self._kept_from
        for message in audio:
            assert message.start == position, "the audio kept has no gaps"
            position += len(message.pcm) // 2
        assert position == self.position.sent, "the newest audio is kept"
        assert self.kept <= self._max_kept, "what is kept is bounded"
        positions = [end for end, _ in self._kept]
        assert positions == sorted(positions), "messages keep their order"
        finalizes = [message for _, message in self._kept if isinstance(message, Finalize)]
        expected = [] if self.position.finalize is None else [self.position.finalize]
        assert finalizes == expected, "the open finalize is kept, and no other"
        assert all(word.final for word in self._committed), "committed words are final"
        assert self.position.start <= self._delivered_to[0] <= self.position.sent, (
            "no answer is about the future"
        )
