"""Channels between stages: nothing is lost, doubled or overtaken, whichever way it goes."""

import random

import pytest
import trio
from attrs import define, field

from ssasr.runtime.handoff import HandoffChannel, Stage


@define
class Collector:
    """An outlet that is clear as ``chance`` has it, and slow if it is not."""

    chance: random.Random | None = None
    taken: list = field(factory=list)

    @property
    def clear(self):
        return self.chance is None or self.chance.random() < 0.5

    def offer(self, item):
        self.taken.append(item)

    async def send(self, item):
        if self.chance is not None and self.chance.random() < 0.3:
            await trio.sleep(1)
        self.taken.append(item)


def twice(item):
    return (item, -item)


@pytest.mark.parametrize("seed", range(20))
async def test_the_order_is_that_of_the_sends_and_work_is_done_once(seed, autojump_clock):
    chance = random.Random(seed)
    channel, end = HandoffChannel(3), Collector(chance)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Stage(channel, twice, end).run)
        for number in range(300):
            await channel.send(number)
            if chance.random() < 0.3:
                await trio.sleep(chance.choice([0, 0.5]))
        channel.close()
    assert end.taken == [each for number in range(300) for each in twice(number)]


async def test_a_stage_that_waits_has_its_work_done_by_whoever_sends(autojump_clock):
    channel, end = HandoffChannel(3), Collector()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Stage(channel, twice, end).run)
        await trio.testing.wait_all_tasks_blocked()
        channel.offer(1)
        assert end.taken == [1, -1], "without any other task"
        channel.close()


async def test_what_the_work_raises_is_raised_in_the_stages_own_task(autojump_clock):
    def broken(item):
        raise KeyError(item)

    async def run():
        with pytest.raises(KeyError):
            await Stage(channel, broken, Collector()).run()

    for waiting in (True, False):  # the fast path, and the other
        channel = HandoffChannel(3)
        async with trio.open_nursery() as nursery:
            if not waiting:
                channel.offer(1)
            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked()
            if waiting:
                channel.offer(1)


async def test_it_is_clear_only_while_its_receiver_waits(autojump_clock):
    channel = HandoffChannel(1)
    assert not channel.clear
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(channel.receive)
            await trio.testing.wait_all_tasks_blocked()
            assert channel.clear
            channel.offer(1)
            assert not channel.clear, "what was sent has not been received yet"
            scope.cancel()


async def test_a_receiver_that_is_cancelled_has_taken_nothing(autojump_clock):
    """Wherever it is: waiting, about to go, or with something there at once."""
    for blocked in (True, False):
        channel = HandoffChannel(5)
        if not blocked:
            channel.offer("first")
        async with trio.open_nursery() as nursery:
            received = []

            async def receive(channel=channel, received=received):
                received.append(await channel.receive())

            nursery.start_soon(receive)
            if blocked:
                await trio.testing.wait_all_tasks_blocked()
                channel.offer("first")
            nursery.cancel_scope.cancel()
        received += [await channel.receive() for _ in range(1 - len(received))]
        assert received == ["first"]
    channel = HandoffChannel(5)
    channel.offer("kept")
    with trio.CancelScope() as scope:
        scope.cancel()
        await channel.receive()
    assert await channel.receive() == "kept"


async def test_it_is_bounded_by_what_its_items_weigh(autojump_clock):
    channel = HandoffChannel(100, len)
    with trio.move_on_after(1):
        while True:
            await channel.send(bytes(30))
    assert channel.full
    assert [len(await channel.receive()) for _ in range(4)] == [30] * 4
    with trio.move_on_after(1):
        await channel.receive()
        pytest.fail("what was cancelled while it waited for room was never sent")


async def test_closed_it_is_emptied_first_and_frees_those_who_wait(autojump_clock):
    channel = HandoffChannel(1)
    channel.offer(1)
    async with trio.open_nursery() as nursery:

        async def send():
            with pytest.raises(trio.ClosedResourceError):
                await channel.send(2)

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert channel.blocked
        channel.close()
    assert await channel.receive() == 1
    with pytest.raises(trio.EndOfChannel):
        await channel.receive()
