"""One long stream, as fast as it will go: memory, cost and latency of its last minute against its
first.

    python -m benchmarks.archive.whisper_long [--evaldata ../shared/evaldata]
        [--minutes 60] [--json FILE]

Read English with pauses of 1 to 3 s, the same two minutes again and again, in **one segment**: the
session never ends a turn, which is the hardest case for what the segment keeps. A minute's cost is
the CPU time of its steps (one thread); its latency the 95th percentile of how long a step took that
decoded, also CPU time. Cost is compared between minutes of the same audio: the first two and the
last two.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np

from benchmarks.conditions import conditions
from benchmarks.stepping import step_until_done
from benchmarks.whisper_streams import material
from ssasr.engine.recognizer import RecognizerSettings, SegmentStart, Work
from ssasr.engine.whisper.recognizer import create
from ssasr.protocol.recognition import SAMPLE_RATE, StreamOptions

PERIOD = 120


def resident() -> int:
    """KiB of memory that is in use now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    recognizer = create(RecognizerSettings("tiny.en", device="cpu", threads=1))
    recognizer.warm_up()
    audio = material(arguments.evaldata, PERIOD, 1)
    chunk = recognizer.chunk
    audio = audio[: len(audio) // chunk * chunk]
    state, rows, words = recognizer.new_state(StreamOptions(), SegmentStart(0)), [], 0
    for period in range(arguments.minutes * 60 // PERIOD):
        costs = []
        for at in range(0, len(audio), chunk):
            begun = time.process_time()
            heard = step_until_done(recognizer, Work(state, audio[at : at + chunk]))
            costs.append(time.process_time() - begun)
        words, before = len(heard[-1].words), words
        decoding = [cost for cost in costs if cost > 0.03]
        rows.append({
            "until_minute": (period + 1) * PERIOD // 60, "words": words - before,
            "cpu_per_s": round(sum(costs) / (len(audio) / SAMPLE_RATE), 3),
            "step_p95_ms": round(1e3 * float(np.percentile(decoding, 95)), 1),
            "resident_mib": round(resident() / 1024, 1),
        })  # fmt: skip
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
        if arguments.json:
            result = {**conditions(), "whisper_long": rows}
            arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
