"""How often words in the making are decoded, so that an engine with too much to do keeps up.

Such decodes lie on a grid of the audio. While the model has hardly a moment's rest, the grid is
made twice as wide for all streams alike, up to ``MOST`` times; when it has had much for a while,
half as wide again. What ends a turn is decoded at any pace. How late the streams are does not
count: one that is taken over from another engine begins far behind, and that is no overload.
"""

from attrs import define, field

from ssasr.engine.load import Load

MOST = 8
TOO_MUCH = 0.9
"""Load at which the grid is widened. Below it the wait for other streams' decodes is short."""
LITTLE = 0.4
"""Load at which it is narrowed again; less than half of ``TOO_MUCH``, since that may double it."""
MEMORY = 8.0
"""Seconds over which the load is averaged. What an engine has to catch up with after it took over
the streams of another is done sooner, and must not be taken for too much: the other engine would
have understood the same audio at the usual pace."""
PATIENCE = 4.0
"""Seconds after a change before the next one: it has to show its effect."""


@define
class Pace:
    """``factor``: the grid is that many times as wide as it should be."""

    factor: int = 1
    _load: Load = field(factory=lambda: Load(MEMORY))
    _changed: float = 0.0

    def worked(self, seconds: float, now: float) -> None:
        """The model has worked for so long until ``now``."""
        self._load.worked(seconds, now)
        load = self._load.ratio(now)
        if now - self._changed < PATIENCE:
            return
        if load > TOO_MUCH and self.factor < MOST:
            self.factor, self._changed = 2 * self.factor, now
        elif load < LITTLE and self.factor > 1:
            self.factor, self._changed = self.factor // 2, now
