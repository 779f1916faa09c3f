"""Live streams of one engine behind a gateway, each a process of its own, as in production.

    python -m benchmarks.live_streams --model DIR|NAME [--chunk-ms 560] [--streams 10]
        [--seconds 60] [--bound 1.0] [--threads N] [--kind KIND] [--json FILE]

For FastConformer models on a CPU. Without published weights take a directory made by
``benchmarks.random_checkpoint``: its words mean nothing, and cost and come as those of the
published model. Clients are those of ``ssasr bench``, in real time, with the recordings of the
package. Wants a machine that does nothing else; the clients use some of it.

``final``: from the end of a word to its receipt as final, by the times of the words themselves.
``--kind``: of processor, for you to name; files ``live-streams-….json`` in ``results`` are rows of
a table in ``docs/operations.md`` (``benchmarks.report`` writes it).
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.conditions import conditions, publish
from benchmarks.inserted import ROOT, Inserted
from tests.harness.processes import free_port

PATIENCE = 300
"""Seconds for a start; the first one rounds the weights."""


@contextmanager
def running(port: int, *arguments: object) -> Iterator[str]:
    """Part of a server, ready: its address. Once it is not needed any more it ends."""
    command = [sys.executable, "-m", "ssasr", *map(str, arguments), "--port", str(port)]
    process = subprocess.Popen([*command, "--log-level", "warning"])
    try:
        until = time.monotonic() + PATIENCE
        while not answers(port):
            assert process.poll() is None, "it ended"
            assert time.monotonic() < until, "it is not ready"
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def answers(port: int) -> bool:
    with suppress(URLError, OSError), urlopen(f"http://127.0.0.1:{port}/ready", timeout=1):
        return True
    return False


def bench(gateway: str, given: argparse.Namespace) -> dict:
    command = [sys.executable, "-m", "ssasr", "bench", "--endpoint", f"ws://{gateway}/v3/ws",
               "--json", "--streams", given.streams, "--seconds", given.seconds,
               "--bound", given.bound]  # fmt: skip
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True, check=False)
    (run,) = json.loads(done.stdout)["runs"]
    latencies = {name: {each: run["latencies"][name][each] for each in ("count", "p50", "p95")}
                 for name in ("finalization", "first_seen", "final")}  # fmt: skip
    return {
        "within_bound": done.returncode == 0,
        **latencies,
        "words": run["words"],
        "closes": run["closes"],
        "server_cores": round(sum(each["cores"] for each in run["processes"]), 2),
        "server_rss_mib": round(sum(each["rss"] for each in run["processes"]) / 2**20),
        "client_cores": run["client"]["cores"],
    }


def table(results: dict) -> str:
    """The rows of all kinds of processors, for ``docs/operations.md``."""
    found = [each["live_streams"] for name, each in results.items()
             if name.startswith("live-streams-")]  # fmt: skip
    lines = [
        "| processor, two cores | live streams | p50 and p95 of final words | cores | memory |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in sorted(found, key=lambda row: (row["kind"], row["streams"])):
        final = row["final"]
        cells = [
            row["kind"],
            f"{row['streams']}",
            f"{final['p50']:.2f} s, {final['p95']:.2f} s",
            f"{row['server_cores']:.2f}",
            f"{row['server_rss_mib'] / 1024:.1f} GiB",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


TABLE = Inserted(ROOT / "docs" / "operations.md", "live streams", table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--chunk-ms", type=int, default=560)
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--bound", type=float, default=1.0)
    parser.add_argument("--threads", type=int, help="of the engine's model")
    parser.add_argument("--kind", default="", help="of processor, as the table is to name it")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    threads = ["--threads", given.threads] if given.threads else []
    with ExitStack() as stack:
        engine = stack.enter_context(
            running(free_port(), "engine", "--model", given.model, "--device", "cpu",
                    "--chunk-ms", given.chunk_ms, "--max-streams", given.streams, *threads)
        )  # fmt: skip
        gateway = stack.enter_context(
            running(free_port(), "gateway", "--host", "127.0.0.1",
                    "--asr-endpoint", f"ws://{engine}")
        )  # fmt: skip
        row = {"kind": given.kind, "streams": given.streams, "chunk_ms": given.chunk_ms}
        row |= bench(gateway, given)
    about = conditions() | {"load_average": round(os.getloadavg()[0], 1)}
    about["command"] = about["command"].replace(given.model, Path(given.model).name)
    publish(about | {"live_streams": row}, given.json)


if __name__ == "__main__":
    main()
