"""The hand-off channel: a bounded channel with a fast path.

Passing an item from one task to the next costs a wake-up, which for a small message is more than
the work itself. While the reader waits, a writer does the reader's work at once, in its own task
(the fast path); otherwise the item waits as in any channel. Items are handled in the order of the
puts in either case.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class HandoffChannel(Generic[T]):
    """``size``: items that may wait. Several tasks may put, one gets."""

    def __init__(self, size: int) -> None:
        self._send, self._receive = trio.open_memory_channel[T](size)
        self.clear = False
        """The channel is empty and its reader waits. Read by the writers."""
        self._fast_path: Callable[[T], bool] | None = None

    def set_fast_path(self, fast_path: Callable[[T], bool]) -> None:
        """Called by the reader. ``fast_path`` handles an item without waiting and returns True, or
        returns False and has then done nothing."""
        self._fast_path = fast_path

    def put_nowait(self, item: T) -> None:
        """Raises trio.WouldBlock when full. Never while the channel is ``clear``."""
        if self.clear:
            if self._fast_path is not None and self._fast_path(item):
                return
            self.clear = False
        self._send.send_nowait(item)

    async def put(self, item: T) -> None:
        """Waits for room."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self.put_nowait(item)
        except trio.WouldBlock:
            await self._send.send(item)

    async def get(self) -> T:
        """Raises trio.EndOfChannel once the channel is closed and empty."""
        try:
            item = self._receive.receive_nowait()
        except trio.WouldBlock:
            self.clear = True  # nothing of ours runs between here and the wait
            try:
                return await self._receive.receive()
            finally:
                self.clear = False
        await trio.lowlevel.checkpoint()
        return item

    def close(self) -> None:
        """Nothing more will be put in."""
        self._send.close()
