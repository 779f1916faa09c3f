"""Who is dead and who only slow, or unheard because it was us who slept."""

from ssasr.protocol.liveness import (
    CHECK_SECONDS,
    ENGINE,
    GATEWAY,
    PING_INTERVAL,
    SLACK,
    WORK_SECONDS,
    ClientLiveness,
    Liveness,
    Verdict,
)


def looks(
    liveness, seconds, *, received=lambda now: 0, messages=lambda now: 0, expecting=False, at=0
):
    """Every verdict that is not WELL, with its time."""
    found = []
    now = at
    while True:
        now += liveness.next_check_in(expecting=expecting)
        if now > at + seconds:
            return found
        verdict = liveness.check(now, received(now), messages(now), expecting=expecting)
        if verdict is not Verdict.WELL:
            found.append((now, verdict))


def test_a_silent_peer_that_owes_an_answer_is_dead_after_three_seconds_or_four():
    found = looks(Liveness(GATEWAY, 0.0), 5, expecting=True)
    assert found[0][1] is Verdict.ASK
    assert next(now for now, verdict in found if verdict is Verdict.SILENT) in (3, 4)


def test_one_that_owes_nothing_is_asked_seldom():
    liveness = Liveness(GATEWAY, 0.0)
    now, pongs = 0.0, 0
    while now < 1_000:
        now += liveness.next_check_in(expecting=False)
        verdict = liveness.check(now, pongs, 0, expecting=False)
        assert verdict in {Verdict.WELL, Verdict.ASK}
        pongs += verdict is Verdict.ASK
    assert 40 <= pongs <= 50
    silent = looks(liveness, 60, received=lambda now: -2, at=now)
    (asked, dead) = (next(now for now, v in silent if v is each) for each in Verdict if each in
                     (Verdict.ASK, Verdict.SILENT))  # fmt: skip
    assert dead - asked == GATEWAY.answer_idle


def test_work_that_comes_after_long_idleness_is_waited_for_no_longer():
    liveness = Liveness(GATEWAY, 0.0)
    assert liveness.next_check_in(expecting=False) == GATEWAY.ask_idle
    assert liveness.check(15.0, 1, 0, expecting=True) is Verdict.WELL
    found = looks(liveness, 10, received=lambda now: 1, expecting=True, at=15)
    assert next(now for now, verdict in found if verdict is Verdict.SILENT) <= 19


def test_an_engine_leaves_the_asking_to_the_gateway():
    assert ENGINE.ask_idle > GATEWAY.ask_idle + GATEWAY.answer_idle
    asked = looks(Liveness(ENGINE, 0.0), 500, received=lambda now: now // GATEWAY.ask_idle)
    assert asked == []


def test_a_peer_that_answers_pings_lives_for_ever():
    found = looks(Liveness(GATEWAY, 0.0), 100, received=lambda now: now // 3)
    assert {verdict for _, verdict in found} <= {Verdict.ASK}


def test_audio_keeps_a_peer_alive_without_a_ping():
    assert looks(Liveness(GATEWAY, 0.0), 100, received=lambda now: now) == []


def test_one_that_answers_pings_and_does_no_work_is_stuck():
    found = looks(Liveness(GATEWAY, 0.0), 40, received=lambda now: now, expecting=True)
    assert found[0][1] is Verdict.STUCK
    assert WORK_SECONDS <= found[0][0] <= WORK_SECONDS + 2


def test_a_slow_engine_is_not_stuck():
    found = looks(
        Liveness(GATEWAY, 0.0),
        100,
        received=lambda now: now,
        messages=lambda now: now // 10,
        expecting=True,
    )
    assert found == []


def test_owing_nothing_is_no_fault():
    assert looks(Liveness(GATEWAY, 0.0), 100, received=lambda now: now, expecting=False) == []


def test_a_process_that_was_stopped_buries_nobody():
    """The looks of a minute come late and all at once; the peer's bytes lie in the socket."""
    liveness = Liveness(GATEWAY, 0.0)
    assert looks(liveness, 2, received=lambda now: now, expecting=True) == []
    assert liveness.check(62.0, 2, 0, expecting=True) in {Verdict.WELL, Verdict.ASK}
    assert liveness.statistics().idle <= 2 * (CHECK_SECONDS + SLACK) + 2
    assert liveness.check(62.1, 2, 0, expecting=True) in {Verdict.WELL, Verdict.ASK}
    busy = {"received": lambda now: now, "messages": lambda now: now}
    assert looks(liveness, 20, **busy, expecting=True, at=62.1) == []
    assert liveness.statistics().quiet == 0.0


def test_a_clock_that_stands_still_counts_nothing():
    liveness = Liveness(GATEWAY, 5.0)
    for _ in range(100):
        assert liveness.check(5.0, 0, 0, expecting=True) is Verdict.WELL


# -- a client --------------------------------------------------------------------------------------


def pulse_looks(seconds, *, spoke=lambda now: 0, received=lambda now: 0, held=lambda now: False):
    """Every verdict on a client active at 0 that is not WELL, with its time."""
    liveness, found, now = ClientLiveness(0.0), [], PING_INTERVAL
    while now <= seconds:
        verdict = liveness.check(now, spoke(now), received(now), held_back=held(now))
        if verdict is not Verdict.WELL:
            found.append((now, verdict))
        if verdict is Verdict.SILENT:
            break
        now += liveness.next_check_in(now)
    return found


def test_a_client_that_is_silent_is_asked_and_dead_forty_seconds_later():
    assert pulse_looks(100) == [(20, Verdict.ASK), (60, Verdict.SILENT)]


def test_a_client_that_answers_is_asked_every_twenty_seconds():
    found = pulse_looks(101, received=lambda now: (now + 18) // 20)
    assert found == [(now, Verdict.ASK) for now in (20, 40, 60, 80, 100)]


def test_a_client_that_speaks_is_never_asked_and_then_after_twenty_seconds():
    assert pulse_looks(1_000, spoke=lambda now: now - 1, received=lambda now: now) == []
    spoke = {"spoke": lambda now: min(now, 50), "received": lambda now: min(now, 50)}
    assert pulse_looks(1_000, **spoke) == [(70, Verdict.ASK), (110, Verdict.SILENT)]


def test_a_client_that_is_held_back_is_not_given_up():
    assert pulse_looks(1_000, held=lambda now: True) == []
    found = pulse_looks(1_000, held=lambda now: 21 <= now < 300)
    assert found[0] == (20, Verdict.ASK)
    assert found[-1][1] is Verdict.SILENT
    assert found[-1][0] >= 300 + 40
