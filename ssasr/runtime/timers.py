"""One task that looks after what is in no hurry, at whole seconds.

A task that sleeps for itself costs a scope, a wake-up and its way through the scheduler each time,
and a process that has slept pays several times that for waking up. Where a thousand sessions want
to be looked at now and then, that is most of what they cost while nobody speaks. So whoever wants
it has a function called instead, all those of one second together.
"""

import math
from collections.abc import Callable

import trio

from ssasr.runtime.run_task import of_this_run

ROUND = 64
"""Looks before the other tasks have their turn."""

Callback = Callable[[float], float | None]
"""Given the whole second that it is; the seconds until the next look, rounded up; None: never
again."""


class Timer:
    """One who is looked after, while ``run_until_over`` runs."""

    def __init__(self, callback: Callback) -> None:
        self._callback = callback
        self._over = trio.Event()
        self._bug: Exception | None = None
        self._timers: Timers | None = None
        self._due = 0

    async def run_until_over(self, seconds: float) -> None:
        """The first look in ``seconds``; until there are to be no more. Raises what the look
        does."""
        self._timers = current_timers()
        self._due = self._timers.schedule(self, seconds)
        try:
            await self._over.wait()
        finally:
            self._timers.forget(self, self._due)
            self._timers = None
        if self._bug is not None:
            raise self._bug

    def hasten(self) -> None:
        """Look with the next round."""
        if self._timers is not None:
            self._timers.forget(self, self._due)
            self._due = self._timers.schedule(self, 1.0)

    def fire(self, second: int) -> None:
        """Called by ``Timers``."""
        assert self._timers is not None, "forgotten before it was over"
        try:
            rest = self._callback(second)
        except Exception as bug:  # which is for its own task to raise
            self._bug, rest = bug, None
        if rest is None:
            self._over.set()
        else:
            self._due = self._timers.schedule(self, rest)


class Timers:
    """``run`` must be running."""

    def __init__(self) -> None:
        self._due: dict[int, set[Timer]] = {}
        self._rest = trio.CancelScope()

    def schedule(self, timer: Timer, seconds: float) -> int:
        """The second of its next look."""
        due = math.floor(trio.current_time()) + max(math.ceil(seconds), 1)
        self._due.setdefault(due, set()).add(timer)
        if due < self._rest.deadline:
            self._rest.deadline = due
        return due

    def forget(self, timer: Timer, due: int) -> None:
        self._due.get(due, set()).discard(timer)

    async def run(self) -> None:
        while True:
            with trio.CancelScope(deadline=min(self._due, default=math.inf)) as self._rest:
                await trio.sleep_forever()
            now = math.floor(trio.current_time())
            for second in sorted(each for each in self._due if each <= now):
                await self._fire(self._due[second], now)
                del self._due[second]

    async def _fire(self, due_timers: set[Timer], now: int) -> None:
        made = 0
        while due_timers:
            due_timers.pop().fire(now)
            made += 1
            if made % ROUND == 0:
                await trio.lowlevel.checkpoint()


_timers: trio.lowlevel.RunVar[Timers] = trio.lowlevel.RunVar("ssasr_timers")


def current_timers() -> Timers:
    """Those of this trio run."""
    return of_this_run(_timers, Timers)
