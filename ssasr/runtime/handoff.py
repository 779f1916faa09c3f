"""A bounded channel with a short cut.

Handing something from one task to the next costs a wake-up, which for a small message is more than
the work itself. While the task at the far end has nothing to do, whoever puts something in does
that work at once (``fast_path``), in its own task; otherwise the thing waits its turn as in any
channel. The order is that of the puts in either case.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class HandoffChannel(Generic[T]):
    """``size``: things that may wait. Several may put, one takes."""

    def __init__(self, size: int) -> None:
        self._send, self._receive = trio.open_memory_channel[T](size)
        self.clear = False
        """Nothing is in the lane, and the taker waits. For others to read."""
        self._fast_path: Callable[[T], bool] | None = None

    def set_fast_path(self, fast_path: Callable[[T], bool]) -> None:
        """For the taker: ``fast_path`` deals with a thing without waiting, or says False and has
        then done nothing."""
        self._fast_path = fast_path

    def put_nowait(self, item: T) -> None:
        """Raises trio.WouldBlock when full. Never so while the lane is clear."""
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
        """Raises trio.EndOfChannel once the lane is closed and empty."""
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
