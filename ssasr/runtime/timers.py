"""Periodic checks of all sessions and links, made by one task at whole seconds.

A task that sleeps on its own costs a cancel scope, a wake-up and a pass of the scheduler each time,
and a process that was idle pays several times that for waking up. With a thousand sessions, that
would be most of the cost of silent ones. Instead, a ``Timer`` has its callback called here,
together with all others that are due in the same second.
"""

import math
from collections.abc import Callable

import trio

from ssasr.runtime.run_task import of_this_run

ROUND = 64
"""Callbacks in a row before other tasks may run."""

Callback = Callable[[float], float | None]
"""Gets the current whole second of trio's clock. Returns the seconds until the next call (rounded
up to whole seconds), or None to end the timer."""


class Timer:
    """Has its callback called while ``run_until_over`` runs."""

    def __init__(self, callback: Callback) -> None:
        self._callback = callback
        self._over = trio.Event()
        self._bug: Exception | None = None
        self._timers: Timers | None = None
        self._due = 0

    async def run_until_over(self, seconds: float) -> None:
        """Call the callback, first in ``seconds``, until it returns None. Raises what the callback
        raises."""
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
        """Move the next call forward to the next whole second."""
        if self._timers is not None:
            self._timers.forget(self, self._due)
            self._due = self._timers.schedule(self, 1.0)

    def fire(self, second: int) -> None:
        """Called by ``Timers``."""
        assert self._timers is not None, "forgotten before it was over"
        try:
            rest = self._callback(second)
        except Exception as bug:  # raised in the timer's own task
            self._bug, rest = bug, None
        if rest is None:
            self._over.set()
        else:
            self._due = self._timers.schedule(self, rest)


class Timers:
    """All timers of a trio run, by the second at which they are due. ``run`` must be running."""

    def __init__(self) -> None:
        self._due: dict[int, set[Timer]] = {}
        self._rest = trio.CancelScope()

    def schedule(self, timer: Timer, seconds: float) -> int:
        """Have ``timer`` fired in ``seconds``. Returns the second at which it is due."""
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
    """The timers of this trio run."""
    return of_this_run(_timers, Timers)
