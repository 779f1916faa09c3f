"""How many streams an engine offers, computed from the measured cost of its work on this machine.

A recogniser describes the units of its work (``Workload``): how to run one, how many a given number
of streams needs in a second, and which of them lie between the end of a turn and its last words.
They are timed once the recogniser has warmed up. The engine offers as many streams as keep the p95
of the end of a turn within ``BOUND``.

Units are timed in CPU seconds, on as many threads at once as there are workers. The shortest time
ever seen counts, because other processes can only make it longer. While other processes share
caches and clock rates, the first result may still be too low; so the measurement is repeated while
there are no streams, at growing intervals, and the number offered never decreases. Words do not
depend on any of this.

The arithmetic. With c workers and a load of a (CPU seconds a second), work that cannot start at
once waits; how often is Erlang's second formula, C(c, a). The end of a turn is served first, so it
waits for one of c workers to be done with what it has in hand, b seconds: at most b / c · ln(C /
0.05) in 95 of 100 cases, and longer by the share of the workers that other ends of turns occupy.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from math import log
from time import thread_time

from attrs import define, field, frozen

BOUND = 1.0
"""Seconds from the silence that ends a turn to its last words, p95."""
MOST_LOAD = 0.8
"""Share of the workers' time above which words in the making come later and later."""
AROUND = 0.15
"""Seconds of an end of turn that are no unit: a chunk until it is noticed, the loop, the link."""
BESIDE = 0.02
"""CPU seconds a second that a stream costs beside the units: the session, the link, the loop."""
TURNS = 0.2
"""Ends of turns a second on a stream, as people speak."""
MOST_STREAMS = 1_000
"""More than a CPU keeps up with."""
REPEATS = 3
FIRST_REST, LONGEST_REST = 30.0, 3_600.0
"""Seconds before it is measured again, which double every time."""


@frozen
class Unit:
    """``run`` does ``amount`` of it (passes, or seconds of audio)."""

    run: Callable[[], object]
    amount: float = 1.0


@frozen
class Workload:
    """What a recogniser does, in units by their names."""

    units: Mapping[str, Unit]
    workers: int
    """How many can be at work at once."""
    demand: Callable[[int], Mapping[str, float]]
    """Of each unit so many a second, for that many streams together."""
    ending: Mapping[str, float]
    """Between the end of a turn and its last words, one after the other."""
    blocking: Mapping[str, float]
    """The longest work that a worker is not called away from."""
    most: int = MOST_STREAMS
    """Streams that there is room for."""


@define
class CapacityMeter:
    """The shortest times of one workload, and what they allow."""

    workload: Workload
    seconds: dict[str, float] = field(factory=dict)
    """Of CPU for one of each unit."""

    def measure(self) -> int:
        """Time the units once more, in this thread and others: the streams to offer."""
        for name, found in unit_seconds(self.workload).items():
            self.seconds[name] = min(found, self.seconds.get(name, found))
        return streams_within(self.workload, self.seconds)


def unit_seconds(workload: Workload) -> dict[str, float]:
    """CPU seconds of one of each unit, all workers at work at the same time: the mean of what the
    workers found."""

    def shortest(unit: Unit) -> float:
        unit.run()
        times = []
        for _ in range(REPEATS):
            began = thread_time()
            unit.run()
            times.append(thread_time() - began)
        return min(times) / unit.amount

    found = {}
    with ThreadPoolExecutor(workload.workers, "measure") as pool:
        for name, unit in workload.units.items():
            times = list(pool.map(lambda _, unit=unit: shortest(unit), range(workload.workers)))
            found[name] = sum(times) / len(times)
    return found


def streams_within(workload: Workload, seconds: Mapping[str, float]) -> int:
    """The most streams with a load of ``MOST_LOAD`` at most; one at least. They and all fewer keep
    p95 of the end of a turn within ``BOUND``. Fewer may load more: words in the making come more
    often then."""
    offered = 1
    for streams in range(2, workload.most + 1):
        load = _total(workload.demand(streams), seconds) + streams * BESIDE
        if load >= workload.workers or end_of_turn(workload, seconds, streams, load) > BOUND:
            break
        if load <= MOST_LOAD * workload.workers:
            offered = streams
    return offered


def end_of_turn(
    workload: Workload, seconds: Mapping[str, float], streams: int, load: float
) -> float:
    """p95 of the seconds from the end of a turn to its last words."""
    workers = workload.workers
    served = _total(workload.ending, seconds)
    share = min(streams * TURNS * served / workers, 0.95)
    waits = waiting_share(workers, load)
    longest = _total(workload.blocking, seconds) / workers * max(0.0, log(waits / 0.05))
    return AROUND + served + longest / (1 - share)


def waiting_share(workers: int, load: float) -> float:
    """Erlang's second formula: how often all workers are busy. ``load`` below ``workers``."""
    blocked = 1.0
    for number in range(1, workers + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1 - load / workers * (1 - blocked))


def _total(amounts: Mapping[str, float], seconds: Mapping[str, float]) -> float:
    return sum(amount * seconds[name] for name, amount in amounts.items())
