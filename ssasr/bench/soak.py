"""Hours of churn at a fixed number of clients: does anything grow, does any session end otherwise
than its client meant it to?

The clients speak in real time, 20 to 60 s each, begun at random moments; each ends in one of
four ways (``ENDINGS``) and the next one takes its place at once.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random

import trio
from attrs import define, evolve, field, frozen

from ssasr.bench.frames import CLOSE, encode_frame
from ssasr.bench.growth import Growth, ProcessWatch
from ssasr.bench.player import NO_CLOSE, Player, StreamLog
from ssasr.bench.processes import serving_url
from ssasr.bench.recordings import Recording, make_track
from ssasr.bench.run import BenchConfig, check_begun, target_of
from ssasr.bench.server_metrics import read_metrics, session_ends
from ssasr.runtime.process import plain_nursery

SHORTEST, LONGEST = 20.0, 60.0
"""Seconds of audio of a session."""
INACTIVITY = 5
"""Seconds; the least that the protocol allows."""
IDLE_SECONDS = 20.0
"""After the last session, until what it held is given back."""
PROGRESS_SECONDS = 60.0


@frozen
class Ending:
    """How a session ends: how often, the close code that its client sees, the causes that the
    gateway may count for it."""

    share: float
    code: int
    causes: frozenset[str]


ENDINGS = {
    "terminate": Ending(0.6, 1_000, frozenset({"terminated"})),
    "close": Ending(0.15, 1_000, frozenset({"client_closed"})),
    "vanish": Ending(0.15, NO_CLOSE, frozenset({"client_closed", "client_vanished"})),
    "fall silent": Ending(0.1, 3_006, frozenset({"inactive"})),
}

Progress = Callable[[str], None]


@frozen(eq=False)
class SoakOutcome:
    """``unexplained``: closes that no client meant, one a line. ``ends``: the sessions' ends by
    cause as the gateway counts them, None where it shows no metrics."""

    minutes: float
    streams: int
    endings: Mapping[str, int]
    codes: Mapping[int, int]
    ends: Mapping[str, float] | None
    unexplained: Sequence[str]
    audio_hours: float
    processes: Mapping[str, Growth]

    @property
    def sessions(self) -> int:
        return sum(self.endings.values())


@define(eq=False, kw_only=True)
class SoakClient(Player):
    """One session, and how it ends (a key of ``ENDINGS``)."""

    ending: str

    async def _terminate(self) -> None:
        match self.ending:
            case "terminate":
                await super()._terminate()
            case "close":
                await self._stream.send_all(encode_frame(CLOSE, b"\x03\xe8"))
            case "vanish":
                await trio.aclose_forcefully(self._stream)

    def problem(self) -> str:
        """What was not as it should be; "" if nothing."""
        log = self.log
        if log.code != ENDINGS[self.ending].code:
            return f"{self.ending}: closed with {log.code} ({log.problem})"
        terminated = '"Termination"' in (log.arrivals[-1][1] if log.arrivals else "")
        if terminated != (self.ending == "terminate"):
            return f"{self.ending}: {'a' if terminated else 'no'} Termination"
        if sum('"Turn"' in text for _, text in log.arrivals) < 3:
            return f"{self.ending}: hardly any words"
        return ""


@define(eq=False)
class SoakRun:
    """All the sessions of a run."""

    config: BenchConfig
    recordings: Sequence[Recording]
    random: Random
    endings: Counter[str] = field(factory=Counter)
    codes: Counter[int] = field(factory=Counter)
    problems: list[str] = field(factory=list)
    audio_seconds: float = 0.0

    async def run_sessions(self, delay: float, until: float) -> None:
        """One client after the other."""
        await trio.sleep(delay)
        while trio.current_time() < until:
            await self.run_session()

    async def run_session(self) -> None:
        (ending,) = self.random.choices(list(ENDINGS), [each.share for each in ENDINGS.values()])
        config = self.config
        seconds = self.random.uniform(SHORTEST, LONGEST)
        track = make_track(self.recordings, seconds, config.message_seconds, self.random)
        if ending == "fall silent":
            parameters = {**config.parameters, "inactivity_timeout": INACTIVITY}
            config = evolve(config, parameters=parameters)
        client = SoakClient(target_of(config), StreamLog(track), ending=ending)
        await client.play()
        log = client.log
        if not self.endings:
            check_begun(config, [log])
        self.endings[ending] += 1
        self.codes[log.code or NO_CLOSE] += 1
        self.audio_seconds += log.sent * track.message_seconds
        if problem := client.problem():
            self.problems.append(problem)

    def unexplained(self, ends: Mapping[str, float] | None) -> list[str]:
        """What clients complain of, and causes that the gateway counted and no client meant."""
        problems = list(self.problems)
        if ends is None:
            return problems
        meant = Counter({ending.causes: self.endings[name] for name, ending in ENDINGS.items()})
        left = ENDINGS["close"].causes | ENDINGS["vanish"].causes
        meant[left] = meant.pop(ENDINGS["close"].causes) + self.endings["vanish"]
        for causes, count in meant.items():
            counted = sum(ends.get(cause, 0) for cause in causes)
            if counted != count:
                name = " or ".join(sorted(causes))
                problems.append(f"{name}: the gateway counted {counted:.0f}, meant {count}")
        known = frozenset().union(*meant)
        return problems + [f"{c}: {n:.0f}" for c, n in sorted(ends.items()) if c not in known]

    async def report(self, minutes: float, watch: ProcessWatch, progress: Progress) -> None:
        """Say once a minute how far it is, for ever."""
        for minute in range(1, math.ceil(minutes) + 1):
            await trio.sleep(PROGRESS_SECONDS)
            memory = ", ".join(
                f"{watch.names[pid]} {readings[-1].used.rss >> 20} MiB"
                for pid, readings in watch.readings.items()
            )
            progress(
                f"{minute} of {minutes:g} min: {self.endings.total()} sessions ended, "
                f"{len(self.problems)} otherwise than meant; {memory or 'no processes seen'}"
            )


async def soak(
    config: BenchConfig, recordings: Sequence[Recording], minutes: float, progress: Progress
) -> SoakOutcome:
    """``config.streams`` clients at once for so many minutes, until the last has ended. Raises
    SsasrError if the first session cannot be opened."""
    run = SoakRun(config, recordings, Random(config.seed))
    watch = ProcessWatch(lambda: config.pids or serving_url(config.endpoint))
    before, until = await read_metrics(config.endpoint), trio.current_time() + minutes * 60
    async with plain_nursery() as watching:
        watching.start_soon(watch.run)
        watching.start_soon(run.report, minutes, watch, progress)
        async with trio.open_nursery() as visiting:
            for index in range(config.streams):
                delay = run.random.uniform(0, min(LONGEST, minutes * 60)) if index else 0.0
                visiting.start_soon(run.run_sessions, delay, until)
        watching.cancel_scope.cancel()
    await trio.sleep(IDLE_SECONDS)
    watch.read()
    ends = session_ends(before, await read_metrics(config.endpoint))
    gone = [f"{name} has ended" for name in watch.gone()]
    return SoakOutcome(
        minutes=minutes,
        streams=config.streams,
        endings=dict(run.endings),
        codes=dict(sorted(run.codes.items())),
        ends=ends,
        unexplained=run.unexplained(ends) + gone,
        audio_hours=round(run.audio_seconds / 3_600, 2),
        processes=watch.growth(minutes * 60),
    )
