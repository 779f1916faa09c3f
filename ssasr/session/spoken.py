"""The stream position that a live client has just spoken. Latency is what such a client waits, so
the audio that an outage or a slow engine keeps in channels and sockets counts as spoken, although
it has not been received yet.

Pure.
"""

import math

from attrs import define

from ssasr.protocol.recognition import SAMPLE_RATE

CAUGHT_UP = SAMPLE_RATE // 4
"""Samples by which audio received may lag behind the clock: jitter."""
PAUSE = 1.0
"""Seconds without audio after which the client has paused, and no audio of it waits."""


@define
class SpokenPosition:
    """Positions are stream samples, times the event loop's seconds."""

    began: float
    """When the session began: a recording that is sent faster than it plays has been spoken for no
    longer than the session lasts."""
    _held_at: float = 0.0
    _held: int | None = None
    """Position at which audio first had to wait; None once all that waited has been received."""
    _released_at: float = math.inf

    def hold(self, now: float, received: int) -> None:
        """Note that audio beyond ``received`` has to wait."""
        self._released_at = math.inf
        if self._held is None:
            self._held_at, self._held = now, received

    def release(self, now: float) -> None:
        """Note that audio is taken again."""
        self._released_at = now

    def position(self, now: float, received: int, last_audio: float) -> int:
        """The position at ``now``. ``received``: the position received at ``last_audio``."""
        spoken = received
        if self._held is not None:
            by_time = self._held + int((now - self._held_at) * SAMPLE_RATE)
            paused = now - max(last_audio, self._released_at) > PAUSE
            if paused or received >= by_time - CAUGHT_UP:
                self._held = None
            else:
                spoken = by_time
        return min(spoken, int((now - self.began) * SAMPLE_RATE))
