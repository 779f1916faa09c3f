"""A channel with a short cut: nothing is lost, doubled or overtaken."""

import random

import pytest
import trio

from ssasr.runtime.handoff import HandoffChannel


@pytest.mark.parametrize("seed", range(20))
async def test_the_order_is_that_of_the_puts(seed, autojump_clock):
    chance = random.Random(seed)
    channel, taken = HandoffChannel(3), []

    def fast_path(item):
        if chance.random() < 0.5:
            return False
        taken.append(item)
        return True

    async def take():
        channel.set_fast_path(fast_path)
        while True:
            try:
                item = await channel.get()
            except trio.EndOfChannel:
                return
            taken.append(item)
            if chance.random() < 0.3:
                await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        for number in range(300):
            await channel.put(number)
            if chance.random() < 0.3:
                await trio.sleep(chance.choice([0, 0.5]))
        channel.close()
    assert taken == list(range(300))


async def test_it_is_clear_only_while_its_taker_waits(autojump_clock):
    channel = HandoffChannel(1)
    assert not channel.clear
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(channel.get)
            await trio.testing.wait_all_tasks_blocked()
            assert channel.clear
            channel.put_nowait(1)
            assert not channel.clear, "what was put in has not been taken out yet"
            scope.cancel()
    channel.put_nowait(2)
    with pytest.raises(trio.WouldBlock):
        channel.put_nowait(3)


async def test_a_taker_that_is_cancelled_takes_nothing_more(autojump_clock):
    channel, taken = HandoffChannel(1), []
    channel.set_fast_path(lambda item: taken.append(item) is None)
    with trio.move_on_after(1):
        await channel.get()
    channel.put_nowait("later")
    assert taken == []
    assert await channel.get() == "later"
