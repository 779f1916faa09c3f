"""What the processor multiplies with: 8-bit integers, half precision and floats, by shape.

    python -m benchmarks.kernels [--width 384] [--vocabulary 51864] [--seconds 0.1] [--json FILE]

For the shapes of a transformer of that width: CPU time of a product alone in each kernel that is
exact here, of ``kernels.linear`` with its scales, and of torch's float product; and 10^9 operations
a second (two for each weight and row). The last line is the roof: the most that any kernel reached.
One thread. Kernels share caches with whatever else runs, so look at ratios on a busy machine.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.conditions import conditions, publish
from ssasr.engine import kernels

Job = Callable[[], object]


def seconds_of(job: Job, least: float) -> float:
    """CPU of the fastest of five rounds, each ``least`` long."""
    job()
    rounds = []
    for _ in range(5):
        began, times = time.thread_time(), 0
        while time.thread_time() - began < least / 5 or not times:
            job()
            times += 1
        rounds.append((time.thread_time() - began) / times)
    return min(rounds)


def ways(inputs: int, outputs: int, rows: int) -> dict[str, Job]:
    """Each way to multiply that there is here."""
    weight, x = torch.randn(outputs, inputs), torch.randn(rows, inputs)
    found: dict[str, Job] = {"float": lambda: F.linear(x, weight)}
    if kernels.has_half():
        half = kernels.HalfProduct(weight, None)
        found["half"] = lambda: half(x)
    limit = kernels.int8_limit()
    if limit:
        integers = kernels.rounded(weight).integers
        small = torch.randint(0, 256, (rows, inputs), dtype=torch.uint8)
        for make in kernels.exact_makers(limit):
            kernel = make(integers, torch.ones(outputs))
            found[make.__name__.strip("_")] = lambda kernel=kernel: kernel(small)
        few = kernels.FEW if rows < kernels.MANY // 2 else kernels.MANY
        packed = kernels.quantize(weight, rows=few)
        found["linear"] = lambda: kernels.linear(x, packed)
    return found


def measure(width: int, vocabulary: int, least: float) -> list[dict]:
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    cases = [(*shape, rows) for shape in shapes for rows in (1, 4, 12, 100, 250, 500)]
    cases += [(width, vocabulary, rows) for rows in (1, 4, 12)]
    table = []
    for inputs, outputs, rows in cases:
        operations = 2 * inputs * outputs * rows
        row: dict = {"inputs": inputs, "outputs": outputs, "rows": rows}
        for name, job in ways(inputs, outputs, rows).items():
            took = seconds_of(job, least)
            row[name] = {"us": round(1e6 * took, 1), "gops": round(operations / took / 1e9, 1)}
        table.append(row)
        show(row)
    return table


def show(row: dict) -> None:
    parts = [f"{name} {one['us']:.0f} us {one['gops']:.0f}" for name, one in row.items()
             if isinstance(one, dict)]  # fmt: skip
    print(f"{row['rows']:4d} x {row['inputs']} -> {row['outputs']}:", "  ".join(parts), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--vocabulary", type=int, default=51_864)
    parser.add_argument("--seconds", type=float, default=0.1, help="of CPU for each figure")
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        table = measure(given.width, given.vocabulary, given.seconds)
    roof = {
        name: max(row[name]["gops"] for row in table if name in row)
        for name in table[0]
        if isinstance(table[0][name], dict)
    }
    print("roof, 10^9 operations a second:", roof, "largest weight:", kernels.int8_limit())
    kept = conditions() | {"kernels": table, "roof": roof, "largest_weight": kernels.int8_limit()}
    publish(kept | {"load_average": round(os.getloadavg()[0], 1)}, given.json)


if __name__ == "__main__":
    main()
