"""``ssasr bench --neighbours`` on a cluster of its own that has just the room: real processes,
nginx between them, the scripted engine.

    python -m benchmarks.neighbours refused|deaf [--streams 10] [--seconds 30] [--json FILE]
"""

import argparse
import sys
import tempfile
from pathlib import Path

import trio

from benchmarks.conditions import conditions, publish
from ssasr.bench.neighbours import KINDS, bench_with_neighbour
from ssasr.bench.report import neighbour_as_json
from tests.harness.cluster import ClusterConfig, run_cluster
from tests.harness.fault_run import bench_config, noise_recordings


async def run(given, folder):
    room = given.streams + (given.neighbour == "deaf")
    options = ["--model", "english", "--engine-kind", "scripted", "--max-streams", room]
    async with run_cluster(ClusterConfig(folder, 1, options)) as cluster:
        config = bench_config(cluster, given.streams, given.seconds)
        return await bench_with_neighbour(config, noise_recordings(1), given.neighbour)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("neighbour", choices=list(KINDS))
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    before = conditions()
    with tempfile.TemporaryDirectory(prefix="ssasr-neighbours-") as folder:
        outcome = trio.run(run, given, Path(folder))
    publish({**before, **neighbour_as_json(outcome)}, given.json)
    return 0 if outcome.harmless else 1


if __name__ == "__main__":
    sys.exit(main())
