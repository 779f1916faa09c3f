"""A WebSocket on a stream: order, what waits, what breaks, how it ends."""

from contextlib import asynccontextmanager

import pytest
import trio
from attrs import frozen
from trio.testing import memory_stream_pair

from ssasr.net.frames import (
    NO_MASK,
    FrameReader,
    encode_frame,
    encode_message,
    encode_pong,
)
from ssasr.net.websocket import (
    CONTROL_LIMIT,
    FLOODING_READ_SIZE,
    MESSAGE_LIMIT,
    READ_SIZE,
    ConnectionClosed,
    WebSocket,
)

PING = 0x9


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
async def websockets(make_pair=socket_pair, ahead=MESSAGE_LIMIT):
    """A ``WebSocket`` at either end."""
    async with make_pair() as (left, right), trio.open_nursery() as nursery:
        client = WebSocket(left, nursery, client=True, ahead=ahead)
        yield client, WebSocket(right, nursery, client=False, ahead=ahead)
        nursery.cancel_scope.cancel()


@frozen
class Third:
    """Takes one message, and then leaves two to ``receive``."""

    taken: list

    def ready(self):
        return len(self.taken) % 3 == 0

    def take(self, message):
        self.taken.append(message)


@pytest.mark.parametrize("make_pair", [socket_pair, memory_pair])
async def test_whoever_takes_them_messages_come_in_order(make_pair):
    async with websockets(make_pair) as pair:
        for end, other in (pair, pair[::-1]):
            taken = []
            other.deliver_to(Third(taken))
            said = [
                b"x" * 200_000 if n % 10 == 5 else str(n) if n % 2 else b"%d" % n for n in range(60)
            ]

            async def say(end=end, said=said):
                for number, message in enumerate(said):
                    await end.send(message)
                    if number % 7 == 0:
                        end.ping()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(say)
                with trio.move_on_after(30):
                    while len(taken) < len(said):
                        with trio.move_on_after(0.05):
                            taken.append(await other.receive())
            assert taken == said


async def test_what_the_socket_does_not_take_waits_and_keeps_its_order():
    async with websockets() as (client, server):
        said = [bytes([n % 256]) * 60_000 for n in range(200)]
        offered = 0
        for message in said:
            if client.clear:
                client.offer(message)
                offered += 1
        assert 0 < offered < len(said), "the socket was to be filled"
        assert not client.clear
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, b"last")
            with trio.fail_after(30):
                received = [await server.receive() for _ in range(offered + 1)]
        assert received == [*said[:offered], b"last"]
        assert client.clear


async def test_a_frame_that_was_cut_off_is_the_last():
    async with websockets() as (client, _):
        async with trio.open_nursery() as nursery:

            async def fill():  # nobody reads
                while True:
                    await client.send(bytes(100_000))

            nursery.start_soon(fill)
            while client.clear:  # noqa: ASYNC110  the kernel's buffers tell nobody
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        with pytest.raises(ConnectionClosed), trio.fail_after(30):
            await client.send(b"more")


async def test_a_pong_is_a_sign_of_life_and_nothing_else():
    async with websockets() as (client, server):
        before = client.received
        client.ping()
        with trio.fail_after(30):
            while client.received == before:
                await trio.sleep(0.001)
        await server.send("fresh")
        assert await client.receive() == "fresh"


async def test_an_abort_frees_whoever_waits():
    async with websockets() as (client, _):
        async with trio.open_nursery() as nursery:

            async def wait():
                with pytest.raises(ConnectionClosed):
                    await client.receive()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(0.01)
            client.abort()
        with pytest.raises(ConnectionClosed):
            await client.send("late")


async def test_a_close_has_its_code_and_nothing_is_sent_after_it():
    async with websockets() as (client, server):
        await client.aclose(3_005, "enough")
        with pytest.raises(ConnectionClosed) as closed:
            await server.receive()
        assert (closed.value.reason.code, closed.value.reason.reason) == (3_005, "enough")
        assert not client.clear
        with pytest.raises(ConnectionClosed):
            await client.send("late")


async def test_what_a_taker_raises_is_raised_in_the_receivers_task():
    """And not in the task that reads for all."""

    class Broken:
        def ready(self):
            return True

        def take(self, message):
            raise KeyError("bug")

    async with websockets() as (client, server):
        server.deliver_to(Broken())
        await client.send("fresh")
        with pytest.raises(KeyError), trio.fail_after(30):
            await server.receive()
        await server.send("the connection is well")
        assert await client.receive() == "the connection is well"


@pytest.mark.parametrize("make_pair", [socket_pair, memory_pair])
async def test_pings_are_answered_while_messages_wait(make_pair):
    """Nobody takes the messages, and the ping comes after a good many of them."""
    async with websockets(make_pair, ahead=3_000_000) as (client, _):
        before = client.received
        for _ in range(28):
            await client.send(bytes(100_000))
        client.ping()
        with trio.fail_after(30):
            while client.received == before:
                await trio.sleep(0.01)


async def test_pings_of_a_peer_that_does_not_read_take_no_memory():
    """Once it reads, it finds what it was sent, and the answer to its last ping."""
    message, count = bytes(32_000_000), 90  # more than the buffers of any kernel take
    async with socket_pair() as (raw, right), trio.open_nursery() as nursery:
        server = WebSocket(right, nursery, client=False)
        server.offer(message)
        await trio.testing.wait_all_tasks_blocked()
        pings = b"".join(encode_frame(PING, b"%d" % number, NO_MASK) for number in range(count))
        await raw.send_all(pings)
        expected = encode_message(message, None) + encode_pong(b"%d" % (count - 1), None)
        with trio.fail_after(60):
            while server.received < len(pings):
                await trio.sleep(0.01)
            received = bytearray()
            while len(received) < len(expected):
                received += await raw.receive_some(1 << 20)
        assert received == expected, "one pong"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("make_pair", [socket_pair, memory_pair])
async def test_a_flood_of_pings_is_read_a_little_at_a_time(make_pair):
    """And goes on being read."""
    ping = encode_frame(PING, b"", NO_MASK)
    async with make_pair() as (raw, right), trio.open_nursery() as nursery:
        began = trio.current_time()
        server = WebSocket(right, nursery, client=False)
        await raw.send_all(ping * 20_000)
        with trio.fail_after(60):
            while not (first := server.received):
                await trio.sleep(0.01)
            while server.received <= first:
                await trio.sleep(0.01)
        a_second = CONTROL_LIMIT * len(ping) + FLOODING_READ_SIZE
        seconds = 1 + trio.current_time() - began
        assert server.received <= READ_SIZE + seconds * a_second
        nursery.cancel_scope.cancel()


async def test_a_peer_that_sends_too_much_is_held_back():
    async with websockets(ahead=1_000_000) as (client, server):
        sent = 0
        with trio.move_on_after(1):
            while True:
                await client.send(bytes(100_000))
                sent += 1
        assert server.received < 1_500_000
        await trio.testing.wait_all_tasks_blocked()
        first = [len(await server.receive()) for _ in range(5)]
        assert first == [100_000] * 5, "and nothing is lost"


async def test_a_message_that_is_too_long_comes_cut_off_and_the_next_one_whole():
    async with websockets() as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, bytes(3 * MESSAGE_LIMIT))
            assert len(await server.receive()) == MESSAGE_LIMIT + 1
        await client.send("next")
        assert await server.receive() == "next"


async def test_what_breaks_a_rule_is_answered_with_its_code():
    async with socket_pair() as (raw, right), trio.open_nursery() as nursery:
        server = WebSocket(right, nursery, client=False)
        await raw.send_all(encode_message("unmasked", None))
        with pytest.raises(ConnectionClosed), trio.fail_after(30):
            await server.receive()
        (close,) = FrameReader(masked=False, limit=100).feed(bytes(await raw.receive_some()))
        assert close.code == 1_002
        nursery.cancel_scope.cancel()


async def test_it_closes_at_once_where_its_own_task_has_been_cancelled():
    """As a gateway's stream to an engine does at the end of every session."""
    async with socket_pair() as (left, right), trio.open_nursery() as nursery:
        server = WebSocket(right, nursery, client=False)
        async with trio.open_nursery() as own:
            client = WebSocket(left, own, client=True)
            own.cancel_scope.cancel()
        with trio.fail_after(30):
            await client.aclose()
            with pytest.raises(ConnectionClosed, match="1000"):
                await server.receive()
        nursery.cancel_scope.cancel()
