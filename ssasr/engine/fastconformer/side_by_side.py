"""A processor's threads: all of them on each operation of a batch, or parts of it side by side.

What is faster depends on the machine, and on what else it does. Threads that share an operation
wait for each other after each of a thousand; where another process has one of the cores, a step of
two streams took 16 s instead of 1 (two cores, load 10). Parts side by side wait once, at the end of
the step, but each of them reads all the weights. So the ways are timed when an engine starts. A
row's numbers do not depend on the rows beside it, and so words do not depend on the choice.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import inf

import torch
from attrs import asdict, frozen

from ssasr.engine.fastconformer.program import Answer, Inputs, PlainRunner, Program
from ssasr.telemetry.logs import get_logger

ROWS = 4
"""Of the timed step, for each thread."""
REPEATS = 3
CLEARLY = 0.9
"""Of the time of the way with fewer threads on an operation, that one with more may take to be
preferred: another process may come and take a core."""
HOPELESS = 2.0
"""Times the best so far: a way that takes so long is not tried again."""
_LOG = get_logger(__name__)


@frozen
class Arrangement:
    """So many parts of a batch at once, with so many threads each."""

    parts: int
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
    """Implements ``Runner``; the parts run in threads of its own."""

    def __init__(self, program: Program, largest: int, arrangement: Arrangement) -> None:
        super().__init__(program, largest)
        self.parts = arrangement.parts
        torch.set_num_threads(arrangement.threads)
        begin = partial(torch.set_num_threads, arrangement.threads)
        self._threads = ThreadPoolExecutor(self.parts, "step", begin) if self.parts > 1 else None

    def run(self, inputs: Inputs) -> Answer:
        """See ``Runner``."""
        parts = min(self.parts, len(inputs.table))
        if self._threads is None or parts == 1:
            return self.run_part(inputs)
        tables, audio = inputs.table.tensor_split(parts), inputs.audio.tensor_split(parts)
        answers = self._threads.map(self.run_part, map(Inputs, tables, audio))
        found = [asdict(answer, recurse=False) for answer in answers]
        return Answer(**{name: torch.cat([each[name] for each in found]) for name in found[0]})

    def run_part(self, inputs: Inputs) -> Answer:
        """In the caller's thread."""
        return super().run(inputs)

    def close(self) -> None:
        """End the threads."""
        if self._threads is not None:
            self._threads.shutdown()


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
        for _ in range(REPEATS):
            began = clock()
            step(runner, ROWS * threads)
            seconds[way] = min(seconds[way], clock() - began)
            if seconds[way] > HOPELESS * min(seconds.values()):
                break
        runner.close()
    chosen = choose(seconds)
    _LOG.info("threads", parts=chosen.parts, threads=chosen.threads, seconds=seconds[chosen])
    return make(chosen)
