"""Time of Silero VAD for each 32 ms frame: n streams in a batch, k frames of each at once.

    python -m benchmarks.archive.vad [--threads 1]

Prints the fastest of many calls, which is what the machine can do, and the median.
"""

import argparse
import time

import torch

from ssasr.engine.vad import SileroVad
from ssasr.models import catalogue
from ssasr.protocol.recognition import VAD_FRAME


def measure(vad, n, k, calls):
    """Microseconds a frame: (fastest, median)."""
    frames = torch.randn(n, k, VAD_FRAME, generator=torch.Generator().manual_seed(0)) * 0.1
    state = vad.initial_state(n)
    times = []
    for _ in range(calls):
        begin = time.perf_counter()
        _, state = vad.detect(frames, state)
        times.append(time.perf_counter() - begin)
    times.sort()
    return times[0] / n / k * 1e6, times[calls // 2] / n / k * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--calls", type=int, default=50)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    vad = SileroVad.load(catalogue.resolve("silero-vad", pull=False).weights)
    print("streams  frames at once  us/frame fastest  median")
    with torch.inference_mode():
        for n in (1, 10, 100):
            for k in (1, 3, 10):
                fastest, median = measure(vad, n, k, given.calls)
                print(f"{n:7d}  {k:14d}  {fastest:16.0f}  {median:6.0f}")


if __name__ == "__main__":
    main()
