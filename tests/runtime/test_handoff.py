"""A channel with a short cut: nothing is lost, doubled or overtaken."""

import random

import pytest
import trio

from ssasr.runtime.handoff import Lane


@pytest.mark.parametrize("seed", range(20))
async def test_the_order_is_that_of_the_puts(seed, autojump_clock):
    chance = random.Random(seed)
    lane, taken = Lane(3), []

    def shortcut(item):
        if chance.random() < 0.5:
            return False
        taken.append(item)
        return True

    async def take():
        lane.cut(shortcut)
        while True:
            try:
                item = await lane.get()
            except trio.EndOfChannel:
                return
            taken.append(item)
            if chance.random() < 0.3:
                await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        for number in range(300):
            await lane.put(number)
            if chance.random() < 0.3:
                await trio.sleep(chance.choice([0, 0.5]))
        lane.close()
    assert taken == list(range(300))


async def test_it_is_clear_only_while_its_taker_waits(autojump_clock):
    lane = Lane(1)
    assert not lane.clear
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(lane.get)
            await trio.testing.wait_all_tasks_blocked()
            assert lane.clear
            lane.put_nowait(1)
            assert not lane.clear, "what was put in has not been taken out yet"
            scope.cancel()
    lane.put_nowait(2)
    with pytest.raises(trio.WouldBlock):
        lane.put_nowait(3)


async def test_a_taker_that_is_cancelled_takes_nothing_more(autojump_clock):
    lane, taken = Lane(1), []
    lane.cut(lambda item: taken.append(item) is None)
    with trio.move_on_after(1):
        await lane.get()
    lane.put_nowait("later")
    assert taken == []
    assert await lane.get() == "later"
