"""Who is dead and who only slow, or unheard because it was us who slept."""

from ssasr.protocol.liveness import (
    ANSWER_SECONDS,
    LOOK_SECONDS,
    PING_AFTER,
    WORK_SECONDS,
    Liveness,
    Verdict,
)


def looks(liveness, seconds, *, received=lambda now: 0, messages=lambda now: 0, owing=False, at=0):
    """Every verdict that is not WELL, with its time."""
    found = []
    now = at
    while now < at + seconds:
        now += LOOK_SECONDS
        verdict = liveness.look(now, received(now), messages(now), owing=owing)
        if verdict is not Verdict.WELL:
            found.append((now, verdict))
    return found


def test_a_silent_peer_is_asked_and_then_dead():
    found = looks(Liveness(0.0), 20)
    assert found[0] == (3, Verdict.ASK)
    dead = [now for now, verdict in found if verdict is Verdict.SILENT]
    assert PING_AFTER + ANSWER_SECONDS <= dead[0] <= PING_AFTER + ANSWER_SECONDS + 2


def test_a_peer_that_answers_pings_lives_for_ever():
    found = looks(Liveness(0.0), 100, received=lambda now: now // 3)
    assert {verdict for _, verdict in found} <= {Verdict.ASK}


def test_audio_keeps_a_peer_alive_without_a_ping():
    assert looks(Liveness(0.0), 100, received=lambda now: now) == []


def test_one_that_answers_pings_and_does_no_work_is_stuck():
    found = looks(Liveness(0.0), 40, received=lambda now: now, owing=True)
    assert found[0][1] is Verdict.STUCK
    assert WORK_SECONDS <= found[0][0] <= WORK_SECONDS + 2


def test_a_slow_engine_is_not_stuck():
    found = looks(
        Liveness(0.0), 100, received=lambda now: now, messages=lambda now: now // 10, owing=True
    )
    assert found == []


def test_owing_nothing_is_no_fault():
    assert looks(Liveness(0.0), 100, received=lambda now: now, owing=False) == []


def test_a_process_that_was_stopped_buries_nobody():
    """The looks of a minute come late and all at once; the peer's bytes lie in the socket."""
    liveness = Liveness(0.0)
    assert looks(liveness, 2, received=lambda now: now) == []
    assert liveness.look(62.0, 2, 0, owing=True) in {Verdict.WELL, Verdict.ASK}
    assert liveness.look(62.1, 2, 0, owing=True) in {Verdict.WELL, Verdict.ASK}
    assert looks(liveness, 20, received=lambda now: now, messages=lambda now: now, at=62.1) == []
    assert liveness.statistics().quiet == 0.0


def test_a_clock_that_stands_still_counts_nothing():
    liveness = Liveness(5.0)
    for _ in range(100):
        assert liveness.look(5.0, 0, 0, owing=True) is Verdict.WELL
