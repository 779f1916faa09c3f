"""Stages of work, and the bounded channels between them.

The work of a stage is one synchronous function from an item to the items that follow from it. It is
called in one of two ways. Normally the stage's own task receives an item, calls the function and
sends the results, waiting wherever a channel is full. But while that task is idle and the outlet
has room (``ready``), the task that brings an item calls the function directly (the fast path),
because waking a task costs more than the work on a small message. In both cases items keep their
order, and exceptions of the work are raised in the stage's own task.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

import trio
from attrs import define, field

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)
In = TypeVar("In")
Out = TypeVar("Out")


class Sink(Protocol[T_contra]):
    """Processes an item at once, in the task that brings it."""

    def ready(self) -> bool:
        """Whether ``take`` may be called now."""

    def take(self, item: T_contra) -> None:
        """Process one item. The ``receive`` of its source raises what this raises."""


class Source(Protocol[T_co]):
    """Where items come from, for one task."""

    async def receive(self) -> T_co: ...

    def deliver_to(self, sink: Sink[T_co]) -> None:
        """While a task waits in ``receive`` and ``sink`` is ready, pass items to ``sink``
        instead."""


class Outlet(Protocol[T_contra]):
    """Takes items, and keeps the order in which they are offered and sent."""

    @property
    def clear(self) -> bool:
        """Whether an item may be offered: none is waiting."""

    def offer(self, item: T_contra) -> None:
        """Send without waiting. Call only while ``clear``, or directly after another ``offer`` that
        was made while it was."""

    async def send(self, item: T_contra) -> None:
        """Send, waiting for room."""


@define(eq=False)
class Stage(Generic[In, Out]):
    """``run`` is the stage's task; ``ready`` and ``take`` are the fast path. ``done`` is called
    after each item, once all its results have been sent."""

    source: Source[In]
    work: Callable[[In], Iterable[Out]]
    outlet: Outlet[Out]
    done: Callable[[], None] | None = None
    busy: bool = field(init=False, default=False)
    """The task has received an item and not yet sent all its results."""

    async def run(self) -> None:
        """Run until the source ends. Raises what the work, the source and the outlet raise."""
        self.source.deliver_to(self)
        while True:
            try:
                item = await self.source.receive()
            except trio.EndOfChannel:
                return
            self.busy = True
            for each in self.work(item):
                await self.outlet.send(each)
            self.busy = False
            if self.done is not None:
                self.done()

    def ready(self) -> bool:
        return self.outlet.clear

    def take(self, item: In) -> None:
        for each in self.work(item):
            self.outlet.offer(each)
        if self.done is not None:
            self.done()


class HandoffChannel(Generic[T]):
    """A bounded channel with many senders and one receiver.

    It is full when the weight of the waiting items reaches ``limit``; a single item may exceed it.
    ``weigh`` gives an item's weight (its bytes, for example; by default 1). ``limit`` may be a
    function, so that it can change while items wait."""

    def __init__(
        self, limit: int | Callable[[], int], weigh: Callable[[T], int] | None = None
    ) -> None:
        self.clear = False
        """The channel is empty and a task waits in ``receive``."""
        self._limit = limit
        self._weigh = weigh
        self._items: deque[T] = deque()
        self._weight = 0
        self._sink: Sink[Any] | None = None
        self._work: Callable[[T], Any] | None = None
        self._fault: Exception | None = None
        self._closed = False
        self._receiver = trio.lowlevel.ParkingLot()
        self._senders = trio.lowlevel.ParkingLot()

    @property
    def full(self) -> bool:
        if not self._weight or self._closed:
            return False
        return self._weight >= (self._limit if isinstance(self._limit, int) else self._limit())

    @property
    def blocked(self) -> bool:
        """Whether a sender waits for room."""
        return bool(self._senders)

    def deliver_to(self, sink: Sink[Any], work: Callable[[T], Any] | None = None) -> None:
        """As ``Source``; the sink gets what ``work`` makes of an item, if that is not None."""
        self._sink, self._work = sink, work

    def offer(self, item: T) -> None:
        """Send without waiting, even if the channel is full. Raises trio.ClosedResourceError."""
        if self.clear:
            if self._sink is not None and self._sink.ready():
                try:
                    made = item if self._work is None else self._work(item)
                    if made is not None:
                        self._sink.take(made)
                except Exception as fault:  # belongs to the receiver, not to the sender
                    self.fail(fault)
                return
            self.clear = False
        if self._closed:
            raise trio.ClosedResourceError
        self._items.append(item)
        self._weight += 1 if self._weigh is None else self._weigh(item)
        self._receiver.unpark()

    async def send(self, item: T) -> None:
        """Wait for room and send. Raises trio.ClosedResourceError."""
        await trio.lowlevel.checkpoint_if_cancelled()
        await self.wait_room()
        self.offer(item)

    async def wait_room(self) -> None:
        """Wait until the channel is not full. No checkpoint if there is room already."""
        while self.full:
            await self._senders.park()

    async def receive(self) -> T:
        """The next item. Raises trio.EndOfChannel once the channel is closed and empty, and the
        exception given to ``fail``. If it is cancelled, no item is lost."""
        if self._items:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        while not self._items:
            if self._fault is not None:
                raise self._fault
            if self._closed:
                raise trio.EndOfChannel
            self.clear = True
            try:
                await self._receiver.park()
            finally:
                self.clear = False
        if self._fault is not None:
            raise self._fault
        item = self._items.popleft()
        self._weight -= 1 if self._weigh is None else self._weigh(item)
        if self._senders and not self.full:
            self._senders.unpark_all()
        return item

    def fail(self, fault: Exception) -> None:
        """Make ``receive`` raise ``fault`` from now on."""
        self._fault = fault
        self.clear = False
        self._receiver.unpark()

    def close(self, *, discard: bool = False) -> None:
        """Accept no more items. Waiting items can still be received, unless ``discard``."""
        self._closed, self.clear = True, False
        if discard:
            self._items.clear()
            self._weight = 0
        self._receiver.unpark()
        self._senders.unpark_all()
