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

Look = Callable[[float], float | None]
"""Given the whole second that it is; the seconds until the next look, rounded up; None: never
again."""


class Visit:
    """One who is looked after, while ``pay`` runs."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._over = trio.Event()
        self._bug: Exception | None = None
        self._rounds: Rounds | None = None
        self._due = 0

    async def pay(self, seconds: float) -> None:
        """The first look in ``seconds``; until there are to be no more. Raises what the look
        does."""
        self._rounds = the_rounds()
        self._due = self._rounds.plan(self, seconds)
        try:
            await self._over.wait()
        finally:
            self._rounds.forget(self, self._due)
            self._rounds = None
        if self._bug is not None:
            raise self._bug

    def hasten(self) -> None:
        """Look with the next round."""
        if self._rounds is not None:
            self._rounds.forget(self, self._due)
            self._due = self._rounds.plan(self, 1.0)

    def make(self, second: int) -> None:
        """For the rounds."""
        assert self._rounds is not None, "forgotten before it was over"
        try:
            rest = self._look(second)
        except Exception as bug:  # which is for its own task to raise
            self._bug, rest = bug, None
        if rest is None:
            self._over.set()
        else:
            self._due = self._rounds.plan(self, rest)


class Rounds:
    """``run`` must be running."""

    def __init__(self) -> None:
        self._due: dict[int, set[Visit]] = {}
        self._rest = trio.CancelScope()

    def plan(self, visit: Visit, seconds: float) -> int:
        """The second of its next look."""
        due = math.floor(trio.current_time()) + max(math.ceil(seconds), 1)
        self._due.setdefault(due, set()).add(visit)
        if due < self._rest.deadline:
            self._rest.deadline = due
        return due

    def forget(self, visit: Visit, due: int) -> None:
        self._due.get(due, set()).discard(visit)

    async def run(self) -> None:
        while True:
            with trio.CancelScope(deadline=min(self._due, default=math.inf)) as self._rest:
                await trio.sleep_forever()
            now = math.floor(trio.current_time())
            for second in sorted(each for each in self._due if each <= now):
                await self._make(self._due[second], now)
                del self._due[second]

    async def _make(self, visits: set[Visit], now: int) -> None:
        made = 0
        while visits:
            visits.pop().make(now)
            made += 1
            if made % ROUND == 0:
                await trio.lowlevel.checkpoint()


_rounds: trio.lowlevel.RunVar[Rounds] = trio.lowlevel.RunVar("ssasr_rounds")


def the_rounds() -> Rounds:
    """Those of this trio run."""
    return of_this_run(_rounds, Rounds)
