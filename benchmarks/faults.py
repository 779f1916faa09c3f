"""``ssasr bench --faults`` on a cluster of its own: real processes, nginx between them.

    python -m benchmarks.faults --schedule 'kill*200/1.5' [--clients 20] [--engines 3]
        [--seconds 310] [--engine-options '--model english --engine-kind scripted'] [--seed 1]
        [--speech FILE|FOLDER] [--json FILE] [--full-disk] [--label TEXT]
        [--speakers]

Kinds besides those of ``ssasr bench``: upgrade (every engine replaced, one after the other), nginx
(restarted), cut, garbage, hold (all links at once, by a relay between gateway and nginx), clock
(the gateway's wall clock, a day forward and then a day back). Exit status 1 if a word or a session
was lost, or a word got another speaker.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import trio

from benchmarks.conditions import conditions, publish
from ssasr.bench.faults import parse_schedule
from ssasr.bench.recordings import MESSAGE_SECONDS, read_recordings
from ssasr.bench.report import faults_as_json
from tests.harness.cluster import ClusterConfig, run_cluster
from tests.harness.fault_run import bench_config, noise_recordings, run_cluster_faults

NEEDS_PROXY = {"cut", "garbage", "hold"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--schedule", required=True)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--engines", type=int, default=3)
    parser.add_argument("--seconds", type=float, help="default: the schedule and 10 s")
    parser.add_argument("--engine-options", default="--model english --engine-kind scripted")
    parser.add_argument("--speech", type=Path, help="recordings to speak instead of noise")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--full-disk", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--label", default="")
    parser.add_argument("--speakers", action="store_true", help="sessions ask for labels")
    return parser.parse_args()


async def run(given, folder):
    faults = parse_schedule(given.schedule, Random(given.seed))
    kinds = {fault.kind for fault in faults}
    seconds = given.seconds or faults[-1].at + 10
    recordings = noise_recordings(given.seed)
    if given.speech:
        recordings = read_recordings(given.speech, None, 1.5, MESSAGE_SECONDS)
    config = ClusterConfig(
        folder,
        given.engines,
        given.engine_options.split(),
        through_proxy=bool(kinds & NEEDS_PROXY),
        full_disk=given.full_disk,
        clock=folder / "clock" if "clock" in kinds else None,
    )
    async with run_cluster(config) as cluster:
        asked = bench_config(
            cluster, given.clients, seconds, faults, given.seed, speakers=given.speakers
        )
        return await run_cluster_faults(cluster, asked, recordings)


def main():
    given = arguments()
    before = {"label": given.label, **conditions()}
    with tempfile.TemporaryDirectory(prefix="ssasr-faults-") as name:
        found = trio.run(run, given, Path(name))
        logs = {path.name: path.read_text()[-3_000:] for path in Path(name).glob("*.log")}
    result: dict[str, Any] = faults_as_json(found.run)
    result["clients"] = result.pop("streams")
    result["pauses"].pop("per_fault")
    counts = {"failovers": found.failovers, "restarts": found.restarts}
    publish({**before, **result, **counts}, given.json)
    if found.run.harmless:
        return 0
    for name, log in logs.items():
        print(f"--- {name}\n{log}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
