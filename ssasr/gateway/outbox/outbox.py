"""Sends what a queue on the disk holds: at least once, later and later after each failure.

A ``Delivery`` is what goes in one request. The queue says what is next and forgets a delivery that
has been taken or given up, on the disk as well, so that a process that is started again goes on
where the last one was. Usage records go one batch after the other (``usage.push``), webhooks beside
each other (``webhooks``).
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol, TypeVar

import trio
from attrs import define, frozen

from ssasr.telemetry.logs import get_logger

T = TypeVar("T")
log = get_logger(__name__)


class NotTaken(Exception):
    """The delivery was not taken; the text says why and holds nothing of it. ``final``: no further
    try can help."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class Delivery(Protocol):
    async def send(self) -> None:
        """Raises NotTaken."""

    async def forget(self) -> None:
        """It has been taken, or given up. Raises OSError."""


class DeliveryQueue(Protocol):
    what: str
    """What the log calls its deliveries."""

    async def next(self) -> Delivery:
        """Waits for one that has not been returned before. Raises OSError."""


@frozen
class Backoff:
    """Seconds between two tries, twice as many each time; ``tries``: None, for ever."""

    first: float = 1.0
    longest: float = 300.0
    tries: int | None = None

    def delays(self) -> Iterator[float | None]:
        """What follows each failure; None: giving up."""
        tried, delay = 1, self.first
        while self.tries is None or tried < self.tries:
            yield delay
            tried, delay = tried + 1, min(2 * delay, self.longest)
        yield None


def _ignore(_: str) -> None:
    pass


@define(eq=False)
class Outbox:
    """``run`` until cancelled. ``at_once``: deliveries under way; one that waits for its next try
    is under way, so that one place that is down does not hold up others until there are many."""

    queue: DeliveryQueue
    backoff: Backoff
    at_once: int = 1
    on_result: Callable[[str], None] = _ignore
    """Called with what became of each try."""
    failures: int = 0
    given_up: int = 0
    forgotten: int = 0
    """Sent or given up, and gone from the queue."""

    async def run(self) -> None:
        places = trio.Semaphore(self.at_once)
        async with trio.open_nursery() as nursery:
            while True:
                await places.acquire()
                delivery = await self._until_done(self.queue.next, "the queue cannot be read")
                nursery.start_soon(self._deliver, delivery, places)

    async def _deliver(self, delivery: Delivery, places: trio.Semaphore) -> None:
        for delay in self.backoff.delays():
            try:
                await delivery.send()
            except NotTaken as failed:
                self.failures += 1
                self.on_result("failed")
                if failed.final or delay is None:
                    self.given_up += 1
                    self.on_result("given_up")
                    log.error("given up", of=self.queue.what, reason=str(failed))
                    break
                log.warning("not sent, will try again", of=self.queue.what, reason=str(failed))
                await trio.sleep(delay)
            else:
                self.on_result("sent")
                break
        await self._until_done(delivery.forget, "it was sent and stays in the queue")
        self.forgotten += 1
        places.release()

    async def _until_done(self, action: Callable[[], Awaitable[T]], trouble: str) -> T:
        """Again while the disk fails: that is no reason to end sessions."""
        for delay in Backoff(self.backoff.first, self.backoff.longest).delays():
            try:
                return await action()
            except OSError as error:
                log.error(trouble, of=self.queue.what, reason=str(error))
            await trio.sleep(delay or 0.0)
        raise AssertionError("it tries for ever")
