"""The work of a FastConformer in units: timed with its own program, and asked for by chunks."""

import pytest

from ssasr.engine.capacity import CapacityMeter, streams_within
from ssasr.engine.fastconformer.workload import demand, workload


def test_every_unit_is_timed_and_streams_are_offered(english, make_recognizer):
    recognizer = make_recognizer(english[1], 7)
    work = workload(recognizer._runner, recognizer._layout, 5)
    meter = CapacityMeter(work)
    assert 1 <= meter.measure() <= 5
    assert all(took > 0 for took in meter.seconds.values())
    for amounts in (work.demand(3), work.ending, work.blocking):
        assert set(amounts) <= set(work.units)
    assert recognizer.statistics().free_slots == recognizer.statistics().slots


def cost(streams, chunk, alone=0.1, together=0.2):
    asked = demand(streams, chunk, 4)
    return asked["alone"] * alone + asked["together"] * together


def test_a_stream_in_company_costs_less_and_all_of_them_more():
    for chunk in (0.08, 0.56, 1.12):
        costs = [cost(streams, chunk) for streams in range(1, 40)]
        assert costs == sorted(costs)
        shares = [total / streams for streams, total in enumerate(costs, 1)]
        assert shares == pytest.approx(sorted(shares, reverse=True))
    assert cost(8, 0.56) == pytest.approx(2 * cost(8, 1.12))


def test_longer_chunks_carry_more_streams(english, make_recognizer):
    recognizer = make_recognizer(english[1], 2)
    short = workload(recognizer._runner, recognizer._layout, 100)
    recognizer = make_recognizer(english[1], 7)
    long = workload(recognizer._runner, recognizer._layout, 100)
    seconds = {"alone": 0.03, "together": 0.06}
    assert streams_within(short, seconds) < 6 <= streams_within(long, seconds)


def test_steps_side_by_side_share_the_streams():
    """Each has a worker: as many times the streams cost as many times as much."""
    for streams in (3, 8, 20):
        for kind, amount in demand(streams, 0.56, 4).items():
            assert demand(2 * streams, 0.56, 4, workers=2)[kind] == pytest.approx(2 * amount)
