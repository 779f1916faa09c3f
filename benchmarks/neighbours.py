"""What running sessions notice of a neighbour that misbehaves.

    python -m benchmarks.neighbours refused|deaf [--streams 10] [--seconds 30] [--json FILE]

``refused``: the engine is full, and clients come in vain five times a second. ``deaf``: one client
sends as fast as it is let and never reads. Real processes, nginx in between, the scripted engine.
The same streams run twice, without the neighbour and with it.
"""

import argparse
import socket
import sys
import tempfile
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import trio

from benchmarks.conditions import publish
from ssasr.bench.frames import handshake
from ssasr.bench.measure import collect, spread
from ssasr.bench.player import Player, StreamLog, Target, play_all
from ssasr.bench.processes import usage
from ssasr.bench.recordings import MESSAGE_SECONDS, make_recording, make_track
from ssasr.bench.report import machine
from ssasr.protocol.parameters import parse_parameters, turn_settings
from tests.harness.cluster import ClusterConfig, run_cluster
from tests.harness.fault_run import speech

KEY = "self-hosted"
EVERY = 0.2
"""Seconds between two clients that come in vain."""
RECEIVE_BUFFER = 4_096
"""Bytes the deaf client's kernel holds, so that it is the gateway that has to."""


def tracks(given, seed):
    random = Random(seed)
    recordings = [make_recording(str(n), speech(10, random), gap=1.5) for n in range(6)]
    return [
        make_track(recordings, given.seconds, MESSAGE_SECONDS, random) for _ in range(given.streams)
    ]


async def streams(given, cluster, neighbour=None):
    """Word lag and finalization of the streams, with the neighbour for as long as they run."""
    async with trio.open_nursery() as nursery:
        if neighbour is not None:
            nursery.start_soon(neighbour)
        target = Target(cluster.url, KEY)
        logs = await play_all(target, tracks(given, 1), spread=1.0, random=Random(1))
        nursery.cancel_scope.cancel()
    samples = collect(logs, turn_settings(parse_parameters("")))
    lag = spread(samples.first_seen)
    final = spread([latency for _, latency in samples.finalization])
    return {
        "codes": {str(code): count for code, count in samples.codes.items()},
        "words": samples.words,
        "lag_p50": lag.p50,
        "lag_p95": lag.p95,
        "finalization_p95": final.p95,
    }


async def in_vain(cluster, seen):
    """Clients that find the engine full: seconds from the call to the close frame, and the code."""
    await trio.sleep(3)
    track = tracks(argparse.Namespace(streams=1, seconds=1), 2)[0]
    while True:
        log = StreamLog(track)
        started = trio.current_time()
        await Player(Target(cluster.url, KEY), log).play()
        seen.append((trio.current_time() - started, log.code))
        await trio.sleep(EVERY)


async def deaf(cluster, seen):
    """Never reads, until the gateway has had enough."""
    await trio.sleep(3)
    url = urlsplit(cluster.url)
    own = trio.socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    await own.connect(("127.0.0.1", url.port))
    stream = trio.SocketStream(own)
    key = b"0123456789abcdef"
    await stream.send_all(handshake(url.netloc, f"{url.path}?", key, {"Authorization": KEY}))
    (track,) = tracks(argparse.Namespace(streams=1, seconds=120), 3)
    started = trio.current_time()
    try:
        while True:
            for each in track.frames:
                await stream.send_all(each)
                seen["sent"] += MESSAGE_SECONDS
    except trio.BrokenResourceError:
        seen["given_up_after"] = trio.current_time() - started
    await trio.sleep_forever()


async def closes(cluster):
    found = await cluster.metrics()
    return {
        name: value for name, value in found.items() if name.startswith("ssasr_session_ends_total")
    }


async def refused(given, cluster):
    alone = await streams(given, cluster)
    seen = []
    beside = await streams(given, cluster, lambda: in_vain(cluster, seen))
    took = spread([seconds for seconds, _ in seen])
    codes = sorted({code for _, code in seen})
    return {
        "neighbour": "refused", "alone": alone, "beside": beside,
        "refusals": took.count, "refusal_codes": codes,
        "refusal_p50": took.p50, "refusal_p95": took.p95,
    }  # fmt: skip


async def unread(given, cluster):
    alone = await streams(given, cluster)
    before, closed = usage(cluster.gateway.pid).rss, await closes(cluster)
    seen, peak = {"sent": 0.0}, [before]

    async def watch():
        while True:
            await trio.sleep(0.5)
            peak.append(usage(cluster.gateway.pid).rss)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        beside = await streams(given, cluster, lambda: deaf(cluster, seen))
        nursery.cancel_scope.cancel()
    new = {name: v - closed.get(name, 0) for name, v in (await closes(cluster)).items()}
    return {
        "neighbour": "deaf", "alone": alone, "beside": beside,
        "gateway_growth_mib": round((max(peak) - before) / 2**20, 2),
        "audio_taken_s": round(seen["sent"]), "given_up_after_s": seen.get("given_up_after"),
        "closes": {name: value for name, value in new.items() if value},
    }  # fmt: skip


async def run(given):
    room = given.streams + (given.neighbour == "deaf")
    options = ["--model", "english", "--engine-kind", "scripted", "--max-streams", room]
    with tempfile.TemporaryDirectory(prefix="ssasr-neighbours-") as folder:
        config = ClusterConfig(Path(folder), 1, options)
        async with run_cluster(config) as cluster:
            return await {"refused": refused, "deaf": unread}[given.neighbour](given, cluster)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("neighbour", choices=["refused", "deaf"])
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    before = machine()
    result = {"command": " ".join(["python", *sys.argv]), **before, **trio.run(run, given)}
    publish(result, given.json)


if __name__ == "__main__":
    main()
