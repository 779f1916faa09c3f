"""Stages of work, and the bounded channels between them.

A stage's work is one synchronous function: from an item to what follows from it. There are two ways
to call it. The stage's own task does, and waits wherever something has to wait. And while that task
has nothing to do, and what follows has somewhere to go (``ready``), whoever brings an item calls it
at once (the fast path): waking a task up costs more than the work on a small message. Either way
items keep their order, and what the work raises is raised in the stage's own task.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

import trio
from attrs import define, field, frozen

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)
In = TypeVar("In")
Out = TypeVar("Out")


class Sink(Protocol[T_contra]):
    """Whoever deals with an item at once, in the task of whoever brings it."""

    def ready(self) -> bool:
        """``take`` may be called now."""

    def take(self, item: T_contra) -> None:
        """What it raises, the ``receive`` of its source raises."""


class Source(Protocol[T_co]):
    """Where items come from, for one task."""

    async def receive(self) -> T_co: ...

    def deliver_to(self, sink: Sink[T_co]) -> None:
        """What ``receive`` waits for goes to ``sink`` instead, whenever that is ready."""


class Outlet(Protocol[T_contra]):
    """Where items go, in the order in which they are offered and sent."""

    @property
    def clear(self) -> bool:
        """An item may be offered: nothing waits."""

    def offer(self, item: T_contra) -> None:
        """Send without waiting; while ``clear``, or right behind another that was offered then."""

    async def send(self, item: T_contra) -> None:
        """Wait until it can go."""


@define(eq=False)
class Stage(Generic[In, Out]):
    """``run`` is the stage's task; as a sink it is the fast path. ``done`` is called when all that
    follows from an item has gone."""

    source: Source[In]
    work: Callable[[In], Iterable[Out]]
    outlet: Outlet[Out]
    done: Callable[[], None] | None = None
    busy: bool = field(init=False, default=False)
    """Its task has an item, and not all that follows has gone."""

    async def run(self) -> None:
        """Until the source ends. Raises what the work does, and the source and the outlet."""
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


@frozen(eq=False)
class Through(Generic[In, Out]):
    """Takes items and has ``sink`` take what ``work`` makes of them; None: nothing."""

    work: Callable[[In], Out | None]
    sink: Sink[Out]

    def ready(self) -> bool:
        return self.sink.ready()

    def take(self, item: In) -> None:
        if (made := self.work(item)) is not None:
            self.sink.take(made)


class HandoffChannel(Generic[T]):
    """Several may send, one receives. Full once ``limit`` is reached by what waits, as ``weigh``
    counts it (bytes, say); a single item may go beyond. The limit may change while items wait."""

    def __init__(
        self, limit: int | Callable[[], int], weigh: Callable[[T], int] | None = None
    ) -> None:
        self.clear = False
        """Nothing waits in the channel, and the receiver waits for something."""
        self._limit = limit
        self._weigh = weigh
        self._items: deque[T] = deque()
        self._weight = 0
        self._sink: Sink[T] | None = None
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
        """Somebody waits for room."""
        return bool(self._senders)

    def deliver_to(self, sink: Sink[T]) -> None:
        self._sink = sink

    def offer(self, item: T) -> None:
        """Whether there is room or not. Raises trio.ClosedResourceError."""
        if self.clear:
            if self._sink is not None and self._sink.ready():
                try:
                    self._sink.take(item)
                except Exception as fault:  # which is the receiver's, and not that of the sender
                    self.fail(fault)
                return
            self.clear = False
        if self._closed:
            raise trio.ClosedResourceError
        self._items.append(item)
        self._weight += 1 if self._weigh is None else self._weigh(item)
        self._receiver.unpark()

    async def send(self, item: T) -> None:
        """Wait for room. Raises trio.ClosedResourceError."""
        await trio.lowlevel.checkpoint_if_cancelled()
        await self.wait_room()
        self.offer(item)

    async def wait_room(self) -> None:
        """Returns at once where there is room; no checkpoint then."""
        while self.full:
            await self._senders.park()

    async def receive(self) -> T:
        """Raises trio.EndOfChannel once the channel is closed and empty. Cancelled, it has taken
        nothing."""
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
        """``receive`` raises ``fault`` from now on."""
        self._fault = fault
        self.clear = False
        self._receiver.unpark()

    def close(self, *, discard: bool = False) -> None:
        """Nothing more will be sent. ``discard``: nor is what waits received."""
        self._closed, self.clear = True, False
        if discard:
            self._items.clear()
            self._weight = 0
        self._receiver.unpark()
        self._senders.unpark_all()
