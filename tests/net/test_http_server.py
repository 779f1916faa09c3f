"""HTTP on one connection, over real sockets: one request after the other, until one upgrades."""

from contextlib import suppress

import pytest
import trio
import trio.testing

from ssasr.net.http_server import (
    BODY_AHEAD,
    BODY_DEADLINE,
    KEEP_ALIVE,
    LINGER,
    SEND_DEADLINE,
    HttpConnection,
    split_target,
)

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = b"GET /w HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


async def echo(scope, receive, send):
    """The path, and the body that came with it."""
    if scope["path"] == "/bug":
        raise RuntimeError("a bug")
    if scope["path"] == "/half":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("a bug")
    if scope["path"] == "/wait":
        while (await receive())["type"] != "http.disconnect":
            pass
        scope["state"]["left"].set()
        return
    body = b""
    while scope["method"] == "POST":
        event = await receive()
        body += event["body"]
        if not event["more_body"]:
            break
    answer = scope["path"].encode() + b"?" + scope["query_string"] + b"=" + body
    headers = [(b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer, "more_body": False})


class Served:
    def __init__(self, client):
        self.client = client
        self.stopping = trio.Event()
        self.over = trio.Event()
        self.upgrade = b""

    async def ends(self):
        """It has been answered, and says nothing more."""
        with suppress(trio.BrokenResourceError):
            await self.client.send_eof()
        await self.over.wait()

    async def until(self, *ends):
        """What the server says, up to each of ``ends`` in turn."""
        said = b""
        for end in ends:
            while end not in said:
                data = await self.client.receive_some()
                assert data, f"the connection ended before {end} came: {said}"
                said += data
        return said


@pytest.fixture
async def served(nursery):
    client, server = await _pair()
    result = Served(client)

    async def serve():
        async with server:
            result.upgrade = await HttpConnection(server, echo, result.stopping).run()
        result.over.set()

    nursery.start_soon(serve)
    with trio.fail_after(60):
        yield result
        await client.aclose()
        await result.over.wait()


async def _pair():
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    client = await trio.testing.open_stream_to_socket_listener(listener)
    async with listener:
        return client, await listener.accept()


async def test_a_connection_serves_one_request_after_the_other(served):
    for number in (b"1", b"2", b"3"):
        await served.client.send_all(b"GET /a?" + number + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP/1.1 200" in await served.until(b"/a?" + number + b"=")


async def test_an_upgrade_is_seen_whichever_request_it_is(served):
    await served.client.send_all(GET)
    await served.until(b"/a?=")
    await served.client.send_all(UPGRADE + b"frames")
    await served.over.wait()
    assert served.upgrade == UPGRADE + b"frames"


async def test_requests_that_came_together_are_answered_in_turn(served):
    await served.client.send_all(GET + GET.replace(b"/a", b"/b") + UPGRADE)
    said = await served.until(b"/a?=", b"/b?=")
    assert said.index(b"/a?=") < said.index(b"/b?=")
    await served.over.wait()
    assert served.upgrade == UPGRADE


async def test_a_body_is_read_and_asked_for(served):
    await served.client.send_all(
        b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    )
    await served.until(b"100 ")
    await served.client.send_all(b"hello" + GET)
    await served.until(b"/p?=hello", b"/a?=")


async def test_a_body_that_nobody_read_ends_the_connection(served):
    """What follows cannot be distinguished from it."""
    await served.client.send_all(b"PUT /p HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n" + GET)
    await served.until(b"/p?=")
    await served.ends()


async def test_an_answer_says_when_the_connection_closes_behind_it(served):
    """Or a client that keeps connections sends its next request into the close."""
    await served.client.send_all(GET)
    assert b"onnection:" not in await served.until(b"/a?=")
    await served.client.send_all(b"PUT /p HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n")
    assert b"\r\nconnection: close\r\n" in await served.until(b"/p?=")
    await served.ends()


async def test_an_answer_of_a_server_that_stops_says_that_the_connection_closes(nursery):
    client, server = trio.testing.memory_stream_pair()
    stopping = trio.Event()

    async def stops(scope, receive, send):
        stopping.set()
        await echo(scope, receive, send)

    nursery.start_soon(HttpConnection(server, stops, stopping).run)
    with trio.fail_after(60):
        await client.send_all(GET)
        said = b""
        while b"/a?=" not in said:
            said += await client.receive_some()
    assert b"\r\nconnection: close\r\n" in said


async def test_a_large_body_that_nobody_reads_stops_nobody(served):
    """hypercorn's queue to the app must not fill up: it would wait for the app to take the end."""
    size = 100 * BODY_AHEAD
    head = b"PUT /p HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    await served.client.send_all(head)
    await served.until(b"/p?=")
    with suppress(trio.BrokenResourceError):
        await served.client.send_all(bytes(size))
    await served.ends()


async def test_of_a_body_that_its_app_leaves_waiting_no_more_is_read(nursery):
    """The client waits, and not its data in our memory."""
    client, server = trio.testing.lockstep_stream_pair()
    piece, taken = bytes(BODY_AHEAD // 4), 0

    async def reluctant(scope, receive, send):
        await trio.sleep_forever()

    async def put():
        nonlocal taken
        await client.send_all(b"PUT /p HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
        while True:
            await client.send_all(piece)  # until it has been read
            taken += len(piece)

    nursery.start_soon(HttpConnection(server, reluctant, trio.Event()).run)
    nursery.start_soon(put)
    await trio.testing.wait_all_tasks_blocked()
    assert BODY_AHEAD / 2 < taken <= 2 * BODY_AHEAD
    nursery.cancel_scope.cancel()


async def test_what_a_client_still_sends_behind_its_answer_is_taken(nursery, autojump_clock):
    """For a moment: closing a socket with unread bytes takes back what was written to it."""
    client, server = trio.testing.lockstep_stream_pair()
    nursery.start_soon(HttpConnection(server, echo, trio.Event()).run)
    await client.send_all(b"PUT /p HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n")
    said = b""
    while b"/p?=" not in said:
        said += await client.receive_some()
    await trio.testing.wait_all_tasks_blocked()
    with trio.fail_after(LINGER / 2):
        await client.send_all(bytes(50))  # until it has been read
    nursery.cancel_scope.cancel()


async def test_a_body_in_many_small_chunks(served):
    """More of them in one read than hypercorn's queue holds by itself."""
    await served.client.send_all(
        b"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    await served.client.send_all(b"1\r\na\r\n" * 2_000 + b"0\r\n\r\n" + UPGRADE)
    await served.until(b"=" + b"a" * 2_000)
    await served.over.wait()
    assert served.upgrade == UPGRADE


async def test_a_body_that_is_broken_is_400(served):
    await served.client.send_all(
        b"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"
    )
    await served.until(b"HTTP/1.1 400")
    await served.ends()


async def test_an_app_learns_that_its_client_has_left(nursery):
    client, server = await _pair()
    left = trio.Event()

    async def app(scope, receive, send):
        scope["state"]["left"] = left
        await echo(scope, receive, send)

    async with server:
        nursery.start_soon(HttpConnection(server, app, trio.Event()).run)
        await client.send_all(GET.replace(b"/a", b"/wait") + GET)
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
        with trio.fail_after(60):
            await left.wait()
    nursery.cancel_scope.cancel()


async def test_a_bug_in_the_middle_of_an_answer_ends_the_connection(served):
    await served.client.send_all(GET.replace(b"/a", b"/half"))
    await served.until(b"half")
    await served.over.wait()


async def test_a_bug_of_the_app_is_500_and_the_connection_goes_on(served):
    await served.client.send_all(GET.replace(b"/a", b"/bug"))
    await served.until(b"HTTP/1.1 500")
    await served.client.send_all(GET)
    await served.until(b"/a?=")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), b"505"),
        (GET + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
        (b"NONSENSE\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),  # no Host
    ],
)
async def test_what_is_no_request_is_refused(served, sent, status):
    await served.client.send_all(sent)
    await served.until(b"HTTP/1.1 " + status)
    await served.ends()


async def test_http_2_is_not_spoken_when_a_request_asks_for_it(served):
    await served.client.send_all(
        b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"
    )
    assert b"HTTP/1.1 200" in await served.until(b"/a?=")


async def test_an_idle_connection_ends_when_the_server_stops(served):
    await served.client.send_all(GET)
    await served.until(b"/a?=")
    served.stopping.set()
    await served.over.wait()


async def test_an_idle_connection_is_not_kept_for_ever(nursery, autojump_clock):
    mine, theirs = trio.testing.memory_stream_pair()

    async def serve():
        async with theirs:
            await HttpConnection(theirs, echo, trio.Event()).run()

    nursery.start_soon(serve)
    await mine.send_all(GET)
    started = trio.current_time()
    with suppress(trio.BrokenResourceError):
        while await mine.receive_some():
            pass
    assert trio.current_time() - started == pytest.approx(KEEP_ALIVE, abs=0.5)


async def test_a_body_that_does_not_come_ends_the_connection(nursery, autojump_clock):
    mine, theirs = trio.testing.memory_stream_pair()
    nursery.start_soon(HttpConnection(theirs, echo, trio.Event()).run)
    await mine.send_all(b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nhello")
    started = trio.current_time()
    assert (await mine.receive_some()).startswith(b"HTTP/1.1 400")
    assert trio.current_time() - started == pytest.approx(BODY_DEADLINE, abs=0.5)
    nursery.cancel_scope.cancel()


def stuck_pair():
    """The client reads nothing, and whatever is written to it waits."""
    mine, theirs = trio.testing.memory_stream_pair()
    theirs.send_stream.send_all_hook = trio.sleep_forever
    return mine, theirs


async def test_a_client_that_does_not_read_is_given_up(nursery, autojump_clock):
    mine, theirs = stuck_pair()
    await mine.send_all(GET)
    started = trio.current_time()
    await HttpConnection(theirs, echo, trio.Event()).run()
    assert trio.current_time() - started == pytest.approx(SEND_DEADLINE, abs=2.5)


async def test_a_client_that_does_not_read_holds_up_no_end(autojump_clock):
    """hypercorn writes inside a shield."""
    mine, theirs = stuck_pair()
    await mine.send_all(GET)
    started = trio.current_time()
    with trio.move_on_after(1):
        await HttpConnection(theirs, echo, trio.Event()).run()
    assert trio.current_time() - started == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/v3/ws?a=b", "/v3/ws", "a=b"),
        ("/v3/ws/?a=b/", "/v3/ws", "a=b/"),
        ("//v3//ws", "/v3/ws", ""),
        ("/", "/", ""),
        ("//", "/", ""),
        ("?a=b", "/", "a=b"),
        ("http://host:8080/v3/ws/?a=b", "/v3/ws", "a=b"),
        ("ws://host", "/", ""),
        ("*", "/*", ""),
    ],
)
def test_targets(target, path, query):
    assert split_target(target) == (path, query)
