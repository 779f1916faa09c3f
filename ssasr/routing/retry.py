"""When a stream that has lost its engine tries another, and when it gives up."""

import math
from random import Random

from attrs import define, frozen

from ssasr.routing.replay import MAX_KEPT


@frozen
class RetryPolicy:
    """How long to look for an engine before the stream is given up, which ends its session."""

    seconds: float = 15.0
    """Without any engine."""
    tries: int = 5
    """Engines in a row that were lost within ``settled`` seconds without a new answer. It may be
    the audio that makes them crash, and then it must not reach all of them."""
    settled: float = 10.0
    """Seconds after which the loss of an engine no longer counts as one of those."""
    first_delay: float = 0.05
    longest_delay: float = 1.0
    max_kept: int = MAX_KEPT
    """Samples; see ``replay``."""


@define
class RetryBudget:
    """Delays between attempts, and when to stop. Pure, apart from ``random``."""

    policy: RetryPolicy
    random: Random
    _without_since: float = math.inf
    _failures: int = 0
    _tries: int = 0

    def lost(self, now: float, carried_for: float, *, any_left: bool) -> None:
        """An engine was lost; ``any_left``: another still carries the stream."""
        self._tries = self._tries + 1 if carried_for < self.policy.settled else 1
        if not any_left:
            self._without_since = min(self._without_since, now)

    def progressed(self) -> None:
        """An engine has given a new answer."""
        self._tries = 0

    def opened(self) -> None:
        self._without_since = math.inf
        self._failures = 0

    def refused(self, now: float, *, any_left: bool) -> None:
        """No engine could be opened."""
        self._failures += 1
        if not any_left:
            self._without_since = min(self._without_since, now)

    def exhausted(self, now: float) -> bool:
        return self._tries > self.policy.tries or now - self._without_since > self.policy.seconds

    def delay(self) -> float:
        """Seconds to wait before the next attempt, randomised so that the streams of a lost engine
        do not all come at once. Repeated losses count like failed attempts."""
        failures = self._failures + max(self._tries - 1, 0)
        if failures == 0:
            return self.random.uniform(0.0, self.policy.first_delay)
        backoff = self.policy.first_delay * 2.0 ** min(failures - 1, 16)
        return min(backoff, self.policy.longest_delay) * self.random.uniform(0.75, 1.25)
