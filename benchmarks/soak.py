"""``ssasr bench --soak`` on a cluster of its own: real processes, nginx between them, the scripted
engine.

    python -m benchmarks.soak [--minutes 60] [--capacity 20] [--share 0.8] [--json FILE]

Capacity is the engine's ``--max-streams``, so that it costs little CPU; ``capacity * share``
clients speak at once.
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

import trio

from benchmarks.conditions import conditions, publish
from ssasr.bench.report import soak_as_json
from ssasr.bench.soak import soak
from tests.harness.cluster import ClusterConfig, run_cluster
from tests.harness.fault_run import FAILOVERS, bench_config, noise_recordings


async def run(given, folder):
    options = ["--model", "english", "--engine-kind", "scripted"]
    options += ["--max-streams", str(given.capacity)]
    async with run_cluster(ClusterConfig(folder, 1, options)) as cluster:
        config = bench_config(cluster, round(given.capacity * given.share), 0, seed=given.seed)
        progress = partial(print, file=sys.stderr, flush=True)
        outcome = await soak(config, noise_recordings(given.seed), given.minutes, progress)
        metrics = await cluster.metrics()
        counts = {
            "capacity": given.capacity,
            "sessions_left": metrics["ssasr_sessions"],
            "failovers": sum(v for name, v in metrics.items() if name.startswith(FAILOVERS)),
            "restarts": sum(process.starts - 1 for process in cluster.processes),
        }
        return {**soak_as_json(outcome), **counts}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--capacity", type=int, default=20)
    parser.add_argument("--share", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    before = conditions()
    with tempfile.TemporaryDirectory(prefix="ssasr-soak-") as folder:
        result = trio.run(run, given, Path(folder))
    publish({**before, **result}, given.json)
    return 1 if result["unexplained"] else 0


if __name__ == "__main__":
    sys.exit(main())
