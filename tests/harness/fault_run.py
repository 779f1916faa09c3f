"""N real-time clients on a cluster to which faults are done on a schedule."""

from collections.abc import Sequence
from functools import partial
from random import Random

import numpy as np
import trio
from attrs import asdict, define, frozen

from ssasr.bench.fault_run import TRACKS, Done, FaultOutcome, run_with_faults
from ssasr.bench.faults import Fault, inject
from ssasr.bench.recordings import (
    MESSAGE_SECONDS,
    RATE,
    Recording,
    Track,
    make_recording,
    make_track,
)
from tests.harness.cluster import Cluster, Supervised

JUMP = 86_400.0
"""Seconds by which ``clock`` moves the wall clock, there and back."""


@define(eq=False)
class Plan:
    """``recordings``: what is spoken; noise, for the scripted engine, where there are none."""

    clients: int
    seconds: float
    faults: Sequence[Fault]
    seed: int = 1
    recordings: Sequence[Recording] = ()


@frozen(eq=False)
class Report(FaultOutcome):
    """``failovers``: by the gateway's own count."""

    failovers: float
    restarts: dict[str, int]

    def as_dict(self) -> dict[str, object]:
        found = asdict(self)
        return {"clients": found.pop("streams"), **found}


def speech(seconds: float, random: Random) -> np.ndarray:
    """float32 (n,): noise that the scripted engine takes for words, in sentences of 2 to 5 s."""
    noise = np.random.default_rng(random.randrange(1 << 30))
    samples = noise.normal(0, 0.1, int(seconds * RATE)).astype(np.float32)
    at = random.uniform(2, 5)
    while at < seconds:
        pause = random.choice([0.3, 0.7, 1.6])
        samples[int(at * RATE) : int((at + pause) * RATE)] = 0
        at += pause + random.uniform(2, 5)
    return samples


def make_tapes(plan: Plan) -> list[Track]:
    random = Random(plan.seed)
    tracks = []
    for index in range(min(TRACKS, plan.clients)):
        recordings = plan.recordings or [
            make_recording(f"{index}.{part}", speech(10, random), gap=1.5) for part in range(6)
        ]
        tracks.append(make_track(recordings, plan.seconds, MESSAGE_SECONDS, random))
    return tracks


async def run_plan(cluster: Cluster, plan: Plan) -> Report:
    outcome = await run_with_faults(
        cluster.url,
        "self-hosted",
        make_tapes(plan),
        plan.clients,
        plan.seed,
        partial(_do_faults, cluster, plan),
    )
    metrics = await cluster.metrics()
    return Report(
        outcome.streams,
        outcome.faults,
        outcome.damage,
        outcome.pauses,
        outcome.codes,
        sum(value for name, value in metrics.items() if name.startswith("ssasr_failovers_total")),
        {each.name: each.starts - 1 for each in [cluster.gateway, cluster.nginx, *cluster.engines]},
    )


async def _do_faults(cluster: Cluster, plan: Plan, done: Done) -> None:
    """What is done to an engine waits until another is ready: the question is what the sessions
    notice of a loss, not how fast this machine starts processes."""
    start, random = trio.current_time(), Random(plan.seed)
    async with trio.open_nursery() as nursery:
        for fault in plan.faults:
            await trio.sleep_until(start + fault.at)
            warm = await cluster.wait_warm_replica()
            done.append((trio.current_time(), fault))
            nursery.start_soon(do_fault, cluster, fault, random.choice(warm), random)
            await trio.lowlevel.checkpoint()  # so that it is done before the next one is drawn


async def upgrade(cluster: Cluster) -> None:
    """Every replica replaced, one after the other, as a rolling update does it."""
    for engine in cluster.engines:
        await cluster.wait_warm_replica()
        starts = engine.starts
        engine.serving = False
        engine.process.terminate()
        while engine.starts == starts or not engine.serving:
            await trio.sleep(0.05)


async def do_fault(cluster: Cluster, fault: Fault, engine: Supervised, random: Random) -> None:
    match fault.kind:
        case "cut" | "garbage" | "hold":
            proxy = cluster.proxy
            assert proxy is not None, f"{fault.kind} needs a cluster with a proxy"
            if fault.kind == "hold":
                proxy.hold(fault.seconds)
            else:
                await (proxy.cut() if fault.kind == "cut" else proxy.garble(random))
        case "nginx":
            if (pid := cluster.nginx.pid) is not None:
                await inject(pid, Fault(fault.at, "term"))
        case "clock":
            assert cluster.clock is not None, "a clock fault needs a cluster with a clock"
            cluster.clock.write_text(str(JUMP))
            await trio.sleep(fault.seconds)
            cluster.clock.write_text(str(-JUMP))
        case "upgrade":
            await upgrade(cluster)
        case _:
            if engine.pid is not None:
                engine.serving = engine.serving and fault.kind not in {"kill", "term"}
                await inject(engine.pid, fault)
