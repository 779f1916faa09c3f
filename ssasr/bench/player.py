"""One real-time client, and many. What comes back is kept as it is, with the time at which it came;
reading it is for afterwards, so that the clients stay cheap while the load runs."""

import secrets
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from urllib.parse import urlsplit

import trio
from attrs import define, field, frozen

from ssasr.bench.frames import (
    CLOSE,
    LONGEST_HEAD,
    PONG,
    TEXT,
    WireError,
    check_answer,
    encode_frame,
    handshake,
)
from ssasr.bench.recordings import Track
from ssasr.net.frames import Close, FrameReader, Ping
from ssasr.runtime.process import plain_nursery

OPEN_SECONDS = 10.0
"""For TCP, TLS, the handshake and Begin."""
FINISH_SECONDS = 60.0
"""From Terminate to the close frame."""
NO_CLOSE = 1006
"""The connection ended without a close frame."""
TERMINATE = encode_frame(TEXT, b'{"type":"Terminate"}')
BEGIN = '"Begin"'
LONGEST_MESSAGE = 1 << 24
RECEIVE_SIZE = 65_536


@define(eq=False)
class StreamLog:
    """What one client saw. Times are seconds of one monotonic clock."""

    track: Track
    arrivals: list[tuple[float, str]] = field(factory=list)
    """Text messages, as they came."""
    began: float | None = None
    """When sample 0 was spoken; None if there was no Begin."""
    ended: float | None = None
    """When the last audio was sent."""
    closed: float | None = None
    code: int | None = None
    problem: str = ""
    lateness: list[float] = field(factory=list)
    """Of each message that no message before it held up: how long after its time the client came to
    send it. The client's own fault."""
    sent: int = 0
    """Messages of audio."""
    blocked: float = 0.0
    """Seconds that sends took beyond 1 ms each: the server did not take them."""


@frozen
class Target:
    """``url``: with the session's parameters. ``pace``: real time, or as fast as it is taken."""

    url: str
    key: str
    real_time: bool = True


@define(eq=False)
class Player:
    """One stream from its handshake to its close frame."""

    target: Target
    log: StreamLog
    _stream: trio.abc.Stream = field(init=False)
    _begun: trio.Event = field(factory=trio.Event)
    _sending: bool = False
    _waiting: list[bytes] = field(factory=list)
    """Control frames, for the speaker to send."""
    _reader: FrameReader = field(factory=lambda: FrameReader(masked=False, limit=LONGEST_MESSAGE))

    async def play(self) -> None:
        """Whatever goes wrong is in the log."""
        try:
            with trio.fail_after(OPEN_SECONDS):
                self._stream = await self._connect()
        except (OSError, trio.BrokenResourceError, trio.TooSlowError, WireError) as error:
            self.log.problem = str(error) or type(error).__name__
            return
        async with self._stream:
            try:
                await self._converse()
            except (trio.BrokenResourceError, trio.ClosedResourceError, WireError) as error:
                self.log.problem = self.log.problem or str(error)
        if self.log.code is None:
            self.log.code, self.log.closed = NO_CLOSE, trio.current_time()

    async def _connect(self) -> trio.abc.Stream:
        parts = urlsplit(self.target.url)
        secure = parts.scheme == "wss"
        host = parts.hostname or ""
        stream: trio.abc.Stream = await trio.open_tcp_stream(
            host, parts.port or (443 if secure else 80)
        )
        if secure:
            context = ssl.create_default_context()
            stream = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
        key = secrets.token_bytes(16)
        resource = f"{parts.path or '/'}?{parts.query}"
        head = {"Authorization": self.target.key}
        await stream.send_all(handshake(parts.netloc, resource, key, head))
        answer = bytearray()
        while b"\r\n\r\n" not in answer:
            data = await stream.receive_some(RECEIVE_SIZE)
            if not data or len(answer) > LONGEST_HEAD:
                raise WireError("the connection was closed during the handshake")
            answer += data
        first, _, rest = bytes(answer).partition(b"\r\n\r\n")
        check_answer(first, key)
        self._note_arrivals(rest)
        return stream

    async def _converse(self) -> None:
        async with plain_nursery() as nursery:
            nursery.start_soon(self._send)
            await self._receive()
            nursery.cancel_scope.cancel()

    async def _receive(self) -> None:
        with trio.CancelScope() as scope:
            scope.deadline = trio.current_time() + OPEN_SECONDS + self.log.track.seconds * 4
            while self.log.code is None:
                data = await self._stream.receive_some(RECEIVE_SIZE)
                if not data:
                    return
                for payload in self._note_arrivals(bytes(data)):
                    await self._send_soon(encode_frame(PONG, payload))
                if self.log.ended is not None:
                    scope.deadline = self.log.ended + FINISH_SECONDS
            if self.log.problem == "":
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self._send_soon(encode_frame(CLOSE, b"\x03\xe8"))
        if scope.cancelled_caught:
            self.log.problem = "the server did not finish"

    async def _send_soon(self, frame: bytes) -> None:
        """At once, or, while the speaker has the stream, with its next message."""
        if self._sending:
            self._waiting.append(frame)
        else:
            await self._stream.send_all(frame)

    def _note_arrivals(self, data: bytes) -> list[bytes]:
        """Note what came; the payloads of pings. Raises WireError."""
        now = trio.current_time()
        pings = []
        for event in self._reader.feed(data):
            match event:
                case str():
                    self.log.arrivals.append((now, event))
                    if not self._begun.is_set() and BEGIN in event[-40:] + event[:40]:
                        self._begun.set()
                case Ping(payload):
                    pings.append(payload)
                case Close(_, reason, fault=True):
                    raise WireError(f"the server breaks the protocol: {reason}")
                case Close(code):
                    self.log.code, self.log.closed = code, now
                case bytes():
                    pass
        return pings

    async def _send(self) -> None:
        await self._begun.wait()
        self._sending = True
        try:
            await self._send_track()
            await self._terminate()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.log.problem = self.log.problem or str(error)
        self._sending = False
        self.log.ended = trio.current_time()

    async def _terminate(self) -> None:
        await self._stream.send_all(TERMINATE + b"".join(self._waiting))

    async def _send_track(self) -> None:
        """Each message when its last sample would have been spoken."""
        log, stream, step = self.log, self._stream, self.log.track.message_seconds
        due = log.began = free = trio.current_time()
        for frame in log.track.frames:
            due += step
            if self.target.real_time:
                await trio.sleep_until(due)
            before = trio.current_time()
            if free <= due and self.target.real_time:
                log.lateness.append(before - due)
            if self._waiting:
                frame += b"".join(self._waiting)
                self._waiting.clear()
            await stream.send_all(frame)
            free = trio.current_time()
            log.blocked += max(free - before - 0.001, 0.0)
            log.sent += 1


async def play_all(
    target: Target,
    tracks: Sequence[Track],
    *,
    spread: float,
    random: Random,
    on_end: Callable[[], None] = lambda: None,
) -> list[StreamLog]:
    """All tracks at once, each from a random moment in the first ``spread`` seconds on. ``on_end``
    is called as each of them ends."""

    async def play(log: StreamLog, delay: float) -> None:
        await trio.sleep(delay)
        await Player(target, log).play()
        on_end()

    logs = [StreamLog(track) for track in tracks]
    async with trio.open_nursery() as nursery:
        for log in logs:
            nursery.start_soon(play, log, random.uniform(0, spread))
    return logs
