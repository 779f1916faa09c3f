"""What an engine spends around its model: scheduler, hand-over to the model thread, delivery.

    python benchmarks/scheduler_steps.py [--streams 1,10,100,1000] [--steps 100] [--age 600]
        [--json FILE]

Each step every stream gets one chunk of 100 ms and gives back one update, which a task of its own
takes, as a link's would. Time is CPU time of the event loop's thread, from the first chunk fed to
the last update taken, and of the model thread outside the recogniser; the recogniser's own is left
out. The scripted recogniser hears silence. ``--age``: seconds of audio that the old streams have
had, in segments of ten seconds.
"""

import argparse
import json
import statistics
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parents[1]))

from ssasr.bench.report import machine
from ssasr.engine.host import EngineHost
from ssasr.engine.model_thread import ModelThread
from ssasr.engine.scripted import CHUNK, ScriptedRecognizer
from ssasr.observability import Metrics, configure_logging
from ssasr.protocol.recognition import SAMPLE_RATE, Audio, Final, Finalize, Open, StreamOptions

SILENCE = bytes(2 * CHUNK)
SEGMENT = 10 * SAMPLE_RATE
SILENT_SEGMENT = bytes(2 * SEGMENT)


class Timed(ScriptedRecognizer):
    """Knows what its own steps cost."""

    spent = 0.0

    def step(self, batch):
        started = time.thread_time()
        outcomes = super().step(batch)
        self.spent += time.thread_time() - started
        return outcomes


class Measured(EngineHost):
    """Knows what the model thread spends on a step, the recogniser included."""

    in_thread = 0.0

    def _step(self, takes, stale):
        started = time.thread_time()
        outcomes = super()._step(takes, stale)
        self.in_thread += time.thread_time() - started
        return outcomes


class Pupil:
    """One stream, and the task that takes its answers."""

    def __init__(self, stream):
        self.stream = stream
        self.sent = 0
        self.segment = 0
        self.answers = 0
        self.finals = 0

    async def take(self, arrived):
        while True:
            answer = await self.stream.receive()
            self.answers += 1
            self.finals += isinstance(answer, Final)
            arrived()

    def speak(self, pcm):
        self.stream.offer(Audio(self.sent, pcm))
        self.sent += len(pcm) // 2


async def grow_old(pupils, seconds):
    for _ in range(int(seconds * SAMPLE_RATE / SEGMENT)):
        for pupil in pupils:
            pupil.speak(SILENT_SEGMENT)
            pupil.stream.offer(Finalize(pupil.segment, pupil.sent))
            pupil.segment += 1
        while any(pupil.finals < pupil.segment for pupil in pupils):  # noqa: ASYNC110  # not timed
            await trio.sleep(0.01)


async def run(count, steps, age):
    recognizer = Timed(count)
    host = Measured(recognizer, ModelThread(), Metrics(), max_streams=count)
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        async with AsyncExitStack() as streams:
            opening = Open("session", StreamOptions())
            pupils = [
                Pupil(await streams.enter_async_context(host.open_stream(opening)))
                for _ in range(count)
            ]
            left, done = 0, trio.Event()

            def arrived():
                nonlocal left
                left -= 1
                if left == 0:
                    done.set()

            for pupil in pupils:
                nursery.start_soon(pupil.take, arrived)
            await grow_old(pupils, age)
            costs = []
            for _ in range(steps):
                left, done = count, trio.Event()
                thread, model = host.in_thread, recognizer.spent
                started = time.thread_time()
                for pupil in pupils:
                    pupil.speak(SILENCE)
                await done.wait()
                loop = time.thread_time() - started
                costs.append(loop + (host.in_thread - thread) - (recognizer.spent - model))
            nursery.cancel_scope.cancel()
    return costs


def measure(count, steps, age):
    costs = sorted(trio.run(run, count, steps, age))
    median = statistics.median(costs)
    return {
        "streams": count,
        "age_s": age,
        "steps": steps,
        "step_ms_p50": round(median * 1e3, 3),
        "step_ms_p95": round(costs[int(len(costs) * 0.95)] * 1e3, 3),
        "us_per_stream": round(median * 1e6 / count, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", default="1,10,100,1000")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--age", type=float, default=600)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    configure_logging(json=False, level="warning")
    about = machine()
    counts = [int(count) for count in given.streams.split(",")]
    measured = [measure(count, given.steps, age) for count in counts for age in (0, given.age)]
    command = " ".join(["python", *sys.argv])
    result = {"label": "engine overhead", "command": command, **about, "engine_steps": measured}
    text = json.dumps(result, indent=1)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
