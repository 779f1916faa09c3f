"""Whether the peer of a link is alive: a pure judge of what was heard and when.

A peer is asked with a ping after a while of silence, and is dead when nothing at all came back for
``ANSWER_SECONDS``. One that answers pings but leaves work undone for ``WORK_SECONDS`` is as good as
dead: its network half lives, its model does not.

Time is counted in the judge's own looks, each of which counts for no more than ``MOST_PER_LOOK``. A
process that was stopped, starved of CPU or suspended with its machine looks late, and what its peer
sent meanwhile lies unread in the socket; by the plain clock it would then bury a peer that is well.
"""

import enum

from attrs import define, field, frozen

LOOK_SECONDS = 1.0
"""Between two looks."""
MOST_PER_LOOK = 1.5
"""Seconds that one look may add, however late it comes."""
PING_AFTER = 1.5
"""Seconds of silence after which the peer is asked."""
ANSWER_SECONDS = 4.0
"""Seconds from the question without a single byte. An event loop that is starved for longer could
not keep up with live audio either."""
WORK_SECONDS = 15.0
"""Seconds without an answer to audio that waits for one. A slow engine is not a dead one: leaving
it would only make the next one slower, so this is far above any step that still keeps up."""


class Verdict(enum.Enum):
    """What to do after a look."""

    WELL = "nothing to do"
    ASK = "send a ping"
    SILENT = "dead: not even a ping is answered"
    STUCK = "dead: it answers pings and does no work"


@frozen
class LivenessStatistics:
    quiet: float
    """Seconds since the last byte."""
    idle: float
    """Seconds that work has waited for an answer."""


@define
class Liveness:
    """``look`` every ``LOOK_SECONDS``; ``now`` is any clock that does not go back."""

    _looked: float
    _asked: bool = False
    _quiet: float = 0.0
    _idle: float = 0.0
    _bytes: int = field(default=-1)
    _messages: int = field(default=-1)

    def look(self, now: float, received: int, messages: int, *, owing: bool) -> Verdict:
        """``received``, ``messages``: bytes and messages so far; ``owing``: it has work of ours."""
        passed = min(now - self._looked, MOST_PER_LOOK)
        self._looked = now
        heard, self._bytes = received != self._bytes, received
        worked, self._messages = messages != self._messages, messages
        self._quiet = 0.0 if heard else self._quiet + passed
        self._idle = self._idle + passed if owing and not worked else 0.0
        self._asked = self._asked and not heard
        if self._idle >= WORK_SECONDS:
            return Verdict.STUCK
        if self._asked:
            return Verdict.SILENT if self._quiet >= PING_AFTER + ANSWER_SECONDS else Verdict.WELL
        if self._quiet >= PING_AFTER:
            self._asked = True
            return Verdict.ASK
        return Verdict.WELL

    def statistics(self) -> LivenessStatistics:
        return LivenessStatistics(self._quiet, self._idle)
