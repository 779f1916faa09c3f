"""The interval between decodes for partial results, which grows so that a busy engine keeps up.

These decodes lie on a grid of the audio. Under load the grid is widened for all streams alike, up
to ``MOST`` times: immediately, as far as the number of speaking streams requires; and further, if
the model has not caught up with its streams for some seconds all the same. The decodes at the end
of a turn are always made.

A delay or full load alone is no reason to widen the grid. An engine that has taken over the streams
of another one catches up in a few seconds, and the words must be those that the other engine would
have found on the usual grid.
"""

from math import ceil, inf

from attrs import define, field

from ssasr.engine.load import Load

MOST = 8
FIXED = 0.45
"""Share of what a stream costs that does not depend on the grid: the speech detector, the decode at
a pause and what judges the end of the turn (tiny.en, ``benchmarks/archive``)."""
TALKING = 0.8
"""Share of the streams on which somebody speaks at the same moment, if all of them are in use."""
TOO_LONG = 20.0
"""Seconds without a moment in which every stream kept up."""
REST = 0.1
"""Seconds between two steps that show that there was nothing left to do: the next one takes what
there is at once."""
LITTLE = 0.4
"""Load at which the grid is narrowed again; less than half, since that may double it."""
MEMORY = 4.0
"""Seconds over which the load is averaged."""
PATIENCE = 4.0
"""Seconds after a change before the next one: it has to show its effect."""

_NEEDED = TALKING * (FIXED + (1 - FIXED) / MOST)


@define
class PartialInterval:
    """``capacity``: streams that can be spoken on at once while the grid is as it should be."""

    capacity: float = inf
    _needed: int = 1
    """How wide the streams that there are make it."""
    _forced: int = 1
    """How wide it had to be made, since they were too many all the same."""
    _load: Load = field(factory=lambda: Load(MEMORY))
    _worked: float = -inf
    _kept_up: float = -inf
    _changed: float = 0.0

    @property
    def factor(self) -> int:
        """The grid is that many times as wide as it should be."""
        return max(self._needed, self._forced)

    def note_speaking(self, streams: int) -> None:
        """Somebody speaks on that many streams."""
        share = self.capacity / streams - FIXED if streams else inf
        self._needed = min(max(1, ceil((1 - FIXED) / share)), MOST) if share > 0 else MOST

    def worked(self, seconds: float, now: float, *, busy: float, keeps_up: bool) -> None:
        """A step took so long until ``now``. ``busy``: share of the workers that had something to
        do. ``keeps_up``: no stream falls behind."""
        self._load.worked(busy * seconds, now)
        rested = now - seconds - self._worked > REST
        if rested or keeps_up:
            self._kept_up = now
        self._worked = now
        if now - self._changed < PATIENCE:
            return
        if now - self._kept_up > TOO_LONG and self.factor < MOST:
            self._forced, self._changed = min(2 * self.factor, MOST), now
        elif self._load.ratio(now) < LITTLE and self._forced > 1:
            self._forced, self._changed = self._forced // 2, now


def most_streams(capacity: float) -> int:
    """Streams that an engine keeps up with at its widest grid."""
    return max(1, int(capacity / _NEEDED))


def least_capacity(streams: int) -> float:
    """What an engine must have to keep up with that many: the inverse."""
    return streams * _NEEDED
