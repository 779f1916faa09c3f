"""What one audio message costs the gateway: CPU seconds, not wall time, so that a busy machine
matters little.

    python -m benchmarks.gateway_speed [--streams 40] [--seconds 20] [--parameters QUERY]
        [--engines 1] [--json FILE] [--idle N] [--profile FILE] [--label TEXT]

Gateway, nginx and scripted engine are processes of their own. The clients speak bursts of 32 ms,
three a second, in sentences of 4 s, 100 ms a message, which gives about three partials a second.
``--idle``: streams that open and send nothing. ``--profile``: py-spy's record of the gateway.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import numpy as np
import trio

from benchmarks.conditions import publish
from ssasr.bench.measure import collect, spread
from ssasr.bench.player import Target, play_all
from ssasr.bench.processes import usage
from ssasr.bench.recordings import MESSAGE_SECONDS, RATE, make_recording, make_track
from ssasr.bench.report import machine
from ssasr.protocol.parameters import parse_parameters
from ssasr.protocol.settings import turn_settings
from tests.harness.cluster import ClusterConfig, run_cluster

SETTLE = 6.0
"""Seconds from the first stream to the measurement."""
BURST = 512
BURSTS_A_SECOND = 3
KEY = "self-hosted"


def bursts(seconds, seed):
    """float32 (n,)"""
    noise = np.random.default_rng(seed)
    samples = np.zeros(int(seconds * RATE), np.float32)
    for index in range(int(seconds * BURSTS_A_SECOND)):
        start = index * RATE // BURSTS_A_SECOND
        samples[start : start + BURST] = noise.normal(0, 0.1, BURST)
    return samples


def tapes_for(given):
    random = Random(given.seed)
    recordings = [make_recording(str(i), bursts(4, i), gap=1.6) for i in range(8)]
    seconds = SETTLE + given.seconds + 3
    return [make_track(recordings, seconds, MESSAGE_SECONDS, random) for _ in range(given.streams)]


def pids_of(cluster):
    return {"gateway": cluster.gateway.pid, **{e.name: e.pid for e in cluster.engines}}


async def profile(given, cluster):
    """py-spy's record of the gateway while all streams run."""
    await trio.sleep(SETTLE)
    command = ["record", "-d", str(int(given.seconds)), "-r", "200", "-g", "-f", "raw"]
    command += ["-o", given.profile, "-p", str(cluster.gateway.pid)]
    await trio.run_process([str(Path(sys.executable).parent / "py-spy"), *command])


async def speak(given, cluster):
    """CPU over whole sessions, from before the first to after the last: whatever the clients sent
    has then been heard, also when the machine was too busy to keep up."""
    pids = pids_of(cluster)
    before = {name: usage(pid) for name, pid in pids.items()}
    calibration = [calibrate()]
    query = f"?{given.parameters}" if given.parameters else "?"
    rss = []
    async with trio.open_nursery() as nursery:
        if given.profile:
            nursery.start_soon(profile, given, cluster)
        nursery.start_soon(watch_memory, pids["gateway"], rss, nursery)
        target = Target(cluster.url + query, KEY)
        tracks = tapes_for(given)
        logs = await play_all(target, tracks, spread=3.0, random=Random(given.seed))
        nursery.cancel_scope.cancel()
    calibration.append(calibrate())
    cpu = {name: usage(pid).cpu_seconds - before[name].cpu_seconds for name, pid in pids.items()}
    samples = collect(logs, turn_settings(parse_parameters(given.parameters)))
    metrics = await cluster.metrics()
    failovers = sum(v for n, v in metrics.items() if n.startswith("ssasr_failovers_total"))
    each = {name: seconds / samples.messages for name, seconds in cpu.items()}
    return {
        "streams": given.streams,
        "gateway_us_per_message": round(each["gateway"] * 1e6, 1),
        "sessions_per_core": round(MESSAGE_SECONDS / each["gateway"]),
        "engine_us_per_message": round(sum(each.values()) * 1e6 - each["gateway"] * 1e6, 1),
        "calibration_us": [round(value * 1e6) for value in calibration],
        "turn_messages_per_second": round(samples.received / samples.audio_seconds, 2),
        "rss_per_session_kib": round((max(rss) - before["gateway"].rss) / given.streams / 1024),
        "failovers": failovers,
        "codes": {str(code): count for code, count in samples.codes.items()},
        "first_seen_p50_s": spread(samples.first_seen).p50,
        "client_late_p99_s": spread(samples.lateness).p99,
    }


def calibrate():
    """CPU seconds of a fixed piece of Python: what a core is worth just now."""
    best = 1.0
    for _ in range(5):
        started = time.thread_time()
        sum(i * i for i in range(20_000))
        best = min(best, time.thread_time() - started)
    return best


async def watch_memory(pid, rss, nursery):
    while True:
        rss.append(usage(pid).rss)
        await trio.sleep(1)


async def idle(given, cluster):
    """Sessions that were opened and say nothing."""
    from ssasr.net.websocket_client import connect_websocket

    async with trio.open_nursery() as nursery:
        for _ in range(given.idle):
            await nursery.start(_hold, connect_websocket, cluster.url)
        await trio.sleep(3)
        before = usage(cluster.gateway.pid)
        await trio.sleep(given.seconds)
        after = usage(cluster.gateway.pid)
        nursery.cancel_scope.cancel()
    share = (after.cpu_seconds - before.cpu_seconds) / given.seconds
    return {
        "idle_sessions": given.idle,
        "gateway_cores": round(share, 4),
        "per_1000_sessions": round(share * 1_000 / given.idle, 4),
    }


async def _hold(connect, url, *, task_status):
    async with connect(url, headers=[(b"Authorization", KEY.encode())]) as websocket:
        await websocket.get_message()
        task_status.started()
        await trio.sleep_forever()


async def run(given):
    options = ["--model", "english", "--engine-kind", "scripted", "--max-streams", "2000"]
    with tempfile.TemporaryDirectory(prefix="ssasr-speed-") as folder:
        config = ClusterConfig(
            Path(folder), given.engines, options, gateway_options=["--max-sessions", "3000"]
        )
        async with run_cluster(config) as cluster:
            return await (idle if given.idle else speak)(given, cluster)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--engines", type=int, default=1)
    parser.add_argument("--parameters", default="")
    parser.add_argument("--idle", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile")
    parser.add_argument("--label", default="")
    given = parser.parse_args()
    about = machine()
    command = " ".join(["python", *sys.argv])
    result = {"label": given.label, "command": command, **about, **trio.run(run, given)}
    publish(result, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
