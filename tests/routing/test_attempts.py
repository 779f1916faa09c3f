"""Questions beside a question that is not answered, in virtual time."""

import pytest
import trio

from ssasr.routing.attempts import AGAIN_SECONDS, first_answers

EVER = 1_000.0
SECONDS = 7.5 * AGAIN_SECONDS


def engines(*fates):
    """``ask``: the question with that number is answered after so many seconds, or with that
    exception at once. And the numbers asked, with when."""
    asked, began = [], trio.current_time()

    async def ask(number):
        asked.append((number, round(trio.current_time() - began, 3)))
        fate = fates[number - 1]
        if isinstance(fate, Exception):
            raise fate
        await trio.sleep(fate)
        return number

    return ask, asked


async def test_who_answers_at_once_is_asked_once(autojump_clock):
    ask, asked = engines(0.01)
    assert await first_answers(ask, SECONDS) == [1]
    assert asked == [(1, 0.0)]


async def test_another_is_asked_while_one_hangs(autojump_clock):
    ask, asked = engines(EVER, EVER, 0.01)
    assert await first_answers(ask, SECONDS) == [3]
    assert asked == [(1, 0.0), (2, AGAIN_SECONDS), (3, 2 * AGAIN_SECONDS)]


async def test_a_slow_one_may_still_answer(autojump_clock):
    ask, _ = engines(2.5 * AGAIN_SECONDS, EVER, EVER)
    assert await first_answers(ask, SECONDS) == [1]


async def test_two_at_the_same_moment_are_both_given_back(autojump_clock):
    both = trio.Event()

    async def ask(number):
        if number == 3:
            both.set()
            await trio.sleep(EVER)
        await both.wait()
        return number

    assert sorted(await first_answers(ask, SECONDS)) == [1, 2]


async def test_a_refusal_is_raised_at_once(autojump_clock):
    began = trio.current_time()
    ask, asked = engines(OSError("refused"))
    with pytest.raises(OSError, match="refused"):
        await first_answers(ask, SECONDS)
    assert (len(asked), trio.current_time() - began) == (1, 0.0)


async def test_a_refusal_beside_one_that_hangs_ends_nothing_and_is_what_is_raised(autojump_clock):
    ask, _ = engines(EVER, OSError("refused"), 0.01)
    assert await first_answers(ask, SECONDS) == [3]
    ask, asked = engines(EVER, OSError("refused"), *[EVER] * 10)
    with pytest.raises(OSError, match="refused"):
        await first_answers(ask, SECONDS)
    assert len(asked) == 8


async def test_it_is_bounded(autojump_clock):
    began = trio.current_time()
    ask, asked = engines(*[EVER] * 10)
    with pytest.raises(trio.TooSlowError):
        await first_answers(ask, SECONDS)
    assert trio.current_time() - began == pytest.approx(SECONDS)
    assert len(asked) == 8
