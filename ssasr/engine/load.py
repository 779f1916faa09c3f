"""How busy a model is."""

import math

from attrs import define


@define
class Load:
    """Share of the last ``memory`` seconds that was work, the older the less it counts (``memory``
    is the time constant)."""

    memory: float
    _sum: float = 0.0
    _at: float = -math.inf

    def worked(self, seconds: float, now: float) -> None:
        fresh = -math.expm1(-seconds / self.memory)
        self._sum, self._at = self.ratio(now) + fresh, now

    def ratio(self, now: float) -> float:
        return min(self._sum * math.exp((self._at - now) / self.memory), 1.0)
