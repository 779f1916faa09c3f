"""What one audio message costs the gateway: CPU seconds, not wall time, so that a busy machine
matters little.

    python benchmarks/gateway_speed.py [--streams 40] [--seconds 20] [--parameters QUERY]
        [--engines 1] [--json FILE] [--idle N] [--profile FILE] [--label TEXT]

Gateway, nginx and scripted engine are processes of their own. The clients speak bursts of 32 ms,
three a second, in sentences of 4 s, 100 ms a message, which gives about three partials a second.
``--idle``: streams that open and send nothing. ``--profile``: py-spy's record of the gateway.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from random import Random

import numpy as np
import trio

sys.path.insert(0, str(Path(__file__).parents[1]))

from ssasr.bench.measure import collect, spread
from ssasr.bench.player import Target, play_all
from ssasr.bench.processes import usage
from ssasr.bench.recordings import MESSAGE_SECONDS, RATE, make_recording, make_tape
from ssasr.bench.report import machine
from ssasr.protocol.parameters import parse_parameters, turn_settings
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
    return [make_tape(recordings, seconds, MESSAGE_SECONDS, random) for _ in range(given.streams)]


async def measure(given, cluster, logs):
    """CPU of each process while all streams run."""
    await trio.sleep(SETTLE)
    pids = {"gateway": cluster.gateway.pid, **{e.name: e.pid for e in cluster.engines}}
    before = {name: usage(pid) for name, pid in pids.items()}
    started = trio.current_time()
    profiler = None
    if given.profile:
        command = ["py-spy", "record", "-d", str(int(given.seconds)), "-r", "200", "-g", "-f", "raw"]
        command += ["-o", given.profile, "-p", str(pids["gateway"])]
        binary = str(Path(sys.executable).parent / command[0])
        profiler = await trio.lowlevel.open_process([binary, *command[1:]])
    await trio.sleep(given.seconds)
    seconds = trio.current_time() - started
    after = {name: usage(pid) for name, pid in pids.items()}
    logs["seconds"] = seconds
    logs["cpu"] = {n: after[n].cpu_seconds - before[n].cpu_seconds for n in pids}
    logs["rss"] = {n: after[n].rss for n in pids}
    if profiler is not None:
        await profiler.wait()


async def speak(given, cluster):
    result = {}
    base = usage(cluster.gateway.pid).rss
    query = f"?{given.parameters}" if given.parameters else "?"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(measure, given, cluster, result)
        target = Target(cluster.url + query, KEY)
        logs = await play_all(target, tapes_for(given), spread=3.0, random=Random(given.seed))
    samples = collect(logs, turn_settings(parse_parameters(given.parameters)))
    messages = given.streams * result["seconds"] / MESSAGE_SECONDS
    cpu = result["cpu"]["gateway"]
    codes = {str(code): count for code, count in samples.codes.items()}
    return {
        "streams": given.streams,
        "gateway_us_per_message": round(cpu / messages * 1e6, 1),
        "sessions_per_core": round(given.streams * result["seconds"] / cpu),
        "engine_us_per_message": round(
            sum(v for n, v in result["cpu"].items() if n != "gateway") / messages * 1e6, 1
        ),
        "turn_messages_per_second": round(samples.received / samples.audio_seconds, 2),
        "rss_per_session_kib": round((result["rss"]["gateway"] - base) / given.streams / 1024),
        "codes": codes,
        "first_seen_p50_s": spread(samples.first_seen).p50,
        "finalization_p50_s": spread([latency for _, latency in samples.finalization]).p50,
        "client_late_p99_s": spread(samples.lateness).p99,
    }


async def idle(given, cluster):
    """Sessions that were opened and say nothing."""
    from ssasr.websocket import connect_websocket

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
    text = json.dumps(result, indent=1)
    print(text)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
