"""One task that waits for all sockets of a process.

A task that waits for its own socket costs a registration, a wake-up and a pass of the scheduler for
every message, more than the work on a small message. Here the owner of a socket registers a
callback (``watch``), which is called in one task whenever the socket is readable, until ``forget``.

A process that has slept finds its caches cold, and waking up costs several times as much as a
message. Under load the sockets are therefore polled in ticks of 5 ms, so that one wake-up serves
all that has arrived since. Data that arrives after a pause is served at once.
"""

import math
import select
import sys
from collections.abc import Callable
from contextlib import suppress

import trio

from ssasr.runtime.run_task import of_this_run

ROUND = 64
"""Sockets served in a row before other tasks may run."""
TICK = 0.005
"""Seconds from one poll to the next under load."""


class EpollReader:
    """A callback must not raise, and must read its socket or ``forget`` it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}

    def watch(self, fileno: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever the socket is readable, until ``forget``, which must be called
        before the socket is closed."""
        self._callbacks[fileno] = callback
        self._epoll.register(fileno, select.EPOLLIN)

    def forget(self, fileno: int) -> None:
        if self._callbacks.pop(fileno, None) is not None:
            with suppress(OSError):  # closed already, which unregisters it
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
        """Call the callbacks of up to ``ROUND`` readable sockets. Returns how many were
        readable."""
        events = self._epoll.poll(0, ROUND)
        for fileno, _ in events:
            callback = self._callbacks.get(fileno)  # an earlier callback may have forgotten it
            if callback is not None:
                callback()
        return len(events)


_reader: trio.lowlevel.RunVar[EpollReader] = trio.lowlevel.RunVar("ssasr_epoll_reader")


def current_reader() -> EpollReader | None:
    """The reader of this trio run; None on systems without epoll."""
    if sys.platform != "linux":
        return None
    return of_this_run(_reader, EpollReader)
