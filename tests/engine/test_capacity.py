"""How many streams are offered for what the work takes."""

import itertools

import pytest

from ssasr.engine import capacity
from ssasr.engine.capacity import CapacityMeter, Unit, Workload, streams_within
from ssasr.runtime.processors import cores

DECODE = {"decode": 1.0}


def workload(workers=2, most=1_000, run=lambda: None):
    """A decode a second on each stream, and one when a turn ends."""
    return Workload(
        {"decode": Unit(run)}, workers, lambda streams: {"decode": streams}, DECODE, DECODE, most
    )


def test_more_is_offered_for_faster_work_and_for_more_workers():
    offered = [streams_within(workload(2), {"decode": took}) for took in (0.3, 0.1, 0.05, 0.02)]
    assert offered == sorted(set(offered))
    assert offered[0] >= 1
    by_workers = [streams_within(workload(workers), {"decode": 0.1}) for workers in (1, 2, 4, 8)]
    assert by_workers == sorted(set(by_workers))


def test_no_more_than_there_is_room_for_and_one_at_least():
    assert streams_within(workload(most=7), {"decode": 1e-4}) == 7
    assert streams_within(workload(), {"decode": 60.0}) == 1


def test_a_number_that_loads_more_than_a_larger_one_does_not_end_the_search():
    """As where words in the making come half as often from five streams on."""
    some = Workload(
        {}, 2, lambda streams: {"decode": streams * (2 if streams > 4 else 4)}, DECODE, DECODE, 6
    )
    for took, offered in ((0.02, 6), (0.09, 6), (0.1, 6), (0.11, 6), (0.12, 3)):
        assert streams_within(some, {"decode": took}) == offered, took


def test_the_end_of_a_turn_stays_within_the_bound():
    for workers, took in itertools.product((1, 2, 4), (0.05, 0.1, 0.3)):
        streams = streams_within(workload(workers), {"decode": took})
        load = streams * (took + capacity.BESIDE)
        assert load <= capacity.MOST_LOAD * workers
        p95 = capacity.end_of_turn(workload(workers), {"decode": took}, streams, load)
        assert p95 <= capacity.BOUND or streams == 1


def test_how_often_all_workers_are_busy():
    assert capacity.waiting_share(1, 0.6) == pytest.approx(0.6)  # one server: its load
    assert capacity.waiting_share(2, 1.0) == pytest.approx(1 / 3)  # Erlang's tables
    assert capacity.waiting_share(5, 4.0) == pytest.approx(0.554, abs=1e-3)


def test_a_busy_start_does_not_count_for_ever(monkeypatch):
    found = iter([{"decode": 0.4}, {"decode": 0.1}, {"decode": 0.9}])
    monkeypatch.setattr(capacity, "unit_seconds", lambda _: next(found))
    meter = CapacityMeter(workload())
    busy, idle, again = (meter.measure() for _ in range(3))
    assert busy < idle == again
    assert meter.seconds == {"decode": 0.1}


def test_units_are_timed_by_what_they_take_of_a_processor(monkeypatch):
    clock = itertools.count(0.0, 0.25)
    monkeypatch.setattr(capacity, "thread_time", lambda: next(clock))
    runs = []
    some = Workload({"audio": Unit(lambda: runs.append(0), amount=5.0)}, 1, lambda _: {}, {}, {})
    assert capacity.unit_seconds(some) == {"audio": pytest.approx(0.05)}
    assert len(runs) == 1 + capacity.REPEATS, "the first one may plan and allocate"


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", None), ("150000 100000", 1), ("50000 100000", 1), ("", None)],
)
def test_cores_are_what_the_container_may_use(tmp_path, quota, expected):
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert cores(file) == (expected or cores(tmp_path / "none"))
    assert cores(tmp_path / "none") >= 1
