"""One task for many sockets, here pipes."""

import os
from contextlib import ExitStack, contextmanager

import pytest
import trio

from ssasr.net.epoll_reader import ROUND, TICK, Doorbell, the_doorbell


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
def bell(nursery):
    bell = Doorbell()
    nursery.start_soon(bell.run)
    return bell


def reading(fileno, heard, then=lambda: None):
    def ring():
        heard.append(os.read(fileno, 100))
        then()

    return ring


async def test_it_rings_as_often_as_there_is_something_until_it_is_told_to_forget(bell):
    heard = []
    with pipe() as (end, other):
        bell.watch(end, reading(end, heard))
        for count in range(1, 4):
            os.write(other, b"x")
            with trio.fail_after(30):
                while len(heard) < count:
                    await trio.lowlevel.checkpoint()
        bell.forget(end)
        os.write(other, b"y")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert heard == [b"x"] * 3
        bell.forget(end)  # as often as one likes


async def test_the_first_after_a_rest_is_served_at_once_and_a_stream_in_ticks(mock_clock, bell):
    heard = []

    async def say(text):
        os.write(other, text)
        await trio.testing.wait_all_tasks_blocked(0.01)

    with pipe() as (end, other):
        bell.watch(end, reading(end, heard))
        for _ in range(2):
            heard.clear()
            mock_clock.jump(3 * TICK)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await say(b"first")
            assert heard == [b"first"]
            await say(b"soon after")
            await say(b"and ")
            await say(b"again")
            assert heard == [b"first", b"soon after"]
            mock_clock.jump(TICK)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert heard == [b"first", b"soon after", b"and again"]


async def test_nobody_waits_for_a_tick_where_a_round_is_not_all(mock_clock, bell):
    heard = []
    with ExitStack() as pipes:
        for _ in range(2 * ROUND + 1):
            end, other = pipes.enter_context(pipe())
            bell.watch(end, reading(end, heard))
            os.write(other, b"x")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(heard) == 2 * ROUND + 1


async def test_one_that_rings_may_put_off_another(bell):
    heard = []
    with pipe() as (one, to_one), pipe() as (two, to_two):
        bell.watch(one, reading(one, heard, lambda: bell.forget(two)))
        bell.watch(two, reading(two, heard, lambda: bell.forget(one)))
        os.write(to_one, b"x")
        os.write(to_two, b"x")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert heard == [b"x"]


async def test_a_number_may_come_again(bell):
    heard = []
    with pipe() as (end, _), pipe() as (new, other):
        bell.watch(end, reading(end, heard))
        os.dup2(new, end)  # closes it behind the bell's back
        bell.forget(end)
        bell.watch(end, reading(end, heard))
        os.write(other, b"x")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert heard == [b"x"]


async def test_there_is_one_for_a_run():
    assert the_doorbell() is the_doorbell()
