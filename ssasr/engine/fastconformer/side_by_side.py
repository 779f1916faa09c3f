"""A processor's threads: all of them on each operation of a step, or several steps side by side.

What is faster depends on the machine, and on what else it does. Threads that share an operation
wait for each other after each of a thousand; where another process has one of the cores, a step of
two streams took 16 s instead of 1 (two cores, load 10). Steps side by side never wait for each
other, but each of them reads all the weights. So the ways are timed when an engine starts. A row's
numbers do not depend on the rows beside it, and so words do not depend on the choice.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import inf

import torch
from attrs import frozen

from ssasr.engine.fastconformer.program import Answer, Inputs, PlainRunner, Program
from ssasr.telemetry.logs import get_logger

ROWS = 4
"""Of a timed step, for each of its threads."""
REPEATS = 3
CLEARLY = 0.9
"""Of the time of the way with fewer threads on an operation, that one with more may take to be
preferred: another process may come and take a core."""
HOPELESS = 2.0
"""Times the best so far: a way that takes so long is not tried again."""
_LOG = get_logger(__name__)


@frozen
class Arrangement:
    """So many steps at once, with so many threads each."""

    steps: int
    threads: int


def arrangements(threads: int) -> list[Arrangement]:
    """All that take so many threads, those with fewer on an operation first."""
    divisors = [each for each in range(1, threads + 1) if threads % each == 0]
    return [Arrangement(threads // each, each) for each in divisors]


def choose(seconds: Mapping[Arrangement, float]) -> Arrangement:
    """The fastest, of those whose difference is clear. ``seconds``: in the order of
    ``arrangements``."""
    first, *others = seconds
    for each in others:
        if seconds[each] < CLEARLY * seconds[first]:
            first = each
    return first


class SideBySideRunner(PlainRunner):
    """Implements ``Runner``; each of the threads that call it has some to help it."""

    def __init__(self, program: Program, largest: int, arrangement: Arrangement) -> None:
        super().__init__(program, largest)
        self.steps, self._threads = arrangement.steps, arrangement.threads
        torch.set_num_threads(self._threads)

    def run(self, inputs: Inputs) -> Answer:
        """See ``Runner``."""
        torch.set_num_threads(self._threads)  # of this thread
        return super().run(inputs)


def fastest(
    make: Callable[[Arrangement], SideBySideRunner],
    threads: int,
    step: Callable[[SideBySideRunner, int], object],
    clock: Callable[[], float] = time.perf_counter,
) -> SideBySideRunner:
    """The runner of the arrangement with the fastest steps. ``step``: runs one of so many rows."""
    ways = arrangements(threads)
    if len(ways) == 1:
        return make(ways[0])
    seconds: dict[Arrangement, float] = {}
    for way in ways:
        runner = make(way)
        seconds[way] = inf
        with ThreadPoolExecutor(way.steps, "step") as pool:
            for _ in range(REPEATS):
                began = clock()
                list(pool.map(partial(step, runner), [ROWS * way.threads] * way.steps))
                seconds[way] = min(seconds[way], clock() - began)
                if seconds[way] > HOPELESS * min(seconds.values()):
                    break
    chosen = choose(seconds)
    _LOG.info("threads", steps=chosen.steps, threads=chosen.threads, seconds=seconds[chosen])
    return make(chosen)
