"""What every process needs to start and stop: trio, signals, TLS."""

import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import trio

from ssasr.errors import StartRefused
from ssasr.telemetry.logs import get_logger

log = get_logger(__name__)

Service = Callable[[], Awaitable[None]]
"""Something that runs as long as its process."""


def run(main: Callable[[], Awaitable[None]]) -> None:
    """``trio.run``, with the exception that ended it unwrapped from its nurseries."""
    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        raise first_leaf(group) from group


def first_leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The exception that mattered: the first that is not a cancellation."""
    leaves = list(_leaves(group))
    faults = [leaf for leaf in leaves if not isinstance(leaf, trio.Cancelled)]
    return (faults or leaves)[0]


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for inner in group.exceptions:
        if isinstance(inner, BaseExceptionGroup):
            yield from _leaves(inner)
        else:
            yield inner


@asynccontextmanager
async def plain_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery that hides: what ends it escapes as itself, not in a group. For functions that run
    a background task on the side and whose callers expect the errors of the block."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        raise first_leaf(group) from group


async def watch_signals(
    stop: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Call ``stop`` at the first SIGTERM or SIGINT; a second one kills the process."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            log.info("stopping", signal=signal.Signals(number).name)
            stop()
            break
    # Outside the receiver the default handlers are back.
    await trio.sleep_forever()


def tls_context(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """Raises StartRefused."""
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise StartRefused(f"cannot use TLS certificate {certificate}: {error}") from error
    return context
