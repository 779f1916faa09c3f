"""Steps side by side: the same answers, and the faster way is taken."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch

from ssasr.engine.fastconformer.side_by_side import (
    Arrangement,
    SideBySideRunner,
    arrangements,
    choose,
    fastest,
)
from ssasr.engine.kernels import int8_limit
from ssasr.engine.recognizer import SegmentStart, Work
from ssasr.protocol.recognition import StreamOptions

TWO, SHARED = Arrangement(2, 1), Arrangement(1, 2)


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(not int8_limit(), reason="8-bit integers are of no use to this processor")
@pytest.mark.timeout(400)  # threads that share operations wait for each other on a busy machine
@pytest.mark.parametrize("arrangement", [Arrangement(3, 1), Arrangement(2, 2)])
def test_steps_at_once_answer_what_they_do_one_after_the_other(
    english, make_recognizer, jfk, arrangement
):
    """Each of two streams, which begin and end segments at their own times."""
    audio = jfk[: 4 * 16_000].astype(np.float32) / 32_768

    def streams(recognizer, number):
        chunk, outcomes = recognizer.chunk, []
        for begin in range(0, 20_000, 7_000):
            starts = [begin + 1_000 * number, begin + 2_000 * number + 500]
            states = [
                recognizer.new_state(StreamOptions(), SegmentStart(start)) for start in starts
            ]
            for step in range(5 + number):
                size = chunk - 900 if step == 4 + number else chunk
                works = [
                    Work(state, audio[at : at + size], None if size == chunk else at + size)
                    for state, start in zip(states, starts, strict=True)
                    for at in [start + step * chunk]
                ]
                outcomes += recognizer.step(works)
        return outcomes

    one = make_recognizer(english[1], 2, int8=True)
    other = make_recognizer(english[1], 2, int8=True, arrangement=arrangement)
    expected = [streams(one, number) for number in range(3)]
    with ThreadPoolExecutor(other.steps_at_once) as pool:
        assert list(pool.map(partial(streams, other), range(3))) == expected
    assert any(result.words for outcome in expected[0] for result in outcome.results)
    assert other.statistics().free_slots == other.statistics().slots


def test_all_threads_are_in_use():
    assert arrangements(1) == [Arrangement(1, 1)]
    assert arrangements(6) == [
        Arrangement(6, 1), Arrangement(3, 2), Arrangement(2, 3), Arrangement(1, 6),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("side_by_side", "shared", "chosen"), [(1.0, 0.95, TWO), (1.0, 0.7, SHARED), (1.0, 16.0, TWO)]
)
def test_a_shared_operation_must_be_clearly_faster(side_by_side, shared, chosen):
    assert choose({TWO: side_by_side, SHARED: shared}) == chosen


@pytest.mark.parametrize(("shared", "steps", "tries"), [(0.5, 1, 3), (16.0, 2, 1)])
def test_the_arrangement_is_measured(shared, steps, tries):
    """One that is hopeless, because somebody has a core, is tried once."""
    now, tried = 0.0, []

    def step(runner, rows):
        nonlocal now
        tried.append((runner.steps, rows))
        now += 0.5 if runner.steps == 2 else shared

    make = partial(SideBySideRunner, _NoProgram(), 8)
    runner = fastest(make, 2, step, clock=lambda: now)
    assert runner.steps == steps
    assert (tried.count((2, 4)), tried.count((1, 8))) == (6, tries)
    assert torch.get_num_threads() == 2 // steps


class _NoProgram:
    """Never run."""


def test_a_single_thread_is_not_measured():
    runner = fastest(partial(SideBySideRunner, _NoProgram(), 8), 1, _refuse)
    assert (runner.steps, torch.get_num_threads()) == (1, 1)


def _refuse(*_):
    raise AssertionError("there is no choice")
