"""Whether the peer of a link, or a client, is alive: decided from what was received and when.

A peer is asked with a ping after a while of silence, and is dead when nothing at all came back for
a while after that. Both whiles are short where it owes an answer to audio, and long where nobody
waits for anything (``Timeouts``). One that answers pings but leaves work undone for
``WORK_SECONDS`` is as good as dead: its network half lives, its model does not.

Time is counted in the judge's own looks, each of which counts for little more than it was meant to
take. A process that was stopped, starved of CPU or suspended with its machine looks late, and what
its peer sent meanwhile lies unread in the socket; by the plain clock it would then bury a peer that
is well.
"""

import enum

from attrs import define, field, frozen

LOOK_SECONDS = 1.0
"""Between two looks while something is owed or asked."""
SLACK = 0.5
"""Seconds that a look may add beyond those it was planned for, however late it comes."""
WORK_SECONDS = 15.0
"""Seconds without an answer to audio that waits for one. A slow engine is not a dead one: leaving
it would only make the next one slower, so this is far above any step that still keeps up."""
PING_INTERVAL = 20.0
PONG_DEADLINE = 40.0
QUICK_PONG = 2.0
"""Seconds; together the 60 s without any frame after which a client is taken for dead.
Most pongs come before ``QUICK_PONG`` seconds have passed."""


@frozen
class Timeouts:
    """Seconds. ``owed``: while the peer owes an answer; ``idle``: while it does not."""

    ask_expecting: float
    """Silence after which the peer is asked."""
    answer_expecting: float
    """From the question without a single byte to the verdict."""
    ask_idle: float
    answer_idle: float


GATEWAY = Timeouts(ask_expecting=1.0, answer_expecting=2.0, ask_idle=20.0, answer_idle=4.0)
"""Somebody is speaking: a pause of three seconds is long enough. Nobody is: a thousand idle
sessions must cost next to nothing."""
ENGINE = Timeouts(ask_expecting=45.0, answer_expecting=4.0, ask_idle=45.0, answer_idle=4.0)
"""The gateway asks often enough; an engine that receives nothing for so long has been abandoned."""


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
    """``look`` when ``rest`` has passed, or earlier; ``now`` is any clock that does not go back."""

    timeouts: Timeouts
    _looked: float
    _planned: float = LOOK_SECONDS
    _asked: bool = False
    _unanswered: float = 0.0
    _quiet: float = 0.0
    _idle: float = 0.0
    _bytes: int = field(default=-1)
    _messages: int = field(default=-1)

    def look(self, now: float, received: int, messages: int, *, expecting: bool) -> Verdict:
        """``received``, ``messages``: bytes and messages so far; ``expecting``: it owes one."""
        passed = min(now - self._looked, self._planned + SLACK)
        self._looked = now
        alive, self._bytes = received != self._bytes, received
        worked, self._messages = messages != self._messages, messages
        self._quiet = 0.0 if alive else self._quiet + passed
        self._idle = self._idle + passed if expecting and not worked else 0.0
        self._asked = self._asked and not alive
        self._unanswered = self._unanswered + passed if self._asked else 0.0
        return self._judge(expecting)

    def _judge(self, expecting: bool) -> Verdict:
        timeouts = self.timeouts
        if self._idle >= WORK_SECONDS:
            return Verdict.STUCK
        if self._asked:
            limit = timeouts.answer_expecting if expecting else timeouts.answer_idle
            return Verdict.SILENT if self._unanswered >= limit else Verdict.WELL
        if self._quiet >= (timeouts.ask_expecting if expecting else timeouts.ask_idle):
            self._asked = True
            return Verdict.ASK
        return Verdict.WELL

    def rest(self, *, expecting: bool) -> float:
        """Seconds until the next look."""
        if expecting or self._asked:
            self._planned = LOOK_SECONDS
        else:
            self._planned = max(self.timeouts.ask_idle - self._quiet, LOOK_SECONDS)
        return self._planned

    def statistics(self) -> LivenessStatistics:
        return LivenessStatistics(self._quiet, self._idle)


@define
class Pulse:
    """Of a client, who owes nothing and is asked after a while without a message; made when it was
    last active. ``look`` when ``rest`` has passed."""

    _alive: float
    _asked: bool = False
    _bytes: int = 0
    """When it was asked."""
    _unanswered_looks: int = 0
    """Looks since then that found nothing new."""

    def look(self, now: float, last_message: float, received: int, *, held_back: bool) -> Verdict:
        """``last_message``: when one was last taken; ``received``: bytes so far; ``held_back``: no
        more is read, so that its frames, pongs among them, wait in the socket: it lives."""
        if held_back or (self._asked and received != self._bytes):
            self._asked = False
        if held_back:
            self._alive = now
        self._alive = max(self._alive, last_message)
        if self._asked:
            self._unanswered_looks += 1
            return Verdict.SILENT if self._unanswered_looks == 2 else Verdict.WELL
        if now - self._alive < PING_INTERVAL:
            return Verdict.WELL
        self._asked, self._bytes, self._unanswered_looks, self._alive = True, received, 0, now
        return Verdict.ASK

    def rest(self, now: float) -> float:
        """Seconds until the next look."""
        if self._asked:
            return QUICK_PONG if self._unanswered_looks == 0 else PONG_DEADLINE - QUICK_PONG
        return self._alive + PING_INTERVAL - now
