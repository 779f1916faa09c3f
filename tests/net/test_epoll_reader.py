"""One task for many sockets, here pipes."""

import os
from contextlib import ExitStack, contextmanager

import pytest
import trio

from ssasr.net.epoll_reader import ROUND, TICK, EpollReader, current_reader


@contextmanager
def pipe():
    """The end to read, the end to write."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


@pytest.fixture
def reader(nursery):
    reader = EpollReader()
    nursery.start_soon(reader.run)
    return reader


def reading(fileno, received, then=lambda: None):
    def callback():
        received.append(os.read(fileno, 100))
        then()

    return callback


async def test_the_callback_runs_as_often_as_there_is_something_until_it_is_forgotten(reader):
    received = []
    with pipe() as (end, other):
        reader.watch(end, reading(end, received))
        for count in range(1, 4):
            os.write(other, b"x")
            with trio.fail_after(30):
                while len(received) < count:
                    await trio.lowlevel.checkpoint()
        reader.forget(end)
        os.write(other, b"y")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert received == [b"x"] * 3
        reader.forget(end)  # as often as one likes


async def test_the_first_after_a_rest_is_served_at_once_and_a_stream_in_ticks(mock_clock, reader):
    received = []

    async def say(text):
        os.write(other, text)
        await trio.testing.wait_all_tasks_blocked(0.01)

    with pipe() as (end, other):
        reader.watch(end, reading(end, received))
        for _ in range(2):
            received.clear()
            mock_clock.jump(3 * TICK)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await say(b"first")
            assert received == [b"first"]
            await say(b"soon after")
            await say(b"and ")
            await say(b"again")
            assert received == [b"first", b"soon after"]
            mock_clock.jump(TICK)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert received == [b"first", b"soon after", b"and again"]


async def test_nobody_waits_for_a_tick_where_a_round_is_not_all(mock_clock, reader):
    received = []
    with ExitStack() as pipes:
        for _ in range(2 * ROUND + 1):
            end, other = pipes.enter_context(pipe())
            reader.watch(end, reading(end, received))
            os.write(other, b"x")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(received) == 2 * ROUND + 1


async def test_a_callback_may_forget_another(reader):
    received = []
    with pipe() as (one, to_one), pipe() as (two, to_two):
        reader.watch(one, reading(one, received, lambda: reader.forget(two)))
        reader.watch(two, reading(two, received, lambda: reader.forget(one)))
        os.write(to_one, b"x")
        os.write(to_two, b"x")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert received == [b"x"]


async def test_a_number_may_come_again(reader):
    received = []
    with pipe() as (end, _), pipe() as (new, other):
        reader.watch(end, reading(end, received))
        os.dup2(new, end)  # closes it behind the bell's back
        reader.forget(end)
        reader.watch(end, reading(end, received))
        os.write(other, b"x")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert received == [b"x"]


async def test_there_is_one_for_a_run():
    assert current_reader() is current_reader()
