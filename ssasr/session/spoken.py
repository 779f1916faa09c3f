"""How far a client who streams live has come in speaking. Latency is what such a client waits, so
the part of the audio that an outage or a slow engine keeps in the channels and in the socket counts
as spoken, although nobody here has seen it.

Pure.
"""

import math

from attrs import define

from ssasr.protocol.recognition import SAMPLE_RATE

CAUGHT_UP = SAMPLE_RATE // 4
"""Samples that what was received may differ from what time made of it: jitter."""
PAUSE = 1.0
"""Seconds without audio after which nothing waits any more: the client has stopped for a while."""


@define
class SpokenPosition:
    """Positions are stream samples, times the event loop's seconds."""

    began: float
    """A recording that is sent faster than it plays is not waited for longer than it is here."""
    _held_at: float = 0.0
    _held: int | None = None
    """Position when audio first had to wait; until what waited has been caught up with."""
    _released_at: float = math.inf

    def hold(self, now: float, received: int) -> None:
        """Audio beyond ``received`` waits."""
        self._released_at = math.inf
        if self._held is None:
            self._held_at, self._held = now, received

    def release(self, now: float) -> None:
        """It goes on."""
        self._released_at = now

    def position(self, now: float, received: int, last_audio: float) -> int:
        """``received``: at ``last_audio``, as far as it did not have to wait."""
        spoken = received
        if self._held is not None:
            by_time = self._held + int((now - self._held_at) * SAMPLE_RATE)
            paused = now - max(last_audio, self._released_at) > PAUSE
            if paused or received >= by_time - CAUGHT_UP:
                self._held = None
            else:
                spoken = by_time
        return min(spoken, int((now - self.began) * SAMPLE_RATE))
