"""Heartbeat contents."""

from ssasr.protocol.messages import Heartbeat
from ssasr.session.heartbeat import HeartbeatLog


def test_a_beat_sums_up_and_starts_anew():
    log = HeartbeatLog(began=100.0)
    log.update((0.2, 0.9))
    log.update(())
    assert log.beat(160_000, 80_000, 105.0) == Heartbeat(10_000, 5_000, 2.0, 0.9, 5_000)
    assert log.beat(160_000, 160_000, 110.0) == Heartbeat(10_000, 10_000, 1.0, 0.0, 10_000)


def test_at_the_very_start():
    assert HeartbeatLog(5.0).beat(0, 0, 5.0) == Heartbeat(0, 0, 0.0, 0.0, 0)
