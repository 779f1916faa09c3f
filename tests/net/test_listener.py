"""The listener against clients that mean no good: slow, large, many."""

from contextlib import suppress

import pytest
import trio
import trio.testing

from ssasr.net.http_server import HEAD_DEADLINE, MAX_HEAD
from ssasr.net.listener import HttpListener, hold_port, is_loopback, open_listeners, port_of


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok", "more_body": False})


class Upgrades:
    """Counts what gets through, and holds it."""

    def __init__(self):
        self.open = 0

    async def __call__(self, request, nursery):
        self.open += 1
        await trio.sleep_forever()


@pytest.fixture
async def client(nursery, autojump_clock):
    """A connection in memory; ``served`` is set when the server has let it go."""
    mine, theirs = trio.testing.memory_stream_pair()
    mine.served = trio.Event()

    async def serve():
        await HttpListener(app, Upgrades()).serve(theirs)
        mine.served.set()

    nursery.start_soon(serve)
    return mine


async def test_a_head_that_dribbles_is_dropped_after_the_deadline(client, autojump_clock):
    """One byte a second keeps no connection: the deadline is for the whole head."""
    started = trio.current_time()
    with pytest.raises(trio.BrokenResourceError):
        for byte in b"GET /health HTTP/1.1\r\n" + b"a: b\r\n" * 100:
            await client.send_all(bytes([byte]))
            await trio.sleep(1)
    assert trio.current_time() - started <= HEAD_DEADLINE + 1


async def test_silence_is_dropped_after_the_deadline(client, autojump_clock):
    started = trio.current_time()
    assert await client.receive_some() == b""
    assert trio.current_time() - started == pytest.approx(HEAD_DEADLINE, abs=0.5)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\na: " + b"b" * MAX_HEAD + b"\r\n\r\n",
        b"GET /?" + b"q" * MAX_HEAD + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * (MAX_HEAD // 6) + b"\r\n",
        b"x" * (MAX_HEAD + 1),
    ],
    ids=["long header", "long target", "many headers", "no head"],
)
async def test_a_head_too_large_is_refused_and_the_connection_closed(nursery, head):
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, HttpListener(app, Upgrades()).serve, [listener])
    answer = b""
    with trio.fail_after(60), suppress(trio.BrokenResourceError):
        async with await trio.testing.open_stream_to_socket_listener(listener) as client:
            await client.send_all(head)
            while data := await client.receive_some():
                answer += data
    nursery.cancel_scope.cancel()
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))


UPGRADE = (
    b"GET /v3/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def test_one_address_gets_so_many_connections_and_no_more(nursery):
    upgrades = Upgrades()
    server = HttpListener(app, upgrades, most_per_address=3)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, server.serve, [listener])
    port = listener.socket.getsockname()[1]

    async def connect(source: str = "127.0.0.1") -> trio.SocketStream:
        stream = await trio.open_tcp_stream("127.0.0.1", port, local_address=source)
        await stream.send_all(UPGRADE)
        return stream

    held = [await connect() for _ in range(3)]
    with trio.fail_after(60):
        one_more = await connect()
        with suppress(trio.BrokenResourceError):  # reset: what it sent was not even read
            assert await one_more.receive_some() == b""
        other = await connect("127.0.0.9")
        while upgrades.open < 4:  # noqa: ASYNC110  the other side of a socket
            await trio.sleep(0.01)
    for stream in [*held, one_more, other]:
        await stream.aclose()
    nursery.cancel_scope.cancel()


async def test_a_place_is_given_back(nursery):
    server = HttpListener(app, Upgrades(), most_per_address=1)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, server.serve, [listener])
    for _ in range(5):
        with trio.fail_after(60):
            async with await trio.testing.open_stream_to_socket_listener(listener) as stream:
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = b""
                while data := await stream.receive_some():
                    answer += data
                assert b"\r\nok\r\n" in answer
        await trio.testing.wait_all_tasks_blocked()
    nursery.cancel_scope.cancel()


async def test_there_is_an_end_to_connections_that_say_nothing(nursery):
    server = HttpListener(app, Upgrades(), most_open=2)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, server.serve, [listener])
    held = [await trio.testing.open_stream_to_socket_listener(listener) for _ in range(2)]
    await trio.testing.wait_all_tasks_blocked()
    with trio.fail_after(60):
        one_more = await trio.testing.open_stream_to_socket_listener(listener)
        assert await one_more.receive_some() == b""
        await one_more.aclose()
        await held.pop().aclose()
        await trio.testing.wait_all_tasks_blocked()
        async with await trio.testing.open_stream_to_socket_listener(listener) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"200" in await stream.receive_some()
    await held.pop().aclose()
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize(
    ("host", "reached"),
    [("*", ["127.0.0.1", "::1"]), ("::1", ["::1"]), ("127.0.0.1", ["127.0.0.1"])],
)
async def test_addresses_of_either_kind(host, reached, share):
    held = hold_port(host, 0) if share else []
    listeners, port = open_listeners(host, port_of(held[0]) if share else 0, share=share)
    for address in reached:
        async with await trio.open_tcp_stream(address, port):
            pass
    for each in listeners:
        await each.aclose()
    for each in held:
        each.close()


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("::", False), ("*", False)],
)
def test_who_reaches_an_address(host, alone):
    assert is_loopback(host) is alone
