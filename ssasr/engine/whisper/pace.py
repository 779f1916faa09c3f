"""How often words in the making are decoded, so that an engine with too much to do keeps up.

Such decodes lie on a grid of the audio. While the streams wait for them too long, the grid is made
twice as wide for all alike, up to ``MOST`` times; when they have not waited for a while, half as
wide again. What ends a turn is decoded at any pace.

There is no clock here: a stream that is heard as it is spoken brings a second of audio in a second.
"""

import math

from attrs import define

MOST = 8
TOO_LATE = 0.5
"""Seconds that streams may be behind on average before the grid is widened."""
IN_TIME = 0.2
"""Seconds below which it is narrowed again."""
MEMORY = 1.0
"""Seconds over which the delay is averaged; a burst is no overload."""
PATIENCE = 3.0
"""Seconds after a change before the next one: it has to show its effect."""
RELIEF = 10.0
"""Seconds in time before the grid is narrowed, which may bring the delay back."""


@define
class Pace:
    """``factor``: the grid is that many times as wide as it should be."""

    factor: int = 1
    late: float = 0.0
    _since: float = 0.0

    def note(self, late: float, elapsed: float) -> None:
        """The streams were ``late`` seconds behind on average for the last ``elapsed`` seconds."""
        self.late += (late - self.late) * -math.expm1(-elapsed / MEMORY)
        self._since += elapsed
        if self.late > TOO_LATE:
            if self._since >= PATIENCE:
                self._change(min(2 * self.factor, MOST))
        elif self.late > IN_TIME:
            self._since = min(self._since, PATIENCE)
        elif self._since >= RELIEF:
            self._change(max(self.factor // 2, 1))

    def _change(self, factor: int) -> None:
        self.factor, self._since = factor, 0.0
