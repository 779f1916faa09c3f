"""What every process needs to start and stop: trio, signals, TLS."""

import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from ssasr.errors import SsasrError, StartRefused
from ssasr.telemetry.logs import get_logger

log = get_logger(__name__)

Service = Callable[[], Awaitable[None]]
"""Runs until its process ends."""


def run(main: Callable[[], Awaitable[None]]) -> None:
    """``trio.run``, with the exception that ended it unwrapped from its nurseries."""
    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        raise first_leaf(group) from group


def first_leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The most important exception of a group: the first that is not a cancellation, preferring
    those that are not our own errors, because they may be bugs. The others are added as notes."""
    leaves = list(_leaves(group))
    faults = [leaf for leaf in leaves if not isinstance(leaf, trio.Cancelled)]
    first = next((leaf for leaf in faults if not isinstance(leaf, SsasrError)), None)
    first = first or (faults or leaves)[0]
    for other in faults:
        if other is not first:
            first.add_note(f"at the same time: {other!r}")
    return first


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for inner in group.exceptions:
        if isinstance(inner, BaseExceptionGroup):
            yield from _leaves(inner)
        else:
            yield inner


@asynccontextmanager
async def plain_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery that raises a plain exception (``first_leaf``) instead of a group. For functions
    with a background task whose callers expect the exceptions of the block."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        raise first_leaf(group) from group


async def watch_signals(
    stop: Callable[[], None],
    reload: Callable[[], None] = lambda: None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call ``stop`` at the first SIGTERM or SIGINT; a second one kills the process. ``reload`` at
    each SIGHUP, also while the process drains; it raises nothing."""
    with trio.open_signal_receiver(signal.SIGHUP) as hangups:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_reload_at, hangups, reload)
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                task_status.started()
                async for number in signals:
                    log.info("stopping", signal=signal.Signals(number).name)
                    stop()
                    break
            # The default handlers are in force again, so a second signal kills.


async def _reload_at(hangups: AsyncIterator[int], reload: Callable[[], None]) -> None:
    async for _ in hangups:
        log.info("reading files again")
        reload()


def tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """For a server. Raises StartRefused."""
    if certificate is None:
        if key is not None:
            raise StartRefused("a TLS key without a certificate: --tls-certificate")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load_certificate(context, certificate, key)
    return context


def load_certificate(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    """For the connections from now on. Raises StartRefused, and what ``context`` had stays."""

    def passphrase() -> str:
        raise StartRefused(f"the TLS key of {certificate} has a passphrase; give one without")

    try:
        # A pair that does not match would be half in place when it fails.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, passphrase)
        context.load_cert_chain(certificate, key, passphrase)
    except OSError as error:
        raise StartRefused(f"cannot use TLS certificate {certificate}: {error}") from error
