"""Whether the peer of a link, or a client, is alive: decided from what was received and when.

After a period of silence the peer is sent a ping; if nothing at all arrives within a second period,
it counts as dead. Both periods are short while the peer owes an answer to audio, and long otherwise
(``Timeouts``). A peer that answers pings but has not answered audio for ``WORK_SECONDS`` counts as
dead too: its network works, its model does not.

Time is counted by our own checks: each counts for at most a little more than the time planned for
it. A process that was stopped, starved of CPU or suspended checks late, while what its peer sent
lies unread in the socket; by the plain clock it would declare a healthy peer dead.
"""

import enum

from attrs import define, field, frozen

CHECK_SECONDS = 1.0
"""Between two checks while an answer is owed or a ping is out."""
SLACK = 0.5
"""Seconds that a check may count for beyond those planned, however late it comes."""
WORK_SECONDS = 15.0
"""Seconds without an answer to audio that waits for one. Far longer than any step that keeps up
with real time, because leaving a slow engine would only slow the next one down."""
PING_INTERVAL = 20.0
PONG_DEADLINE = 40.0
QUICK_PONG = 2.0
"""Seconds; together the 60 s without any frame after which a client is taken for dead.
Most pongs come before ``QUICK_PONG`` seconds have passed."""


@frozen
class Timeouts:
    """Seconds. ``…_expecting``: while the peer owes an answer; ``…_idle``: while it does not."""

    ask_expecting: float
    """Silence after which a ping is sent."""
    answer_expecting: float
    """From the ping, without a byte received, to the verdict."""
    ask_idle: float
    answer_idle: float


GATEWAY = Timeouts(ask_expecting=1.0, answer_expecting=2.0, ask_idle=20.0, answer_idle=4.0)
"""A client that is speaking should wait three seconds at most; a thousand idle sessions must cost
next to nothing."""
ENGINE = Timeouts(ask_expecting=45.0, answer_expecting=4.0, ask_idle=45.0, answer_idle=4.0)
"""The gateway sends pings more often than that; an engine that receives nothing for so long has
been abandoned."""


class Verdict(enum.Enum):
    """What to do after a check."""

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
    """The liveness of a link's peer. Call ``check`` when ``next_check_in`` has passed, or earlier;
    ``now`` is any monotonic clock."""

    timeouts: Timeouts
    _checked: float
    _planned: float = CHECK_SECONDS
    _asked: bool = False
    _unanswered: float = 0.0
    _quiet: float = 0.0
    _idle: float = 0.0
    _bytes: int = field(default=-1)
    _messages: int = field(default=-1)

    def check(self, now: float, received: int, messages: int, *, expecting: bool) -> Verdict:
        """Check. ``received``, ``messages``: bytes and messages received so far; ``expecting``:
        whether the peer owes an answer."""
        passed = min(now - self._checked, self._planned + SLACK)
        self._checked = now
        alive, self._bytes = received != self._bytes, received
        worked, self._messages = messages != self._messages, messages
        self._quiet = 0.0 if alive else self._quiet + passed
        self._idle = self._idle + passed if expecting and not worked else 0.0
        self._asked = self._asked and not alive
        self._unanswered = self._unanswered + passed if self._asked else 0.0
        return self._verdict(expecting)

    def _verdict(self, expecting: bool) -> Verdict:
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

    def next_check_in(self, *, expecting: bool) -> float:
        """Seconds until the next check."""
        if expecting or self._asked:
            self._planned = CHECK_SECONDS
        else:
            self._planned = max(self.timeouts.ask_idle - self._quiet, CHECK_SECONDS)
        return self._planned

    def statistics(self) -> LivenessStatistics:
        return LivenessStatistics(self._quiet, self._idle)


@define
class ClientLiveness:
    """The liveness of a client. It owes no answers, and is sent a ping after ``PING_INTERVAL``
    without a message. Created with the time when it was last active; call ``check`` when
    ``next_check_in`` has passed."""

    _alive: float
    _asked: bool = False
    _bytes: int = 0
    """Bytes received when the ping was sent."""
    _unanswered_checks: int = 0
    """Checks since then that found no new bytes."""

    def check(self, now: float, last_message: float, received: int, *, held_back: bool) -> Verdict:
        """Check. ``last_message``: when a message was last taken; ``received``: bytes received so
        far; ``held_back``: reading has stopped, so pongs may wait in the socket, and the client
        counts as alive."""
        if held_back or (self._asked and received != self._bytes):
            self._asked = False
        if held_back:
            self._alive = now
        self._alive = max(self._alive, last_message)
        if self._asked:
            self._unanswered_checks += 1
            return Verdict.SILENT if self._unanswered_checks == 2 else Verdict.WELL
        if now - self._alive < PING_INTERVAL:
            return Verdict.WELL
        self._asked, self._bytes, self._unanswered_checks, self._alive = True, received, 0, now
        return Verdict.ASK

    def next_check_in(self, now: float) -> float:
        """Seconds until the next check."""
        if self._asked:
            return QUICK_PONG if self._unanswered_checks == 0 else PONG_DEADLINE - QUICK_PONG
        return self._alive + PING_INTERVAL - now
