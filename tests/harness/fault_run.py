"""N real-time clients on a cluster to which faults are done on a schedule."""

from collections.abc import Sequence
from random import Random

import numpy as np
import trio
from attrs import asdict, define, field, frozen

from ssasr.bench.faults import Damage, Fault, Pauses, codes, compare, pauses, strike
from ssasr.bench.player import Player, StreamLog, Target, play_all
from ssasr.bench.recordings import MESSAGE_SECONDS, RATE, Tape, make_recording, make_tape
from tests.harness.cluster import Cluster, Supervised

TAPES = 4
"""Different tapes; the clients share them, so that the run without faults is a short one."""
SPREAD = 2.0
JUMP = 86_400.0
"""Seconds by which ``clock`` moves the wall clock, there and back."""


@define(eq=False)
class Plan:
    clients: int
    seconds: float
    faults: Sequence[Fault]
    seed: int = 1
    done: list[tuple[float, Fault]] = field(factory=list)


@frozen(eq=False)
class Report:
    """``failovers``: by the gateway's own count."""

    clients: int
    faults: dict[str, int]
    damage: Damage
    pauses: Pauses
    codes: dict[str, int]
    failovers: float
    restarts: dict[str, int]

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


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


def make_tapes(seconds: float, seed: int) -> list[Tape]:
    random = Random(seed)
    tapes = []
    for index in range(TAPES):
        recordings = [
            make_recording(f"{index}.{part}", speech(10, random), gap=1.5) for part in range(6)
        ]
        tapes.append(make_tape(recordings, seconds, MESSAGE_SECONDS, random))
    return tapes


async def run_plan(cluster: Cluster, plan: Plan) -> Report:
    """The tapes once without faults, as fast as they are taken; then all clients in real time."""
    tapes = make_tapes(plan.seconds, plan.seed)
    references = [StreamLog(tape) for tape in tapes]
    async with trio.open_nursery() as nursery:
        for log in references:
            target = Target(cluster.url, "self-hosted", real_time=False)
            nursery.start_soon(Player(target, log).play)
    bad = [log.problem or log.code for log in references if log.code != 1000]
    assert not bad, f"the run without faults failed: {bad}"
    random = Random(plan.seed)
    played = [tapes[index % len(tapes)] for index in range(plan.clients)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_do_faults, cluster, plan, random)
        target = Target(cluster.url, "self-hosted")
        logs = await play_all(target, played, spread=SPREAD, random=Random(plan.seed))
        nursery.cancel_scope.cancel()
    by_tape = {id(log.tape): log for log in references}
    metrics = await cluster.metrics()
    kinds: dict[str, int] = {}
    for _, fault in plan.done:
        kinds[fault.kind] = kinds.get(fault.kind, 0) + 1
    return Report(
        plan.clients,
        kinds,
        compare(logs, lambda log: by_tape[id(log.tape)]),
        pauses(logs, plan.done),
        dict(codes(logs)),
        sum(value for name, value in metrics.items() if name.startswith("ssasr_failovers_total")),
        {each.name: each.starts - 1 for each in [cluster.gateway, cluster.nginx, *cluster.engines]},
    )


async def _do_faults(cluster: Cluster, plan: Plan, random: Random) -> None:
    """What is done to an engine waits until another is ready: the question is what the sessions
    notice of a loss, not how fast this machine starts processes."""
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for fault in plan.faults:
            await trio.sleep_until(start + fault.at)
            warm = await cluster.wait_warm_replica()
            plan.done.append((trio.current_time(), fault))
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
                await strike(pid, Fault(fault.at, "term"))
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
                await strike(engine.pid, fault)
