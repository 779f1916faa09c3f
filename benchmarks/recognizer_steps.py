"""What the FastConformer's recogniser spends on bookkeeping: a step without the device.

    python -m benchmarks.recognizer_steps [--streams 1000,4000] [--chunk-ms 80] [--json FILE]

The device answers at once; everything else is as it is: a small model's slots, every stream with
its next chunk. ``quiet``: no stream says anything. ``talking``: every third stream has a token in
each step, every other token begins a word, and segments are left and begun anew after four
seconds, outside of the time taken. Processor time of one thread, a stream and step.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

from benchmarks.conditions import publish
from benchmarks.random_fastconformer import Audio, make_recognizer, model_config, random_model
from ssasr.bench.report import machine
from ssasr.engine.fastconformer.program import Answer, Inputs
from ssasr.engine.recognizer import SegmentStart, Work
from ssasr.protocol.recognition import StreamOptions
from ssasr.runtime.garbage import collect_rarely

VOCABULARY = 65
SEGMENT_STEPS = 50


class NoDevice:
    """A runner that answers at once, with inputs of its own as ``GraphRunner`` has them.
    ``saying``: whether there are tokens."""

    def __init__(self, runner, layout, rows, saying):
        self.largest, self._inputs, self._step = runner.largest, runner.inputs(rows), 0
        room = layout.chunk_frames * layout.config.max_symbols_per_step
        emitted = torch.arange(rows) % 3 == 0 if saying else torch.zeros(rows)
        self._answers = [
            Answer(
                emitted.int(),
                torch.full((rows, room), token, dtype=torch.int32),
                torch.zeros(rows, room, dtype=torch.int32),
                torch.ones(rows, room),
                torch.zeros(rows, -(-layout.chunk // 512)),
            )
            for token in range(4, 12)
        ]

    def inputs(self, rows):
        return Inputs(self._inputs.table[:rows], self._inputs.audio[:rows])

    def run(self, inputs):
        answer, rows = self._answers[self._step % 8], len(inputs.table)
        self._step += 1
        return Answer(
            answer.emitted[:rows],
            answer.tokens[:rows],
            answer.places[:rows],
            answer.confidences[:rows],
            answer.speech[:rows],
        )


def measure(model, streams, chunk_ms, steps):
    recognizer = make_recognizer(model, chunk_ms // 80, streams, warm=False)
    runner, audio = recognizer._runner, Audio(recognizer.chunk)
    figures = {"streams": streams, "chunk_ms": chunk_ms, "steps": steps}
    for name in ("quiet", "talking"):
        recognizer._runner = NoDevice(runner, recognizer._layout, streams, name == "talking")
        states, taken = [], []
        for number in range(steps):
            if number % SEGMENT_STEPS == 0:
                for state in states:
                    recognizer.release(state)
                states = [
                    recognizer.new_state(StreamOptions(), SegmentStart(0)) for _ in range(streams)
                ]
            works = [Work(s, audio.chunk(i, number)) for i, s in enumerate(states)]
            begin = time.thread_time()
            recognizer.step(works)
            taken.append(time.thread_time() - begin)
        for state in states:
            recognizer.release(state)
        figures[f"{name}_us"] = round(1e6 * statistics.median(taken) / streams, 2)
        figures[f"{name}_us_best"] = round(1e6 * min(taken) / streams, 2)
    print(figures, file=sys.stderr, flush=True)
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=lambda text: [int(n) for n in text.split(",")],
                        default=[1_000, 4_000])  # fmt: skip
    parser.add_argument("--chunk-ms", type=int, default=80)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    about = machine()
    config = model_config("small", VOCABULARY)
    model = random_model(config, torch.device("cpu"), torch.float32)
    collect_rarely()
    measured = [measure(model, n, given.chunk_ms, given.steps) for n in given.streams]
    command = " ".join(["python", *sys.argv])
    result = {"label": "recogniser overhead", "command": command, **about, "recognizer": measured}
    publish(result, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
