"""One task for many looks, in virtual time."""

import math

import pytest
import trio

from ssasr.runtime.timers import ROUND, Timer, Timers, current_timers


async def begin():
    """A whole second, of which nothing has passed yet."""
    second = math.floor(trio.current_time()) + 1
    await trio.sleep_until(second)
    return second


def noting(start, rest):
    """A look that asks for the next in ``rest`` seconds, and the seconds from ``start`` on at which
    it was made."""
    looks = []

    def look(second):
        looks.append(second - start)
        return rest

    return look, looks


async def test_looks_come_at_whole_seconds_as_far_apart_as_they_ask(autojump_clock, nursery):
    start = await begin()
    looks = []

    rests = iter([1, 1, 3, 0.2, None])

    def look(second):
        looks.append(second - start)
        assert second == math.floor(trio.current_time())
        return next(rests)

    await trio.sleep(0.7)
    await Timer(look).run_until_over(2.0)
    assert looks == [2, 3, 4, 7, 8]


async def test_who_hastens_is_looked_at_with_the_next_round_and_only_once(autojump_clock, nursery):
    start = await begin()
    look, looks = noting(start, rest=20)
    timer = Timer(look)
    timer.hasten()  # before it is paid: nothing
    nursery.start_soon(timer.run_until_over, 20)
    await trio.sleep(5.5)
    timer.hasten()
    timer.hasten()
    await trio.sleep(30)
    assert looks == [6, 26]


async def test_one_who_leaves_is_not_looked_at(autojump_clock, nursery):
    start = await begin()
    look, looks = noting(start, rest=1)
    timer = Timer(look)
    with trio.move_on_after(2.5):
        await timer.run_until_over(1)
    timer.hasten()
    await trio.sleep(5)
    assert looks == [1, 2]


async def test_what_a_look_raises_is_its_own_task_s_and_nobody_else_s(autojump_clock, nursery):
    start = await begin()
    look, looks = noting(start, rest=1)

    def broken(second):
        raise KeyError("broken")

    nursery.start_soon(Timer(look).run_until_over, 1)
    with pytest.raises(KeyError):
        await Timer(broken).run_until_over(1)
    await trio.sleep(2.5)
    assert looks == [1, 2, 3]


async def test_a_late_round_is_made_once_and_the_next_in_time(mock_clock, nursery):
    look, looks = noting(0, rest=1)
    nursery.start_soon(Timer(look).run_until_over, 1)
    await trio.testing.wait_all_tasks_blocked(0.01)
    for seconds in (10.6, 0.5):
        mock_clock.jump(seconds)
        await trio.testing.wait_all_tasks_blocked(0.01)
    assert looks == [10, 11]


async def test_others_run_between_the_looks_of_a_second(autojump_clock, nursery):
    start = await begin()
    order = []

    def look(second):
        order.append("look")

    async def other():
        await trio.sleep_until(start + 1)
        order.append("other")

    for _ in range(2 * ROUND):
        nursery.start_soon(Timer(look).run_until_over, 1)
    nursery.start_soon(other)
    await trio.sleep(2)
    assert len(order) == 2 * ROUND + 1
    assert order.index("other") <= ROUND


async def test_one_may_make_another_leave_or_hurry(autojump_clock, nursery):
    """Both are due, and whichever comes first acts on the other."""
    start = await begin()
    looks = []
    due_timers = {}

    def look(name, other, act):
        def it(second):
            looks.append((second - start, name))
            act(due_timers[other])
            return 5

        return it

    due_timers["a"] = Timer(look("a", "b", Timer.hasten))
    due_timers["b"] = Timer(look("b", "a", Timer.hasten))
    async with trio.open_nursery() as paying:
        for timer in due_timers.values():
            paying.start_soon(timer.run_until_over, 1)
        await trio.sleep(2.5)
        paying.cancel_scope.cancel()
    first, *rest = looks
    assert first[0] == 1
    assert [second for second, _ in rest] == [2]  # the other, put off to there by the first
    assert rest[0][1] != first[1]


async def test_there_is_one_for_a_run():
    assert current_timers() is current_timers()
    assert isinstance(current_timers(), Timers)
