"""Stretching under overload."""

from itertools import pairwise

from ssasr.engine.whisper.pace import MOST, PATIENCE, RELIEF, Pace

STEP = 0.1


def _run(pace, late, seconds):
    factors = []
    for _ in range(round(seconds / STEP)):
        pace.note(late, STEP)
        factors.append(pace.factor)
    return factors


def test_a_burst_is_no_overload():
    pace = Pace()
    assert set(_run(pace, 0.0, 10) + _run(pace, 2.0, 0.2) + _run(pace, 0.0, 10)) == {1}


def test_who_stays_late_gets_fewer_words_in_the_making_and_has_them_back_later():
    pace = Pace()
    factors = _run(pace, 1.0, 60)
    assert factors[-1] == MOST
    assert factors == sorted(factors)
    changes = [n for n in range(1, len(factors)) if factors[n] != factors[n - 1]]
    assert all(b - a >= PATIENCE / STEP - 1 for a, b in pairwise(changes))
    assert _run(pace, 0.3, 60)[-1] == MOST, "neither late nor in time"
    relieved = _run(pace, 0.0, 10 * RELIEF)
    assert relieved == sorted(relieved, reverse=True)
    assert relieved[-1] == 1
