"""Plain frames that bypass trio-websocket: order, what waits, what breaks."""

from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import memory_stream_pair
from trio_websocket import ConnectionClosed, wrap_client_stream, wrap_server_stream

from ssasr.net.websocket_stream import RawWebSocket, RawWebSocketStream


@asynccontextmanager
async def socket_pair():
    """Two ends of a TCP connection."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    client = await trio.open_tcp_stream(*listener.socket.getsockname()[:2])
    server = await listener.accept()
    async with listener, client, server:
        yield client, server


@asynccontextmanager
async def memory_pair():
    client, server = memory_stream_pair()
    async with client, server:
        yield client, server


@asynccontextmanager
async def express_pair(make_pair=socket_pair, queue=100):
    """An ``RawWebSocket`` at either end."""
    async with make_pair() as (left, right), trio.open_nursery() as nursery:
        client = RawWebSocketStream(left, client=True)
        server = RawWebSocketStream(right, client=False)
        ends = []

        async def connect():
            websocket = await wrap_client_stream(
                nursery, client, "host", "/", message_queue_size=queue
            )
            ends.append(RawWebSocket(websocket, client, nursery))

        async with trio.open_nursery() as shaking:
            shaking.start_soon(connect)
            request = await wrap_server_stream(nursery, server, message_queue_size=queue)
            accepted = RawWebSocket(await request.accept(), server, nursery)
        yield ends[0], accepted
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("make_pair", [socket_pair, memory_pair])
async def test_whoever_takes_them_messages_come_in_order(make_pair):
    """A sink that takes every third, and a reader for the others; long ones, which are the
    library's, among them; pings in between."""
    async with express_pair(make_pair) as pair:
        for end, other in (pair, pair[::-1]):
            taken = []

            def sink(message, taken=taken):
                if len(taken) % 3:
                    return False
                taken.append(message)
                return True

            other.listen(sink)
            said = [
                b"x" * 200_000 if n % 10 == 5 else str(n) if n % 2 else b"%d" % n for n in range(60)
            ]

            async def say(end=end, said=said):
                for number, message in enumerate(said):
                    await end.send_message(message)
                    if number % 7 == 0:
                        end.ping()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(say)
                with trio.fail_after(30):
                    while len(taken) < len(said):
                        taken.append(await other.get_message())
            assert taken == said


async def test_what_the_socket_does_not_take_waits_and_keeps_its_order():
    async with express_pair(queue=1_000) as (client, server):
        said = [bytes([n % 256]) * 60_000 for n in range(200)]
        offered = 0
        for message in said:
            if client.clear:
                client.offer(message)
                offered += 1
        assert 0 < offered < len(said), "the socket was to be filled"
        assert not client.clear
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_message, b"last")
            with trio.fail_after(30):
                received = [await server.get_message() for _ in range(offered + 1)]
        assert received == [*said[:offered], b"last"]
        assert client.clear


async def test_a_frame_that_was_cut_off_is_the_last():
    async with express_pair(queue=1) as (client, _):
        with trio.move_on_after(0.5):
            while True:
                await client.send_message(bytes(100_000))  # nobody reads
        with pytest.raises(ConnectionClosed), trio.fail_after(30):
            await client.send_message(b"more")


async def test_a_pong_is_a_sign_of_life_and_nothing_else():
    async with express_pair() as (client, server):
        before = client.stream.received
        client.ping()
        with trio.fail_after(30):
            while client.stream.received == before:
                await trio.sleep(0.001)
        await server.send_message("hello")
        assert await client.get_message() == "hello"


async def test_an_abort_frees_whoever_waits():
    async with express_pair() as (client, _):
        async with trio.open_nursery() as nursery:

            async def wait():
                with pytest.raises(ConnectionClosed):
                    await client.get_message()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(0.01)
            client.stream.abort()
        with pytest.raises(ConnectionClosed):
            await client.send_message("late")


async def test_a_close_has_its_code_and_nothing_is_sent_after_it():
    async with express_pair() as (client, server):
        await client.aclose(3_005, "enough")
        with pytest.raises(ConnectionClosed) as closed:
            await server.get_message()
        assert (closed.value.reason.code, closed.value.reason.reason) == (3_005, "enough")
        assert not client.clear
        with pytest.raises(ConnectionClosed):
            await client.send_message("late")


async def test_a_bug_of_whoever_takes_messages_is_raised_in_the_connections_own_task():
    """And not in the task that reads for all."""
    with pytest.RaisesGroup(pytest.RaisesExc(KeyError, match="bug"), flatten_subgroups=True):
        async with express_pair() as (client, server):

            def sink(message):
                raise KeyError("bug")

            server.listen(sink)
            await client.send_message("hello")
            with trio.fail_after(30):
                await trio.sleep_forever()
    async with express_pair() as (client, server):
        await client.send_message("all is well with others")
        assert await server.get_message() == "all is well with others"
