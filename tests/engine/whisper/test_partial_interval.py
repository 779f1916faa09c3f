"""Stretching under overload."""

from itertools import pairwise

from ssasr.engine.whisper.partial_interval import (
    MOST,
    PATIENCE,
    TOO_LONG,
    PartialInterval,
    least_capacity,
    most_streams,
)

STEP = 0.1


def _run(interval, load, seconds, now=0.0, *, keeps_up=True):
    """Steps one after the other, the workers busy for that share: (the factors, the time after)."""
    factors = []
    for _ in range(round(seconds / STEP)):
        now += STEP
        interval.worked(STEP, now, busy=load, keeps_up=keeps_up)
        factors.append(interval.factor)
    return factors, now


def test_neither_a_burst_nor_a_full_load_is_too_much():
    interval = PartialInterval()
    factors, now = _run(interval, 1.0, 60)
    for _ in range(5):
        burst, now = _run(interval, 1.0, TOO_LONG - 1, now, keeps_up=False)
        after, now = _run(interval, 1.0, STEP, now)
        factors += burst + after
    assert set(factors) == {1}


def test_streams_that_come_after_a_long_rest_are_no_overload():
    interval = PartialInterval()
    _, now = _run(interval, 1.0, 1)
    factors, _ = _run(interval, 1.0, TOO_LONG - 1, now + 10 * TOO_LONG, keeps_up=False)
    assert set(factors) == {1}


def test_who_never_catches_up_shows_fewer_words_in_the_making_until_there_is_time_again():
    interval = PartialInterval()
    factors, now = _run(interval, 1.0, 60, keeps_up=False)
    assert factors[-1] == MOST
    assert factors == sorted(factors)
    changes = [n for n in range(1, len(factors)) if factors[n] != factors[n - 1]]
    assert all(b - a >= PATIENCE / STEP - 1 for a, b in pairwise(changes))
    between, now = _run(interval, 0.7, 60, now)
    assert between[-1] == MOST, "more of them would be too much again"
    relieved, _ = _run(interval, 0.1, 60, now)
    assert relieved == sorted(relieved, reverse=True)
    assert relieved[-1] == 1


def test_the_grid_is_as_wide_as_the_streams_that_are_spoken_on_need_at_once():
    interval = PartialInterval(capacity=4.0)
    factors = []
    for streams in [*range(12), 0]:
        interval.note_speaking(streams)
        factors.append(interval.factor)
    assert factors[:5] == [1] * 5, "as many as there is room for"
    assert factors[:-1] == sorted(factors[:-1])
    assert factors[6] > 1
    assert factors[11] == MOST
    assert factors[-1] == 1, "nobody speaks any more"


def test_a_grid_that_streams_need_is_not_narrowed_for_a_light_load():
    interval = PartialInterval(capacity=4.0)
    interval.note_speaking(6)
    needed = interval.factor
    factors, _ = _run(interval, 0.1, 60)
    assert set(factors) == {needed}


def test_more_streams_are_admitted_than_can_speak_at_the_usual_partial_interval():
    assert most_streams(0.01) == 1
    assert 4 < most_streams(4.0) <= 4 * MOST
    for streams in range(1, 30):
        assert most_streams(least_capacity(streams) * 1.001) == streams
