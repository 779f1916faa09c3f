"""What running sessions notice of a client that misbehaves.

``refused``: the server is full, and five clients a second are rejected. ``deaf``: one client sends
as fast as the server takes it and never reads. The same streams run twice, without the neighbour
and with it.
"""

import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from urllib.parse import urlsplit

import trio
from attrs import define, evolve, field, frozen

from ssasr.bench.frames import handshake
from ssasr.bench.growth import MIB
from ssasr.bench.measure import Spread, collect, spread
from ssasr.bench.player import Player, StreamLog, play_all
from ssasr.bench.processes import serving_url, usage
from ssasr.bench.recordings import Recording, make_track
from ssasr.bench.run import BenchConfig, check_begun, session_settings, target_of
from ssasr.bench.server_metrics import read_metrics, session_ends
from ssasr.errors import SsasrError
from ssasr.runtime.process import plain_nursery

EVERY = 0.2
"""Seconds between two clients that are to be rejected."""
SPREAD = 1.0
"""Seconds in which the streams begin."""
FIRST = 3.0
"""Seconds into the streams when the neighbour comes."""
RECEIVE_BUFFER = 4_096
"""Bytes the deaf client's kernel holds, so that it is the gateway that has to."""
READ_EVERY = 0.5
"""Seconds between two readings of the gateway's memory."""


@frozen(eq=False)
class Streams:
    """What the streams saw in one of the two runs; seconds."""

    codes: Mapping[str, int]
    words: int
    lag: Spread
    finalization: Spread


@define(eq=False)
class Neighbour:
    """What became of the client that misbehaves, and of the server beside it."""

    rejections: list[float] = field(factory=list)
    """Seconds from each call to its close frame."""
    rejection_codes: set[int] = field(factory=set)
    audio_taken: float = 0.0
    """Seconds of audio that were taken of the deaf client."""
    given_up_after: float | None = None
    growth_mib: float | None = None
    """Memory, at its most, of the process at the endpoint's port; None on another machine."""


@frozen(eq=False)
class NeighbourOutcome:
    """``ends``: the sessions' ends by cause while the neighbour was there, as the gateway counts
    them; None where it shows no metrics."""

    kind: str
    alone: Streams
    beside: Streams
    neighbour: Neighbour
    ends: Mapping[str, float] | None

    @property
    def harmless(self) -> bool:
        """Whether every stream ended well, alone and beside it."""
        return set(self.alone.codes) == set(self.beside.codes) == {"1000"}


async def bench_with_neighbour(
    config: BenchConfig, recordings: Sequence[Recording], kind: str
) -> NeighbourOutcome:
    """``kind``: a key of ``KINDS``. Raises SsasrError where the streams cannot be opened, or where
    a server that should be full takes one more."""
    alone = await _play(config, recordings)
    before, seen = await read_metrics(config.endpoint), Neighbour()
    async with plain_nursery() as nursery:
        nursery.start_soon(_watch_memory, config, seen)
        beside = await _play(config, recordings, lambda: KINDS[kind](config, recordings, seen))
        nursery.cancel_scope.cancel()
    if 1_000 in seen.rejection_codes:
        raise SsasrError(f"the server has room for more than {config.streams} streams")
    ends = session_ends(before, await read_metrics(config.endpoint))
    return NeighbourOutcome(kind, alone, beside, seen, ends)


async def _play(
    config: BenchConfig,
    recordings: Sequence[Recording],
    neighbour: Callable[[], Awaitable[None]] = trio.sleep_forever,
) -> Streams:
    """The streams, with the neighbour until the first of them ends: then there is room."""
    random = Random(config.seed)
    tracks = [
        make_track(recordings, config.seconds, config.message_seconds, random)
        for _ in range(config.streams)
    ]
    target, leave = target_of(config), trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until, leave, neighbour)
        logs = await play_all(target, tracks, spread=SPREAD, random=random, on_end=leave.cancel)
    check_begun(config, logs)
    samples = collect(logs, session_settings(config))
    final = spread([latency for _, latency in samples.finalization])
    codes = {str(code): count for code, count in samples.codes.items()}
    return Streams(codes, samples.words, spread(samples.first_seen), final)


async def _until(scope: trio.CancelScope, neighbour: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await neighbour()


async def _try_to_connect(
    config: BenchConfig, recordings: Sequence[Recording], seen: Neighbour
) -> None:
    """Clients that find the server full, one after the other, for ever."""
    await trio.sleep(FIRST)
    track = make_track(recordings, 1.0, config.message_seconds, Random(config.seed))
    target = evolve(target_of(config), real_time=False)  # one that is let in shall not stay
    while True:
        log = StreamLog(track)
        started = trio.current_time()
        await Player(target, log).play()
        seen.rejections.append(trio.current_time() - started)
        seen.rejection_codes.add(log.code or 0)
        await trio.sleep(EVERY)


async def _never_read(
    config: BenchConfig, recordings: Sequence[Recording], seen: Neighbour
) -> None:
    """Send as fast as it is taken, until the gateway has had enough; then wait for ever."""
    await trio.sleep(FIRST)
    url = urlsplit(target_of(config).url)
    if url.scheme == "wss":
        raise SsasrError("--neighbours deaf is for ws:// addresses")
    own = trio.socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    await own.connect((url.hostname or "", url.port or 80))
    resource, key = f"{url.path}?{url.query}", secrets.token_bytes(16)
    track = make_track(recordings, 120.0, config.message_seconds, Random(config.seed))
    async with trio.SocketStream(own) as stream:
        await stream.send_all(handshake(url.netloc, resource, key, {"Authorization": config.key}))
        started = trio.current_time()
        try:
            while True:
                for frame in track.frames:
                    await stream.send_all(frame)
                    seen.audio_taken += config.message_seconds
        except trio.BrokenResourceError:
            seen.given_up_after = trio.current_time() - started
        await trio.sleep_forever()


KINDS = {"refused": _try_to_connect, "deaf": _never_read}


async def _watch_memory(config: BenchConfig, seen: Neighbour) -> None:
    """Of the process at the endpoint, for ever."""
    found = config.pids or serving_url(config.endpoint)
    before = usage(found[0]) if found else None
    while before is not None and (now := usage(found[0])) is not None:
        grown = round((now.rss - before.rss) / MIB, 2)
        seen.growth_mib = max(seen.growth_mib or 0.0, grown)
        await trio.sleep(READ_EVERY)
