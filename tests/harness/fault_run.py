"""Faults on a cluster: on its engines, and on what lies between them and the clients."""

from collections.abc import Mapping, Sequence
from functools import partial
from random import Random

import numpy as np
import trio
from attrs import evolve, frozen

from ssasr.bench.fault_run import Done, FaultOutcome, run_with_faults
from ssasr.bench.faults import Fault, inject
from ssasr.bench.recordings import MESSAGE_SECONDS, RATE, Recording, make_recording
from ssasr.bench.run import BenchConfig
from tests.harness.cluster import Cluster, Supervised

JUMP = 86_400.0
"""Seconds by which ``clock`` moves the wall clock, there and back."""
PITCHES = (1, 4, 16)
"""Of noise, for how many samples it stays as it is: so many people, to the scripted diarizer."""
FAILOVERS = "ssasr_failovers_total"


def bench_config(
    cluster: Cluster,
    streams: int,
    seconds: float,
    faults: Sequence[Fault] = (),
    seed: int = 1,
    *,
    speakers: bool = False,
) -> BenchConfig:
    config = BenchConfig(
        cluster.url, "self-hosted", streams, 1.0, seconds, faults=faults, seed=seed
    )
    return evolve(config, parameters={"speaker_labels": True}) if speakers else config


def noise_recordings(seed: int, seconds: float = 10.0) -> list[Recording]:
    """Six of so many seconds each: noise that the scripted engine takes for words, in sentences of
    2 to 5 s, by three people."""
    random = Random(seed)
    return [
        make_recording(str(index), noise(seconds, random), gap=1.5, message_seconds=MESSAGE_SECONDS)
        for index in range(6)
    ]


def noise(seconds: float, random: Random) -> np.ndarray:
    """float32 (n,) at 16 kHz."""
    generator = np.random.default_rng(random.randrange(1 << 30))
    samples = generator.normal(0, 0.1, int(seconds * RATE)).astype(np.float32)
    begin, at = 0.0, random.uniform(2, 5)
    while begin < seconds:
        sentence = samples[int(begin * RATE) : int(at * RATE)]
        pitch = random.choice(PITCHES)
        sentence[:] = np.repeat(sentence[::pitch], pitch)[: len(sentence)]
        pause = random.choice([0.3, 0.7, 1.6])
        begin = at + pause
        samples[int(at * RATE) : int(begin * RATE)] = 0
        at = begin + random.uniform(2, 5)
    return samples


@frozen(eq=False)
class ClusterOutcome:
    """``failovers``: by the gateway's own count; ``restarts``: of each process, by name."""

    run: FaultOutcome
    failovers: float
    restarts: Mapping[str, int]


async def run_cluster_faults(
    cluster: Cluster, config: BenchConfig, recordings: Sequence[Recording]
) -> ClusterOutcome:
    run = await run_with_faults(config, recordings, partial(_do_faults, cluster, config))
    metrics = await cluster.metrics()
    return ClusterOutcome(
        run,
        sum(value for name, value in metrics.items() if name.startswith(FAILOVERS)),
        {each.name: each.starts - 1 for each in cluster.processes},
    )


async def _do_faults(cluster: Cluster, config: BenchConfig, done: Done) -> None:
    """What is done to an engine waits until another is ready: the question is what the sessions
    notice of a loss, not how fast this machine starts processes."""
    start, random = trio.current_time(), Random(config.seed)
    async with trio.open_nursery() as nursery:
        for fault in config.faults:
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
