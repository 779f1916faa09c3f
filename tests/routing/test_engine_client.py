"""The gateway's way to its engines: what it makes of whatever answers there, or does not."""

from contextlib import asynccontextmanager

import pytest
import trio
from trio_websocket import serve_websocket

from ssasr.errors import EngineBusy, EngineError, EngineLost, EngineUnavailable, StartRefused
from ssasr.net import engine_connection
from ssasr.protocol.engine_link import SUBPROTOCOL, Role
from ssasr.protocol.liveness import GATEWAY, Timeouts
from ssasr.protocol.recognition import Audio, Open, StreamOptions, Update
from ssasr.routing import engine_client
from ssasr.routing.engine_client import Address, EngineClient
from ssasr.routing.engine_stream import EngineSilent
from ssasr.routing.failover import ResilientEngines
from ssasr.telemetry.metrics import Metrics
from tests.harness.engines import VERSION, engine_server

OPENING = Open("session", StreamOptions())
ATTEMPT = b"X-Ssasr-Attempt"


def client_for(port, required=True):
    return EngineClient(Address("127.0.0.1", port), [VERSION, "ml-default"], required)


@asynccontextmanager
async def peer(handler):
    """A server whose connections ``handler`` owns."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, handler, 0)
        yield client_for(listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


async def refused(client):
    with trio.fail_after(60), pytest.raises(EngineError) as error:
        async with client.open_stream(VERSION, OPENING):
            pass
    return error.value


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://lb:80", Address("lb", 80)),
        ("ws://lb", Address("lb", 80)),
        ("wss://lb", Address("lb", 443)),
        ("ws://[::1]:50051/", Address("::1", 50_051)),
    ],
)
def test_addresses(url, address):
    parsed = Address.parse(url)
    assert parsed == address
    assert (parsed.context is not None) == url.startswith("wss:")


def test_an_ipv6_address_keeps_its_brackets():
    assert Address("::1", 80).netloc == "[::1]:80"


@pytest.mark.parametrize(
    "url", ["lb:80", "http://lb", "ws://", "ws://lb:0", "ws://lb:99999", "ws://lb/x", "ws://lb?a=1"]
)
def test_what_is_no_address(url):
    with pytest.raises(StartRefused):
        Address.parse(url)


async def test_nobody_there():
    async with peer(lambda stream: stream.aclose()) as client:
        port = client.address.port
    assert isinstance(await refused(client_for(port)), EngineUnavailable)


async def test_one_that_hangs_up_during_the_handshake():
    async with peer(_hang_up) as client:
        error = await refused(client)
        assert isinstance(error, EngineUnavailable)
        assert "cannot be reached" in str(error), "noticed, not timed out"


async def _mute(_):
    await trio.sleep_forever()


async def _hang_up(stream):
    await stream.receive_some()
    await stream.aclose()


async def test_one_that_says_nothing(monkeypatch):
    monkeypatch.setattr("ssasr.routing.engine_client.CONNECT_SECONDS", 0.2)
    async with peer(_mute) as client:
        assert "in time" in str(await refused(client))


async def _answer(stream, head, body=b""):
    await stream.receive_some()
    await stream.send_all(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"HTTP/1.1 503 x\r\nX-Ssasr-Refusal: full\r\n", EngineBusy),
        (b"HTTP/1.1 503 x\r\nX-Ssasr-Refusal: starting\r\n", EngineUnavailable),
        (b"HTTP/1.1 503 x\r\n", EngineUnavailable),
        (b"HTTP/1.1 400 x\r\n", EngineUnavailable),
        (b"HTTP/1.1 200 x\r\n", EngineUnavailable),
        (b"SSH-2.0-OpenSSH_9.2\r\n", EngineUnavailable),
    ],
)
async def test_what_an_answer_means(head, kind):
    async def answer(stream):
        await _answer(stream, head, b"why\nmore")

    async with peer(answer) as client:
        error = await refused(client)
        assert type(error) is kind
        if b"400" in head:
            assert "why" in str(error)


async def test_readiness_follows_the_engines():
    async with engine_server() as (server, client):
        either = EngineClient(client.address, [VERSION, "ml-default"], required=False)
        both = EngineClient(client.address, [VERSION, "ml-default"], required=True)
        assert not either.is_ready(), "not asked yet"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(either.run)
            nursery.start_soon(both.run)
            with trio.fail_after(60):
                while not either.is_ready():
                    await trio.sleep(0.01)
            assert not both.is_ready(), "nobody serves ml-default"
            server.draining.set()
            with trio.fail_after(60):
                while either.is_ready():
                    await trio.sleep(0.05)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def stoppable_proxy(client):
    """Between client and engine; ``stop.set()`` and nothing passes any more, half-open."""
    stop = trio.Event()

    async def pump(source, sink):
        async for data in source:
            if stop.is_set():
                await trio.sleep_forever()
            await sink.send_all(data)

    async def handle(stream):
        upstream = await trio.open_tcp_stream(client.address.host, client.address.port)
        async with upstream, trio.open_nursery() as nursery:
            nursery.start_soon(pump, stream, upstream)
            await pump(upstream, stream)

    async with peer(handle) as proxied:
        yield proxied, stop


@pytest.mark.slow
async def test_both_ends_notice_a_half_open_connection(monkeypatch):
    """The cable is cut while somebody speaks, and nobody says goodbye: the gateway gives the engine
    up, and the engine, which has more time, gives the place back."""
    soon = Timeouts(ask_expecting=3.0, answer_expecting=2.0, ask_idle=3.0, answer_idle=2.0)
    monkeypatch.setattr(
        "ssasr.net.engine_connection.PATIENCE", {Role.GATEWAY: GATEWAY, Role.ENGINE: soon}
    )
    async with engine_server(max_streams=1) as (server, direct):
        async with stoppable_proxy(direct) as (client, stop):
            async with client.open_stream(VERSION, OPENING) as stream:
                await stream.send(Audio(0, bytes(3_200)))
                assert isinstance(await stream.receive(), Update)
                stop.set()
                started = trio.current_time()
                await stream.send(Audio(1_600, bytes(3_200)))
                with trio.fail_after(30), pytest.raises(EngineSilent):
                    await stream.receive()
                assert trio.current_time() - started > GATEWAY.answer_expecting
                with trio.fail_after(30):
                    while server.host.scheduler.in_use:
                        await trio.sleep(0.05)


@pytest.mark.slow
async def test_an_idle_stream_is_kept_alive(monkeypatch):
    """A client may be silent for long; pings and pongs keep the link meanwhile."""
    gateway = Timeouts(ask_expecting=1.0, answer_expecting=2.0, ask_idle=1.0, answer_idle=2.0)
    engine = Timeouts(ask_expecting=3.0, answer_expecting=2.0, ask_idle=3.0, answer_idle=2.0)
    monkeypatch.setattr(
        "ssasr.net.engine_connection.PATIENCE", {Role.GATEWAY: gateway, Role.ENGINE: engine}
    )
    async with engine_server() as (_, client):
        async with client.open_stream(VERSION, OPENING) as stream:
            with trio.move_on_after(9) as idle:
                await stream.receive()
            assert idle.cancelled_caught
            await stream.send(Audio(0, bytes(3_200)))
            assert isinstance(await stream.receive(), Update)


def hanging_before(direct, count):
    """A handler, as of several engines behind one address: ``direct``'s for all connections but
    the first ``count``, which are taken and never answered. And the heads of the requests."""
    heads = []

    async def handle(stream):
        heads.append(await stream.receive_some())
        if len(heads) <= count:
            await trio.sleep_forever()
        upstream = await trio.open_tcp_stream(direct.address.host, direct.address.port)
        async with upstream, trio.open_nursery() as nursery:
            await upstream.send_all(heads[-1])
            nursery.start_soon(_pump, stream, upstream)
            await _pump(upstream, stream)

    return handle, heads


async def _pump(source, sink):
    async for data in source:
        await sink.send_all(data)


async def test_while_one_engine_hangs_another_takes_the_stream(monkeypatch):
    """SIGSTOP: the kernel of the one accepts connections, and nobody answers them."""
    monkeypatch.setattr(engine_client, "CONNECT_SECONDS", 60.0)
    async with engine_server() as (server, direct):
        handle, heads = hanging_before(direct, 2)
        async with peer(handle) as client:
            engines = ResilientEngines(client, Metrics())
            with trio.fail_after(60):
                async with engines.open_stream(VERSION, OPENING) as stream:
                    await stream.send(Audio(0, bytes(3_200)))
                    assert isinstance(await stream.receive(), Update)
                while server.host.scheduler.in_use:
                    await trio.sleep(0.05)
        assert ATTEMPT not in heads[0], "the least loaded engine will do"
        assert all(ATTEMPT in head for head in heads[1:]), "any but the one that hangs"


async def test_while_one_engine_hangs_the_gateway_is_ready(monkeypatch):
    monkeypatch.setattr(engine_client, "PROBE_SECONDS", 60.0)
    async with engine_server() as (_, direct):
        handle, heads = hanging_before(direct, 1)
        async with peer(handle) as client, trio.open_nursery() as nursery:
            probing = EngineClient(client.address, [VERSION], required=True)
            nursery.start_soon(probing.run)
            with trio.fail_after(30):
                while not probing.is_ready():
                    await trio.sleep(0.01)
            assert len(heads) > 1
            nursery.cancel_scope.cancel()


async def test_one_that_takes_a_link_and_opens_no_stream_is_noted(monkeypatch):
    """Its event loop lives and its model hangs: any other engine may be better."""
    monkeypatch.setattr(engine_client, "OPEN_SECONDS", 0.5)
    monkeypatch.setattr(engine_client, "CONNECT_SECONDS", 60.0)
    heads = []

    async def serve(request):
        heads.append(dict(request.headers))
        await request.accept(subprotocol=SUBPROTOCOL)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, serve, "127.0.0.1", 0, None)
        client = client_for(server.port)
        for _ in range(2):
            assert isinstance(await refused(client), EngineSilent)
        assert heads[-1][b"x-ssasr-attempt"] == b"2"
        nursery.cancel_scope.cancel()


async def test_an_engine_that_answers_too_late_keeps_no_place(monkeypatch):
    """Two have answered at the same moment; the stream is with the first of them."""
    monkeypatch.setattr("ssasr.engine.server.OPEN_SECONDS", 600.0)

    async def both(ask, _):
        return [await ask(1), await ask(2)]

    monkeypatch.setattr(engine_client, "first_answers", both)
    async with engine_server() as (server, client):
        with trio.fail_after(60):
            async with client.open_stream(VERSION, OPENING) as stream:
                while server.host.scheduler.in_use > 1:
                    await trio.sleep(0.01)
                await stream.send(Audio(0, bytes(3_200)))
                assert isinstance(await stream.receive(), Update)


async def test_garbage_on_an_open_stream_is_a_lost_engine_and_harms_nobody_else():
    """Bytes that are no WebSocket, to either end."""
    async with engine_server(max_streams=3) as (server, direct):
        for to_the_engine in (True, False):
            garbage = trio.Event()

            async def pump(source, sink, spoil, garbage=garbage):
                async for data in source:
                    await sink.send_all(b"\xff" * 64 if spoil and garbage.is_set() else data)

            async def handle(stream, pump=pump, to_the_engine=to_the_engine):
                address = direct.address
                upstream = await trio.open_tcp_stream(address.host, address.port)
                async with upstream, stream, trio.open_nursery() as nursery:
                    nursery.start_soon(pump, stream, upstream, to_the_engine)
                    await pump(upstream, stream, not to_the_engine)
                    nursery.cancel_scope.cancel()

            async with peer(handle) as client:
                with trio.fail_after(60), pytest.raises(EngineLost):
                    async with client.open_stream(VERSION, OPENING) as stream:
                        garbage.set()
                        for number in range(100):
                            await stream.send(Audio(1_600 * number, bytes(3_200)))
                            await stream.receive()
        async with direct.open_stream(VERSION, OPENING) as stream:
            await stream.send(Audio(0, bytes(3_200)))
            assert isinstance(await stream.receive(), Update)
        with trio.fail_after(60):
            while server.host.scheduler.in_use:
                await trio.sleep(0.05)


async def test_a_stream_is_left_at_once(monkeypatch):
    """Closing once waited for a reader that was cancelled already, at the end of every session."""
    monkeypatch.setattr(engine_connection, "CLOSE_SECONDS", 600.0)
    async with engine_server() as (_, client):
        engines = ResilientEngines(client, Metrics())
        with trio.fail_after(60):
            async with engines.open_stream(VERSION, OPENING):
                pass
