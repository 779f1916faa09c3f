"""The operator's trial: six faults on a cluster of real processes beside a real Prometheus that has
the shipped rules. For each: what clients saw, which alerts fired after how long, and which log line
says why.

    python -m benchmarks.operator_trial faults [--only NAMES] [--at-once 1] [--json FILE]
    python -m benchmarks.operator_trial calm [--minutes 60] [--faster 1] [--json FILE]

``calm`` is churn with a rolling upgrade in its middle; no alert may fire. ``--faster 3`` divides
all times by three, of the rules as well: twenty minutes stand for an hour. Needs Debian's
``prometheus``; the full disk is a tmpfs, so root.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random

import httpx
import trio
from attrs import define, field, frozen

from benchmarks.conditions import conditions, publish
from ssasr.bench.fault_run import run_with_faults
from ssasr.bench.faults import Fault, inject
from ssasr.bench.soak import SoakRun
from tests.harness.cluster import Cluster, ClusterConfig, run_cluster
from tests.harness.fault_run import bench_config, noise_recordings, upgrade
from tests.harness.prometheus import RULES, Prometheus, run_prometheus, scrape_targets

CLIENTS = 12
INTERVAL = 15.0
"""Seconds between scrapes and evaluations: Prometheus' usual ones."""
AT = 50.0
"""Seconds of quiet before the fault: rates need a past."""
SPEECH = 130.0
WATCH = 150.0
"""Seconds after the fault in which alerts are looked for."""
LOG = ("--log-level", "info", "--log-format", "json")


@frozen
class Trial:
    """``expected``: alerts of which one at least has to fire. ``line``: the log's event that says
    why, and in whose log. ``pace``: clients that come later, beyond ``CLIENTS``."""

    do: Callable[["Stage"], Awaitable[None]]
    expected: frozenset[str]
    where: str
    line: str
    gateway_options: tuple[str, ...] = ()
    late_clients: int = 0


@define(eq=False)
class Stage:
    """What a fault is done to."""

    cluster: Cluster
    usage: Path


# -- the six faults --------------------------------------------------------------------------------


async def kill_engine(stage):
    await inject(stage.cluster.engines[0].pid, Fault(0, "kill"))


async def kill_all_engines(stage):
    """For 90 s nobody starts them again."""
    for engine in stage.cluster.engines:
        engine.held_down = True
        await inject(engine.pid, Fault(0, "kill"))
    await trio.sleep(90)
    for engine in stage.cluster.engines:
        engine.held_down = False


def children(pid):
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def stop_balancer(stage):
    nginx = stage.cluster.nginx
    nginx.held_down = True
    for pid in [nginx.pid, *children(nginx.pid)]:  # workers outlive a parent that is killed
        await inject(pid, Fault(0, "kill"))
    await trio.sleep(10)
    stage.cluster.nginx.held_down = False


async def drain_gateway(stage):
    await inject(stage.cluster.gateway.pid, Fault(0, "term"))


async def fill_disk(stage):
    """Sessions go on ending; the first records still fit into the file's last block."""
    with suppress(OSError), (stage.usage / "other").open("wb", buffering=0) as other:
        while True:
            other.write(b"x" * 512)


async def nothing(stage):
    """There are more clients than places from here on (``late_clients``)."""


TRIALS = {
    "an engine of three is killed": Trial(
        kill_engine, frozenset({"SsasrFailovers"}), "gateway", "engine lost"
    ),
    "all engines are killed, for 90 s": Trial(
        kill_all_engines, frozenset({"SsasrModelUnavailable", "SsasrSessionsLost"}),
        "gateway", "stream given up",
    ),
    "the balancer is down for 10 s": Trial(
        stop_balancer, frozenset({"SsasrWordsLate", "SsasrFailovers"}), "gateway", "engine lost"
    ),
    "the gateway is stopped, and drains for 10 s": Trial(
        drain_gateway, frozenset({"SsasrSessionsCut"}), "gateway", "sessions cut by the drain",
        ("--drain-seconds", "10"),
    ),
    "the disk of usage records is full": Trial(
        fill_disk, frozenset({"SsasrUsageNotWritten"}), "gateway",
        "lines not written, will try again", late_clients=24,
    ),
    "more clients than a gateway admits": Trial(
        nothing, frozenset({"SsasrClientsRefused", "SsasrGatewayNearlyFull"}), "gateway",
        "session refused", ("--max-sessions", str(CLIENTS + 1)), late_clients=6,
    ),
}  # fmt: skip


# -- one trial -------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder):
    """A disk of 64 KiB."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@define(eq=False)
class AlertWatch:
    """Alerts with the seconds after the fault at which each first fired."""

    prometheus: Prometheus
    before: set[str] = field(factory=set)
    fired: dict[str, float] = field(factory=dict)
    began: float | None = None

    async def run(self):
        while True:
            with suppress(httpx.TransportError):  # a busy machine; it is asked again
                self._note(await self.prometheus.firing())
            await trio.sleep(0.5)

    def _note(self, firing):
        if self.began is None:
            self.before |= firing.keys()
        else:
            for name in firing.keys() - self.before - self.fired.keys():
                self.fired[name] = round(trio.current_time() - self.began)


def found_line(run_dir, where, event):
    """The first line of that event, without the time."""
    for path in sorted(run_dir.glob(f"{where}*.log")):
        for text in path.read_text().splitlines():
            if text.startswith("{") and (line := json.loads(text)).get("event") == event:
                return {name: value for name, value in line.items() if name != "timestamp"}
    return None


async def late_clients(cluster, count, recordings, codes):
    """One a second; 6 s each."""
    crowd_config = bench_config(cluster, 1, 6.0)

    async def one(delay):
        await trio.sleep(delay)
        outcome = await run_once(crowd_config, recordings)
        codes.append(outcome)

    async with trio.open_nursery() as nursery:
        for index in range(count):
            nursery.start_soon(one, 1.0 * index)


async def run_once(config, recordings):
    from ssasr.bench.player import Player, StreamLog
    from ssasr.bench.recordings import make_track
    from ssasr.bench.run import target_of

    track = make_track(recordings, config.seconds, config.message_seconds, Random(1))
    log = StreamLog(track)
    await Player(target_of(config), log).play()
    return log.code


async def try_one(name, trial, folder):
    run_dir = folder / re.sub(r"\W+", "-", name)
    run_dir.mkdir()
    with small_disk(run_dir / "usage") as usage:
        options = [*trial.gateway_options, "--usage-dir", str(usage)]
        config = ClusterConfig(run_dir, 3, gateway_options=options, log_options=LOG)
        async with run_cluster(config) as cluster:
            async with run_prometheus(run_dir, scrape_targets(cluster), INTERVAL) as prometheus:
                outcome, watch, late = await watch_fault(trial, Stage(cluster, usage), prometheus)
    in_time = [watch.fired[alert] for alert in trial.expected & watch.fired.keys()]
    return {
        "clients": dict(outcome.codes),
        "late_clients": {str(code): late.count(code) for code in sorted(set(late))},
        "words": outcome.damage.words,
        "words_lost": outcome.damage.lost + outcome.damage.changed + outcome.damage.duplicated,
        "longest_pause_s": round(outcome.pauses.longest, 2),
        "clients_late_s": round(outcome.late, 2),
        "alerts": dict(sorted(watch.fired.items(), key=lambda item: item[1])),
        "before": sorted(watch.before),
        "load_average": round(os.getloadavg()[0], 1),
        "first_expected_s": min(in_time, default=None),
        "line": found_line(run_dir, trial.where, trial.line),
    }


async def watch_fault(trial, stage, prometheus):
    watch, late = AlertWatch(prometheus), []
    recordings = noise_recordings(1)

    async def do(done):
        await trio.sleep(AT)
        watch.began = trio.current_time()
        done.append((watch.began, Fault(AT, "trial", 15.0)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trial.do, stage)
            nursery.start_soon(late_clients, stage.cluster, trial.late_clients, recordings, late)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        config = bench_config(stage.cluster, CLIENTS, SPEECH)
        outcome = await run_with_faults(config, recordings, do)
        await trio.sleep_until(watch.began + WATCH)
        nursery.cancel_scope.cancel()
    return outcome, watch, late


async def faults(given, folder):
    results = {}
    wanted = [name for name in TRIALS if any(part in name for part in given.only.split(","))]
    places = trio.CapacityLimiter(given.at_once)

    async def run(name):
        async with places:
            results[name] = await try_one(name, TRIALS[name], folder)
        print(name, json.dumps(results[name]), file=sys.stderr, flush=True)

    async with trio.open_nursery() as nursery:
        for name in wanted:
            nursery.start_soon(run, name)
    results = {name: results[name] for name in wanted}
    return {"operator_trial": results, "clients": CLIENTS, "interval_s": INTERVAL}


# -- nothing happens -------------------------------------------------------------------------------


def faster_rules(folder, times):
    """The rules with every duration up to minutes divided by ``times``."""
    text = RULES.read_text()

    def shorter(match):
        return f"{match[1]}{round(int(match[2]) * {'s': 1, 'm': 60}[match[3]] * 1000 / times)}ms"

    text = re.sub(r"(for: |\[)(\d+)([sm])", shorter, text)
    path = folder / "rules.yaml"
    path.write_text(text)
    return path


async def calm(given, folder):
    config = ClusterConfig(folder, 3, log_options=LOG)
    minutes = given.minutes / given.faster
    async with run_cluster(config) as cluster:
        rules = faster_rules(folder, given.faster)
        where = scrape_targets(cluster)
        async with run_prometheus(folder, where, INTERVAL / given.faster, rules) as prometheus:
            watch = AlertWatch(prometheus, began=trio.current_time())
            run = SoakRun(bench_config(cluster, CLIENTS, 0), noise_recordings(1), Random(1))
            until = trio.current_time() + minutes * 60
            async with trio.open_nursery() as watching:
                watching.start_soon(watch.run)
                async with trio.open_nursery() as visiting:
                    for _ in range(CLIENTS):
                        delay = run.random.uniform(0, 60)
                        visiting.start_soon(run.run_sessions, delay, until)
                    await trio.sleep(minutes * 30)
                    await upgrade(cluster)
                watching.cancel_scope.cancel()
            metrics = await cluster.metrics()
    moved = {n: v for n, v in metrics.items() if n.startswith("ssasr_failovers_total") and v}
    return {
        "calm": {
            "minutes": minutes, "stands_for_minutes": given.minutes, "clients": CLIENTS,
            "sessions": sum(run.endings.values()), "problems": run.problems,
            "failovers": moved, "restarts": sum(each.starts - 1 for each in cluster.processes),
            "alerts": watch.fired, "load_average": round(os.getloadavg()[0], 1),
        }
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("what", choices=["faults", "calm"])
    parser.add_argument("--only", default="", help="parts of names: no other fault is done")
    parser.add_argument("--at-once", type=int, default=1, help="faults, each on its own cluster")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--faster", type=float, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    before = conditions()
    with tempfile.TemporaryDirectory(prefix="ssasr-trial-") as folder:
        what = {"faults": faults, "calm": calm}[given.what]
        result = trio.run(partial(what, given, Path(folder)))
    publish({**before, **result}, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
