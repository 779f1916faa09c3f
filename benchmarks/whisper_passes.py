"""How long one pass of Whisper takes on a CUDA device, by the size that was recorded.

    python -m benchmarks.whisper_passes [--model tiny.en] [--rows 1,4,16,32,64] [--json FILE]

For each number of excerpts and each length: milliseconds to hear them, and to read 2, 16 and 48
tokens of each, with the copies there and back and the wait (mean of ten, after one that does not
count). The sizes of ``graph_passes._ROWS`` and the others are to be chosen by it.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.conditions import conditions, publish
from ssasr.engine.graphs import CudaGraphRecorder
from ssasr.engine.recognizer import RecognizerSettings
from ssasr.engine.whisper.graph_passes import GraphPasses
from ssasr.engine.whisper.recognizer import create

FRAMES = (200, 350, 700)
WIDTHS = (2, 16, 48)


def milliseconds(work: Callable[[], object]) -> float:
    work()
    begun = time.perf_counter()
    for _ in range(10):
        work()
    return round(100 * (time.perf_counter() - begun), 2)


def measure(network, rows: int) -> list[dict]:
    passes = GraphPasses(network, CudaGraphRecorder(network.device), (rows,), FRAMES, WIDTHS)
    begun = time.perf_counter()
    passes.warm_up()
    recording = round(time.perf_counter() - begun, 1)
    return [
        {
            "rows": rows,
            "frames": size.frames,
            "hear_ms": milliseconds(lambda size=size: passes.encode(size)),
            "read_ms": {
                width: milliseconds(lambda size=size, width=width: passes.read(size, width))
                for width in WIDTHS
            },
            "recording_s": recording,
            "reserved_gb": round(torch.cuda.memory_reserved() / 1e9, 2),
        }
        for size in passes._sizes
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--rows", default="1,4,16,32,64")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    recognizer = create(RecognizerSettings(options.model, device="cuda:0"))
    network = recognizer.decoding.passes.network
    found = [each for rows in options.rows.split(",") for each in measure(network, int(rows))]
    about = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    publish({**conditions(), **about, "passes": found}, options.json)


if __name__ == "__main__":
    main()
