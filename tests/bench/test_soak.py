"""``ssasr bench --soak`` and ``--neighbours``: what they count, and short runs of each."""

import subprocess
import sys
from random import Random

import pytest
import trio

from ssasr.bench import growth, neighbours, soak
from ssasr.bench.growth import READ_EVERY, ProcessWatch, Reading, blocks, theil_sen
from ssasr.bench.processes import Usage
from ssasr.bench.report import neighbour_as_json, soak_as_json
from ssasr.bench.run import BenchConfig
from ssasr.bench.server_metrics import session_ends
from ssasr.errors import SsasrError
from tests.harness.fault_run import noise_recordings
from tests.harness.processes import server

SCRIPTED = ("--engines", "english", "--engine-kind", "scripted")
ENDS = 'ssasr_session_ends_total{cause="%s",limit=""}'


def readings(seconds, rss):
    times = [n * READ_EVERY for n in range(int(seconds / READ_EVERY))]
    return [Reading(at, Usage(at / 10, round(rss(at))), 8, 2) for at in times]


def test_a_steady_growth_is_found_behind_the_warm_up():
    grows = readings(3_600, lambda at: 50e6 + 3e6 * min(at, 600) + 1_000 * at)
    found = growth.growth(grows, 3_600)
    assert found.slope_mib_per_hour == pytest.approx(3_600_000 / 2**20, abs=0.01)
    assert found.slope_95 == (found.slope_mib_per_hour, found.slope_mib_per_hour)
    assert found.cores == pytest.approx(0.1)


def test_a_short_run_has_no_slope():
    found = growth.growth(readings(30, lambda at: 50e6), 30)
    assert found.slope_mib_per_hour is None
    assert (found.rss_mib_before, found.fds_after) == (47.7, 8)


def test_memory_after_the_load_is_in_no_block():
    assert blocks(readings(3_600, lambda at: at), 1_800)[-1][0] < 0.5


def test_the_interval_holds_the_slope_and_grows_with_the_noise():
    random = Random(1)
    points = [(x, 2.0 * x + random.gauss(0, 1)) for x in range(20)]
    slope, low, high = theil_sen(points)
    assert low < slope < high
    assert low < 2.0 < high
    _, lower, higher = theil_sen([(x, 2.0 * x + 10 * (y - 2.0 * x)) for x, y in points])
    assert higher - lower > 5 * (high - low)


async def test_a_process_that_ends_meanwhile_is_reported():
    command = [sys.executable, "-c", "input()"]
    program = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE)
    watch = ProcessWatch(lambda: [program.pid])
    watch.read()
    assert watch.gone() == []
    program.kill()
    await program.wait()
    assert len(watch.gone()) == 1


def test_ends_are_counted_between_two_readings():
    before = {ENDS % "terminated": 4.0, "ssasr_sessions": 1.0}
    after = {ENDS % "terminated": 6.0, ENDS % "internal": 1.0, "ssasr_sessions": 0.0}
    assert session_ends(before, after) == {"terminated": 2.0, "internal": 1.0}
    assert session_ends(None, after) is None


def run(**endings):
    found = soak.SoakRun(BenchConfig("ws://x", "key", 1, 1.0, 1.0), [], None)
    found.endings.update({name.replace("_", " "): count for name, count in endings.items()})
    return found


def test_closes_that_no_client_meant_are_named():
    met = run(terminate=3, close=1, vanish=2, fall_silent=1)
    counted = {"terminated": 3.0, "client_closed": 2.0, "client_vanished": 1.0, "inactive": 1.0}
    assert met.unexplained(counted) == []
    assert met.unexplained(None) == []
    found = met.unexplained({**counted, "terminated": 2.0, "engine_lost": 1.0})
    assert found == ["terminated: the gateway counted 2, meant 3", "engine_lost: 1"]


def config_for(port, streams):
    return BenchConfig(f"ws://127.0.0.1:{port}/v3/ws", "self-hosted", streams, 1.0, 1.0)


@pytest.mark.slow
async def test_a_soak_explains_every_close(monkeypatch):
    monkeypatch.setattr(soak, "SHORTEST", 3.0)
    monkeypatch.setattr(soak, "LONGEST", 4.0)
    monkeypatch.setattr(soak, "IDLE_SECONDS", 1.0)
    monkeypatch.setattr(growth, "READ_EVERY", 0.5)
    with server(*SCRIPTED) as (_, port):
        recordings = noise_recordings(1, 3.0)
        outcome = await soak.soak(config_for(port, 8), recordings, 0.02, lambda _: None)
    assert outcome.unexplained == []
    assert outcome.sessions >= 8
    assert sum(outcome.ends.values()) == outcome.sessions
    (process,) = soak_as_json(outcome)["processes"].values()
    assert process["fds_most"] > process["fds_after"]


@pytest.mark.slow
async def test_streams_notice_nothing_of_clients_beyond_capacity(monkeypatch):
    monkeypatch.setattr(neighbours, "FIRST", 2.0)
    recordings = noise_recordings(1, 4.0)
    with server(*SCRIPTED, "--max-sessions", "2") as (_, port):
        outcome = await neighbours.bench_with_neighbour(config_for(port, 2), recordings, "refused")
        with pytest.raises(SsasrError, match="room for more than 1"):
            await neighbours.bench_with_neighbour(config_for(port, 1), recordings, "refused")
    assert outcome.harmless
    found = neighbour_as_json(outcome)
    assert found["refusals"] >= 1
    assert found["refusal_codes"] == [3_009]
    assert found["closes"]["too_many_sessions"] == found["refusals"]


@pytest.mark.slow
async def test_a_client_that_never_reads_is_measured(monkeypatch):
    monkeypatch.setattr(neighbours, "FIRST", 0.2)
    with server(*SCRIPTED) as (_, port):
        found = neighbour_as_json(
            await neighbours.bench_with_neighbour(
                config_for(port, 2), noise_recordings(1, 2.0), "deaf"
            )
        )
    assert found["beside"]["codes"] == {"1000": 2}
    assert found["audio_taken_s"] > 0
    assert found["gateway_growth_mib"] >= 0
