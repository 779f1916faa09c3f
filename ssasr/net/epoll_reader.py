"""One task that waits for many sockets.

A task that waits for its own socket costs a registration, a wake-up and its way through the
scheduler for every message, which for a small message is more than the work itself. Whoever owns a
socket can have a function called instead as soon as there is something to read, in the one task
that waits for all of them, as often as there is, until it says otherwise.

A process that has slept finds its caches cold, and pays several times the price of a message for
waking up. So while there is much to do, the sockets are looked at in ticks, and a wake-up serves
whatever has come meanwhile. What comes after a rest is served at once.
"""

import math
import select
import sys
from collections.abc import Callable
from contextlib import suppress

import trio

from ssasr.runtime.run_task import of_this_run

ROUND = 64
"""Sockets seen to before the other tasks have their turn."""
TICK = 0.005
"""Seconds from one look at the sockets to the next, where one finds something after the other."""


class EpollReader:
    """``callback`` functions must not raise, nor leave their socket both unread and watched."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}

    def watch(self, fileno: int, callback: Callable[[], None]) -> None:
        """Until ``forget``, which must come before the socket is closed."""
        self._callbacks[fileno] = callback
        self._epoll.register(fileno, select.EPOLLIN)

    def forget(self, fileno: int) -> None:
        if self._callbacks.pop(fileno, None) is not None:
            with suppress(OSError):  # closed behind our back, and unregistered by that
                self._epoll.unregister(fileno)

    async def run(self) -> None:
        with self._epoll:
            last = -math.inf
            while True:
                now = trio.current_time()
                seen = self._serve()
                if not seen:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                    continue
                if seen == ROUND:
                    await trio.lowlevel.checkpoint()
                elif now - last <= 2 * TICK:
                    await trio.sleep_until(now + TICK)
                last = now

    def _serve(self) -> int:
        """Ring for a round of those that have something; how many there were."""
        events = self._epoll.poll(0, ROUND)
        for fileno, _ in events:
            callback = self._callbacks.get(fileno)  # one that rang before may have put it off
            if callback is not None:
                callback()
        return len(events)


_reader: trio.lowlevel.RunVar[EpollReader] = trio.lowlevel.RunVar("ssasr_epoll_reader")


def current_reader() -> EpollReader | None:
    """That of this trio run; None where there is no epoll."""
    if sys.platform != "linux":
        return None
    return of_this_run(_reader, EpollReader)
