"""What an engine spends around its model: scheduler, hand-over to the model thread, delivery.

    python -m benchmarks.scheduler_steps [--streams 1,10,100,1000] [--steps 100] [--age 600]
        [--kinds waits,cpu,task] [--json FILE]

Each step every stream gets one chunk of 100 ms and gives back one update. Three figures:

``waits``: for how long the model has nothing to do between two steps although every stream has a
chunk for it: wall time from the return of one ``Recognizer.step`` to the call of the next. A step
takes as long as a device would (``--device-ms``, asleep), and the next chunks come meanwhile.

``cpu``: all processor time of a step outside the recogniser, wherever it falls: of the event
loop's thread from the first chunk fed to the last update taken, and of the model thread. Updates
are taken at once, as an engine's links take them; what a link makes of them is left out.

``task``: the same, but every update wakes a task of its own, as was so in engines once. Figures
without a name in older results are this one.

The scripted recogniser hears silence in the last two. ``--age``: seconds of audio that the old
streams have had, as fast as it is taken: segments of ten seconds and at last an open one, longer
than what a stream keeps. The recogniser does not listen while they grow old.
"""

import argparse
import statistics
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from benchmarks.conditions import publish
from ssasr.bench.report import machine
from ssasr.engine.host import EngineHost
from ssasr.engine.model_thread import ModelThread
from ssasr.engine.recognizer import Outcome, StepResult
from ssasr.engine.scripted import CHUNK, ScriptedRecognizer
from ssasr.protocol.recognition import SAMPLE_RATE, Audio, Final, Finalize, Open, StreamOptions
from ssasr.runtime.garbage import collect_rarely
from ssasr.telemetry.logs import configure_logging
from ssasr.telemetry.metrics import Metrics

SILENCE = bytes(2 * CHUNK)
SEGMENT = 10 * SAMPLE_RATE
SILENT_SEGMENT = bytes(2 * SEGMENT)
OPEN_SECONDS = 35


class Timed(ScriptedRecognizer):
    """Knows what its own steps cost."""

    spent = 0.0
    aging = False

    def step(self, batch):
        started = time.thread_time()
        outcomes = [pass_over(work) for work in batch] if self.aging else super().step(batch)
        self.spent += time.thread_time() - started
        return outcomes


def pass_over(work):
    """Hear nothing."""
    work.state.position += len(work.audio)
    position = work.state.position if work.final_at is None else work.final_at
    return Outcome((StepResult(position, (0.1, 0.1, 0.1), (), position),))


class Device(Timed):
    """Once ``began`` is set, its steps are a wait, and it notes how long it had nothing to do."""

    began = None
    token = None

    def __init__(self, streams, seconds):
        super().__init__(streams)
        self.seconds = seconds
        self.returned = None
        self.idle = []

    def step(self, batch):
        if self.began is None:
            return super().step(batch)
        if self.returned is not None:
            self.idle.append(time.perf_counter() - self.returned)
        self.token.run_sync_soon(self.began)
        until = time.perf_counter() + self.seconds
        outcomes = [pass_over(work) for work in batch]
        time.sleep(max(0.0, until - time.perf_counter()))
        self.returned = time.perf_counter()
        return outcomes


class Measured(EngineHost):
    """Knows what the model thread spends on a step, the recogniser included."""

    in_thread = 0.0

    def _step(self, *job):
        started = time.thread_time()
        outcomes = super()._step(*job)
        self.in_thread += time.thread_time() - started
        return outcomes


class Pupil:
    """One stream, and whoever takes its answers."""

    def __init__(self, stream, arrived):
        self.stream = stream
        self.arrived = arrived
        self.sent = 0
        self.segment = 0
        self.finals = 0
        self.heard = 0

    async def listen(self):
        while True:
            self.take(await self.stream.receive())

    def ready(self):
        return True

    def take(self, answer):
        if isinstance(answer, Final):
            self.finals += 1
        else:
            self.heard = answer.position
        self.arrived()

    def speak(self, pcm):
        self.stream.offer(Audio(self.sent, pcm))
        self.sent += len(pcm) // 2


class Arrivals:
    """Counts a step's updates."""

    def __init__(self):
        self.left, self.all_here = 0, trio.Event()

    def __call__(self):
        self.left -= 1
        if self.left == 0:
            self.all_here.set()

    def expect(self, count):
        self.left, self.all_here = count, trio.Event()


async def grow_old(recognizer, pupils, seconds):
    recognizer.aging = True
    for _ in range(int((seconds - OPEN_SECONDS) * SAMPLE_RATE / SEGMENT)):
        for pupil in pupils:
            pupil.speak(SILENT_SEGMENT)
            pupil.stream.offer(Finalize(pupil.segment, pupil.sent))
            pupil.segment += 1
        await until(lambda: all(pupil.finals == pupil.segment for pupil in pupils))
    for _ in range(int(min(seconds, OPEN_SECONDS) * SAMPLE_RATE / CHUNK)):
        for pupil in pupils:
            pupil.speak(SILENCE)
        await until(lambda: all(pupil.heard == pupil.sent for pupil in pupils))
    recognizer.aging = False


async def until(true):
    while not true():  # noqa: ASYNC110  # not timed
        await trio.sleep(0.01)


async def run(count, steps, age, kind, device_s):
    """Seconds of each step."""
    recognizer = Device(count, device_s) if kind == "waits" else Timed(count)
    host = Measured(recognizer, ModelThread(), Metrics(), max_streams=count)
    arrivals = Arrivals()
    async with trio.open_nursery() as nursery, AsyncExitStack() as streams:
        await nursery.start(host.run)
        opening = Open("session", StreamOptions())
        pupils = []
        for _ in range(count):
            stream = await streams.enter_async_context(host.open_stream(opening))
            pupil = Pupil(stream, arrivals)
            pupils.append(pupil)
            nursery.start_soon(pupil.listen)
            if kind != "task":
                stream.deliver_to(pupil)
        await grow_old(recognizer, pupils, age)
        if kind == "waits":
            costs = await idle_times(recognizer, pupils, steps)
        else:
            costs = await step_costs(host, arrivals, pupils, steps)
        nursery.cancel_scope.cancel()
    return costs


async def step_costs(host, arrivals, pupils, steps):
    costs, recognizer = [], host.recognizer
    for _ in range(steps):
        arrivals.expect(len(pupils))
        thread, model = host.in_thread, recognizer.spent
        started = time.thread_time()
        for pupil in pupils:
            pupil.speak(SILENCE)
        await arrivals.all_here.wait()
        loop = time.thread_time() - started
        costs.append(loop + (host.in_thread - thread) - (recognizer.spent - model))
    return costs


async def idle_times(recognizer, pupils, steps):
    enough = trio.Event()

    def began():
        for pupil in pupils:
            pupil.speak(SILENCE)
        if len(recognizer.idle) == steps:
            enough.set()

    recognizer.token = trio.lowlevel.current_trio_token()
    recognizer.began = began
    began()
    await enough.wait()
    return recognizer.idle[:steps]


def measure(count, steps, age, device_s, kinds):
    figures = {"streams": count, "age_s": age, "steps": steps}
    for kind in kinds:
        costs = sorted(trio.run(run, count, steps, age, kind, device_s))
        median = statistics.median(costs)
        figures[f"{kind}_ms_p50"] = round(median * 1e3, 3)
        figures[f"{kind}_ms_p95"] = round(costs[int(len(costs) * 0.95)] * 1e3, 3)
        figures[f"{kind}_us_per_stream"] = round(median * 1e6 / count, 1)
    print(figures, file=sys.stderr, flush=True)
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", default="1,10,100,1000")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--age", type=float, default=600)
    parser.add_argument("--device-ms", type=float, default=60)
    parser.add_argument("--kinds", default="waits,cpu,task")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    configure_logging(json=False, level="warning")
    collect_rarely()
    about = machine()
    counts = [int(count) for count in given.streams.split(",")]
    ages = dict.fromkeys((0, given.age))
    device_s = given.device_ms / 1e3
    kinds = given.kinds.split(",")
    measured = [measure(n, given.steps, age, device_s, kinds) for n in counts for age in ages]
    command = " ".join(["python", *sys.argv])
    result = {"label": "engine overhead", "command": command, **about, "engine_steps": measured}
    publish(result, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
