"""How often words in the making are decoded, so that an engine with too much to do keeps up.

Such decodes lie on a grid of the audio. When the model has not caught up with its streams for some
seconds, the grid is made twice as wide for all of them alike, up to ``MOST`` times; when it has had
much rest, half as wide again. What ends a turn is decoded at any pace.

Neither a delay nor a full load is too much by itself. An engine that has taken over the streams of
another catches up with them in a few seconds, and must not widen the grid for that: the other one
would have understood the same audio at the usual pace.
"""

from attrs import define, field

from ssasr.engine.load import Load

MOST = 8
TOO_LONG = 10.0
"""Seconds without a moment in which there was nothing left to do."""
LITTLE = 0.4
"""Load at which the grid is narrowed again; less than half, since that may double it."""
MEMORY = 4.0
"""Seconds over which the load is averaged."""
PATIENCE = 4.0
"""Seconds after a change before the next one: it has to show its effect."""


@define
class Pace:
    """``factor``: the grid is that many times as wide as it should be."""

    factor: int = 1
    _load: Load = field(factory=lambda: Load(MEMORY))
    _caught_up: float | None = None
    _changed: float = 0.0

    def worked(self, seconds: float, now: float, *, caught_up: bool) -> None:
        """The model has worked for so long until ``now``; was there nothing left to do?"""
        self._load.worked(seconds, now)
        if caught_up or self._caught_up is None:
            self._caught_up = now
        if now - self._changed < PATIENCE:
            return
        if now - self._caught_up > TOO_LONG and self.factor < MOST:
            self.factor, self._changed = 2 * self.factor, now
        elif self._load.ratio(now) < LITTLE and self.factor > 1:
            self.factor, self._changed = self.factor // 2, now
