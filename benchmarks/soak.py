"""Hours of churn at a fixed share of capacity: does anything grow, does any session end otherwise
than its client meant it to?

    python -m benchmarks.soak [--minutes 60] [--capacity 20] [--share 0.8] [--json FILE]

Gateway, nginx and scripted engine are processes of their own; capacity is the engine's
``--max-streams``, so that it costs little CPU. ``capacity * share`` clients speak in real time,
20 to 60 s each, all begun at random moments; each ends in one of four ways and the next one takes
its place at once. Every 10 s memory, file descriptors and threads of each process are read.

Memory is judged by the medians of blocks of two minutes, without the first ten minutes (a fifth of
a shorter run) and the end, when clients leave for good: the Theil-Sen slope and its 95 % confidence
interval from Kendall's rank statistic, which asks nothing of how the noise is distributed.
"""

import argparse
import json
import math
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from statistics import NormalDist, median

import numpy as np
import trio
from attrs import define, field

from ssasr.bench.frames import CLOSE, encode_frame
from ssasr.bench.player import NO_CLOSE, TERMINATE, Player, StreamLog, Target
from ssasr.bench.processes import usage
from ssasr.bench.recordings import RATE, make_recording, make_track
from ssasr.bench.report import machine
from tests.harness.cluster import ClusterConfig, run_cluster

KEY = "self-hosted"
MESSAGE_SECONDS = 0.25
SHORTEST, LONGEST = 20.0, 60.0
"""Seconds of audio of a session."""
INACTIVITY = 5
"""Seconds; the least that the protocol allows."""
READ_EVERY = 10.0
BLOCK = 120.0
WARM_UP = 600.0
ENDINGS = {
    "terminate": (0.6, 1_000, {"terminated"}),
    "close": (0.15, 1_000, {"client_closed"}),
    "vanish": (0.15, NO_CLOSE, {"client_closed", "client_vanished"}),
    "fall silent": (0.1, 3_006, {"inactive"}),
}
"""How a session ends: how often, the close code that its client sees, the causes that the gateway
may count for it."""


@define(eq=False, kw_only=True)
class Visitor(Player):
    """One session, and how it ends."""

    ending: str

    async def _speak(self):
        await self._begun.wait()
        self._speaking = True
        try:
            await self._send_track()
            await self._leave()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.log.problem = self.log.problem or str(error)
        self._speaking = False
        self.log.ended = trio.current_time()

    async def _leave(self):
        if self.ending == "terminate":
            await self._stream.send_all(TERMINATE)
        elif self.ending == "close":
            await self._stream.send_all(encode_frame(CLOSE, b"\x03\xe8"))
        elif self.ending == "vanish":
            await trio.aclose_forcefully(self._stream)

    def complaint(self):
        """What was not as it should be; "" if nothing."""
        _, code, _ = ENDINGS[self.ending]
        if self.log.code != code:
            return f"{self.ending}: closed with {self.log.code} ({self.log.problem})"
        said_so = b'"Termination"' in (self.log.arrivals[-1][1] if self.log.arrivals else b"")
        if said_so != (self.ending == "terminate"):
            return f"{self.ending}: {'a' if said_so else 'no'} Termination"
        if sum(b'"Turn"' in text for _, text in self.log.arrivals) < 3:
            return f"{self.ending}: hardly any words"
        return ""


@define(eq=False)
class Crowd:
    """Everybody who came."""

    url: str
    recordings: list
    random: Random
    endings: Counter = field(factory=Counter)
    codes: Counter = field(factory=Counter)
    complaints: list = field(factory=list)
    audio_seconds: float = 0.0

    async def keep_place(self, until):
        """One visitor after the other."""
        await trio.sleep(self.random.uniform(0, LONGEST))
        while trio.current_time() < until:
            await self.visit()

    async def visit(self):
        weights = [share for share, _, _ in ENDINGS.values()]
        (ending,) = self.random.choices(list(ENDINGS), weights)
        seconds = self.random.uniform(SHORTEST, LONGEST)
        track = make_track(self.recordings, seconds, MESSAGE_SECONDS, self.random)
        query = f"inactivity_timeout={INACTIVITY}" if ending == "fall silent" else ""
        visitor = Visitor(Target(f"{self.url}?{query}", KEY), StreamLog(track), ending=ending)
        await visitor.play()
        self.endings[ending] += 1
        self.codes[visitor.log.code] += 1
        self.audio_seconds += visitor.log.sent * MESSAGE_SECONDS
        if complaint := visitor.complaint():
            self.complaints.append(complaint)

    def unexplained(self, metrics):
        """Of what the gateway counted, whatever no visitor meant."""
        counted = Counter()
        for name, value in metrics.items():
            if found := re.match(r'ssasr_session_ends_total\{cause="(\w+)"', name):
                counted[found[1]] += int(value)
        problems = list(self.complaints)
        for cause in ("terminated", "inactive"):
            meant = sum(n for e, n in self.endings.items() if cause in ENDINGS[e][2])
            if counted[cause] != meant:
                problems.append(f"{cause}: the gateway counted {counted[cause]}, meant {meant}")
        gone = self.endings["close"] + self.endings["vanish"]
        if counted["client_closed"] + counted["client_vanished"] != gone:
            problems.append(f"left: the gateway counted {dict(counted)}, meant {gone}")
        expected = {cause for _, _, causes in ENDINGS.values() for cause in causes}
        problems += [f"{c}: {n}" for c, n in counted.items() if c not in expected]
        return problems


# -- processes -------------------------------------------------------------------------------------


def processes_of(cluster):
    """Name to process id."""
    found = {"gateway": cluster.gateway.pid, "engine": cluster.engines[0].pid}
    found["nginx master"] = master = cluster.nginx.pid
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    for index, child in enumerate(children, 1):
        found[f"nginx worker {index}"] = int(child)
    return found


def reading(pid):
    """Memory in bytes, file descriptors, threads."""
    folder = Path(f"/proc/{pid}")
    fds = sum(1 for _ in (folder / "fd").iterdir())
    threads = sum(1 for _ in (folder / "task").iterdir())
    return {"rss": usage(pid).rss, "fds": fds, "threads": threads}


async def watch(processes, series):
    """Cancelled at the end. Raises AttributeError if a process has gone."""
    started = trio.current_time()
    while True:
        now = round(trio.current_time() - started, 1)
        for name, pid in processes.items():
            series[name].append({"at": now, **reading(pid)})
        await trio.sleep(READ_EVERY)


# -- memory ----------------------------------------------------------------------------------------


def blocks(samples, minutes):
    """(hours, median bytes) of each whole block."""
    skip, length = min(WARM_UP, minutes * 12), min(BLOCK, minutes * 6)
    kept = {}
    for sample in samples:
        if skip <= sample["at"] < minutes * 60:
            kept.setdefault(int((sample["at"] - skip) // length), []).append(sample["rss"])
    full = [index for index, values in kept.items() if len(values) >= length / READ_EVERY * 0.7]
    return [((skip + (i + 0.5) * length) / 3_600, median(kept[i])) for i in full]


def theil_sen(points):
    """Slope in bytes an hour and its 95 % interval (Sen 1968); None with less than four points."""
    count = len(points)
    if count < 4:
        return None
    slopes = sorted(
        (b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(points) for b in points[i + 1 :]
    )
    spread = NormalDist().inv_cdf(0.975) * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, math.floor((len(slopes) - spread) / 2))
    high = min(len(slopes) - 1, math.ceil((len(slopes) + spread) / 2))
    return [median(slopes), slopes[low], slopes[high]]


def summary(name, samples, minutes, idle):
    points = blocks(samples, minutes)
    slope = theil_sen(points)
    return {
        "rss_mib_before": round(samples[0]["rss"] / 2**20, 1),
        "rss_mib_after_warm_up": round(points[0][1] / 2**20, 2) if points else None,
        "rss_mib_last_block": round(points[-1][1] / 2**20, 2) if points else None,
        "rss_mib_most": round(max(s["rss"] for s in samples) / 2**20, 1),
        "slope_mib_per_hour": slope and round(slope[0] / 2**20, 2),
        "slope_95": slope and [round(value / 2**20, 2) for value in slope[1:]],
        "fds_before": samples[0]["fds"],
        "fds_most": max(s["fds"] for s in samples),
        "fds_after": idle["fds"],
        "threads_before": samples[0]["threads"],
        "threads_most": max(s["threads"] for s in samples),
        "threads_after": idle["threads"],
    }


# -- the run ---------------------------------------------------------------------------------------


def sentences():
    """What visitors say: noise in bursts of 4 s, which the scripted engine hears as words."""
    made = []
    for index in range(6):
        samples = np.random.default_rng(index).normal(0, 0.1, 4 * RATE).astype(np.float32)
        made.append(make_recording(str(index), samples, gap=3, message_seconds=MESSAGE_SECONDS))
    return made


async def soak(given, cluster):
    processes = processes_of(cluster)
    series = {name: [] for name in processes}
    before = {name: usage(pid).cpu_seconds for name, pid in processes.items()}
    crowd = Crowd(cluster.url, sentences(), Random(given.seed))
    started = trio.current_time()
    async with trio.open_nursery() as watching:
        watching.start_soon(watch, processes, series)
        async with trio.open_nursery() as visiting:
            for _ in range(given.streams):
                visiting.start_soon(crowd.keep_place, started + given.minutes * 60)
        watching.cancel_scope.cancel()
    seconds = trio.current_time() - started
    cpu = {n: (usage(p).cpu_seconds - before[n]) / seconds for n, p in processes.items()}
    await trio.sleep(20)  # idle HTTP connections of the readiness checks are closed by now
    metrics = await cluster.metrics()
    unexplained = crowd.unexplained(metrics)
    every = [cluster.gateway, cluster.nginx, *cluster.engines]
    return {
        "soak_minutes": given.minutes,
        "capacity": given.capacity,
        "streams": given.streams,
        "sessions": crowd.endings.total(),
        "endings": dict(crowd.endings),
        "codes": {str(code): count for code, count in sorted(crowd.codes.items())},
        "unexplained_closes": len(unexplained),
        "unexplained": unexplained,
        "sessions_left": metrics["ssasr_sessions"],
        "failovers": sum(v for n, v in metrics.items() if n.startswith("ssasr_failovers_total")),
        "restarts": sum(process.starts - 1 for process in every),
        "audio_hours": round(crowd.audio_seconds / 3_600, 2),
        "cores": {name: round(value, 3) for name, value in cpu.items()},
        "processes": {
            name: summary(name, samples, given.minutes, reading(processes[name]))
            for name, samples in series.items()
        },
        "rss_mib_by_hours": {
            name: [[round(at, 3), round(rss / 2**20, 2)] for at, rss in blocks(s, given.minutes)]
            for name, s in series.items()
        },
    }


async def run(given):
    options = ["--model", "english", "--engine-kind", "scripted"]
    options += ["--max-streams", str(given.capacity)]
    with tempfile.TemporaryDirectory(prefix="ssasr-soak-") as folder:
        config = ClusterConfig(Path(folder), 1, options)
        async with run_cluster(config) as cluster:
            return await soak(given, cluster)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--capacity", type=int, default=20)
    parser.add_argument("--share", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    given.streams = round(given.capacity * given.share)
    command = " ".join(["python", *sys.argv])
    result = {"command": command, **machine(), **trio.run(run, given)}
    text = re.sub(r"\[\s+([-\d., \n]+?)\s+\]", _on_one_line, json.dumps(result, indent=1))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(text + "\n")
    print(text)
    return 1 if result["unexplained"] else 0


def _on_one_line(found):
    return "[" + " ".join(found[1].split()) + "]"


if __name__ == "__main__":
    sys.exit(main())
