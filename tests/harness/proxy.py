"""A TCP relay that misbehaves on cue: between gateway and load balancer."""

from contextlib import suppress
from random import Random

import trio
from attrs import define, field

CHUNK = 65_536
GARBAGE = 64
"""Bytes that come from nowhere."""


@define(eq=False)
class _Pair:
    client: trio.SocketStream
    server: trio.SocketStream
    writing: trio.Lock = field(factory=trio.Lock)


@define(eq=False)
class Proxy:
    """Relays to ``host:port``."""

    host: str
    port: int
    _pairs: set[_Pair] = field(factory=set)
    _held_until: float = 0.0

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Started with the port it listens on."""
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, self._serve, 0)
            task_status.started(listeners[0].socket.getsockname()[1])

    async def cut(self) -> int:
        """Break every connection; how many there were."""
        pairs = list(self._pairs)
        for pair in pairs:
            await trio.aclose_forcefully(pair.client)
            await trio.aclose_forcefully(pair.server)
        return len(pairs)

    async def garble(self, random: Random) -> int:
        """Send nonsense towards the gateway, on every connection."""
        pairs = list(self._pairs)
        for pair in pairs:
            async with pair.writing:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await pair.client.send_all(random.randbytes(GARBAGE))
        return len(pairs)

    def hold(self, seconds: float) -> None:
        """Let nothing pass either way for a while; connections stay open."""
        self._held_until = trio.current_time() + seconds

    async def _serve(self, client: trio.SocketStream) -> None:
        try:
            server = await trio.open_tcp_stream(self.host, self.port)
        except OSError:
            return
        pair = _Pair(client, server)
        self._pairs.add(pair)
        try:
            async with server, trio.open_nursery() as nursery:
                nursery.start_soon(self._relay, pair, client, server, nursery)
                nursery.start_soon(self._relay, pair, server, client, nursery)
        finally:
            self._pairs.discard(pair)

    async def _relay(
        self, pair: _Pair, source: trio.SocketStream, sink: trio.SocketStream, nursery: trio.Nursery
    ) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some(CHUNK):
                await trio.sleep_until(self._held_until)
                if sink is pair.client:
                    async with pair.writing:
                        await sink.send_all(data)
                else:
                    await sink.send_all(data)
        nursery.cancel_scope.cancel()
