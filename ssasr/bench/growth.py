"""Memory, file descriptors and threads of the server's processes over a long run (Linux only).

Memory is judged by the medians of blocks of two minutes, without the first ten minutes (a fifth of
a shorter run) and the end, when clients leave for good: the Theil-Sen slope and its 95 % confidence
interval from Kendall's rank statistic, which asks nothing of how the noise is distributed.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import NormalDist, median

import trio
from attrs import define, field, frozen

from ssasr.bench.processes import PROC, Usage, name_of, usage

READ_EVERY = 10.0
BLOCK = 120.0
WARM_UP = 600.0
MIB = 1 << 20


@frozen
class Reading:
    """One process ``at`` seconds after the first reading."""

    at: float
    used: Usage
    fds: int
    threads: int


def read_process(pid: int, at: float) -> Reading | None:
    """None: it has gone, or is somebody else's."""
    used = usage(pid)
    try:
        fds = sum(1 for _ in (PROC / str(pid) / "fd").iterdir())
        threads = sum(1 for _ in (PROC / str(pid) / "task").iterdir())
    except OSError:
        return None
    return None if used is None else Reading(at, used, fds, threads)


@frozen
class Growth:
    """Of one process over a run. The slope and its interval are None for runs that are too short
    for four blocks."""

    cores: float
    rss_mib_before: float
    rss_mib_most: float
    rss_mib_last_block: float | None
    slope_mib_per_hour: float | None
    slope_95: tuple[float, float] | None
    fds_before: int
    fds_most: int
    fds_after: int
    threads_before: int
    threads_most: int
    threads_after: int


@define(eq=False)
class ProcessWatch:
    """``find``: the processes to watch. It is asked again at each reading: an engine that has had
    no stream yet has no connection to be found by."""

    find: Callable[[], Iterable[int]]
    readings: dict[int, list[Reading]] = field(factory=dict)
    names: dict[int, str] = field(factory=dict)
    _started: float = field(factory=trio.current_time)

    async def run(self) -> None:
        """Read for ever."""
        while True:
            self.read()
            await trio.sleep(READ_EVERY)

    def read(self) -> None:
        now = trio.current_time() - self._started
        for pid in {*self.readings, *self.find()}:
            if (reading := read_process(pid, now)) is not None:
                self.readings.setdefault(pid, []).append(reading)
                self.names.setdefault(pid, name_of(pid))

    def gone(self) -> list[str]:
        """Names of processes that were watched and have ended."""
        return [name for pid, name in self.names.items() if usage(pid) is None]

    def growth(self, seconds: float) -> dict[str, Growth]:
        """By name, with the process id where two have the same. ``seconds``: how long the load
        lasted; what was read later is what stays behind."""
        alike = Counter(self.names.values())
        return {
            name if alike[name] == 1 else f"{name} {pid}": growth(self.readings[pid], seconds)
            for pid, name in self.names.items()
        }


def growth(readings: Sequence[Reading], seconds: float) -> Growth:
    first, last = readings[0], readings[-1]
    points = blocks(readings, seconds)
    slope = theil_sen(points)
    used = last.used.cpu_seconds - first.used.cpu_seconds
    return Growth(
        cores=round(used / max(last.at - first.at, 1e-9), 3),
        rss_mib_before=round(first.used.rss / MIB, 1),
        rss_mib_most=round(max(each.used.rss for each in readings) / MIB, 1),
        rss_mib_last_block=round(points[-1][1] / MIB, 2) if points else None,
        slope_mib_per_hour=None if slope is None else round(slope[0] / MIB, 2),
        slope_95=None if slope is None else (round(slope[1] / MIB, 2), round(slope[2] / MIB, 2)),
        fds_before=first.fds,
        fds_most=max(each.fds for each in readings),
        fds_after=last.fds,
        threads_before=first.threads,
        threads_most=max(each.threads for each in readings),
        threads_after=last.threads,
    )


def blocks(readings: Sequence[Reading], seconds: float) -> list[tuple[float, float]]:
    """(hours, median bytes of memory) of each whole block."""
    skip, length = min(WARM_UP, seconds / 5), min(BLOCK, seconds / 10)
    kept: dict[int, list[int]] = {}
    for each in readings:
        if skip <= each.at < seconds:
            kept.setdefault(int((each.at - skip) // length), []).append(each.used.rss)
    whole = [index for index, rss in kept.items() if len(rss) >= length / READ_EVERY * 0.7]
    return [((skip + (i + 0.5) * length) / 3_600, median(kept[i])) for i in whole]


def theil_sen(points: Sequence[tuple[float, float]]) -> tuple[float, float, float] | None:
    """Slope and its 95 % interval (Sen 1968) of (x, y) pairs with ascending x; None for less than
    four."""
    count = len(points)
    if count < 4:
        return None
    slopes = sorted(
        (b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(points) for b in points[i + 1 :]
    )
    spread = NormalDist().inv_cdf(0.975) * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, math.floor((len(slopes) - spread) / 2))
    high = min(len(slopes) - 1, math.ceil((len(slopes) + spread) / 2))
    return median(slopes), slopes[low], slopes[high]
