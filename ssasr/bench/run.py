"""A run of N streams, and the search for the largest N within a bound."""

import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from types import MappingProxyType
from urllib.parse import urlsplit

import trio
from attrs import define, frozen

from ssasr.bench.faults import Fault
from ssasr.bench.measure import Samples, Spread, collect, spread, word_error_rate
from ssasr.bench.player import StreamLog, Target, play_all
from ssasr.bench.processes import Usage, name_of, serving_url, usage
from ssasr.bench.recordings import (
    MESSAGE_SECONDS,
    Recording,
    bundled_recordings,
    make_track,
    read_recordings,
)
from ssasr.client.connection import ClientError, session_url
from ssasr.errors import SsasrError
from ssasr.protocol.faults import ClientFault
from ssasr.protocol.parameters import parse_parameters
from ssasr.protocol.settings import TurnSettings, turn_settings

SPREAD_SECONDS = 3.0
"""Over which the streams of a run begin."""
FIND_PROCESSES = 1.0
"""Seconds into the run, when every process on the way has its connections."""
LATE = 0.020
"""A client that comes to 1 % of its messages later than this was busy itself."""
BUSY = 0.85
"""Share of a core beyond which the client is the bottleneck."""
DRAINED = 1.0
"""Seconds, beyond the bound, that a stream may take from its last audio to its close frame before
what is left to do counts as backlog."""
MOST_STREAMS = 4_096


@frozen
class BenchConfig:
    """``bound``: seconds of finalization latency, p95."""

    endpoint: str
    key: str
    streams: int
    bound: float
    seconds: float
    audio: Path | None = None
    transcripts: Path | None = None
    parameters: Mapping[str, object] = MappingProxyType({})
    gap: float = 2.0
    message_seconds: float = MESSAGE_SECONDS
    seed: int = 1
    pids: tuple[int, ...] = ()
    faults: Sequence[Fault] = ()
    fault_target: str = ""
    """Part of the command line of the processes that the faults are done to."""


@frozen
class ProcessUse:
    """One process over one run."""

    pid: int
    name: str
    cpu_seconds: float
    cores: float
    cpu_per_message: float | None
    """Seconds for each audio message that the clients sent."""
    rss: int
    rss_before: int


@frozen
class ClientUse:
    """What the load generator itself took."""

    cores: float
    lateness: Spread
    bottleneck: str
    """Why the figures say more of the client than of the server; "" if they do not."""


@frozen(eq=False)
class Outcome:
    """One run."""

    streams: int
    seconds: float
    samples: Samples
    first_partial: Spread
    first_seen: Spread
    final: Spread
    finalization: Spread
    drain: Spread
    wer: float | None
    processes: Sequence[ProcessUse]
    client: ClientUse
    failures: Sequence[str]
    """Why N streams are too many; nothing if they are not."""


def load_recordings(config: BenchConfig) -> list[Recording]:
    """Raises AudioError."""
    if config.audio is None:
        return bundled_recordings(config.gap, config.message_seconds)
    return read_recordings(config.audio, config.transcripts, config.gap, config.message_seconds)


def target_of(config: BenchConfig) -> Target:
    return Target(session_url(config.endpoint, config.parameters), config.key)


def check_begun(config: BenchConfig, logs: Sequence[StreamLog]) -> None:
    """Raises SsasrError if not one session could be opened."""
    if all(log.began is None for log in logs):
        raise SsasrError(f"no session on {config.endpoint}: {logs[0].problem or logs[0].code}")


def session_settings(config: BenchConfig) -> TurnSettings:
    """What the server will make of the parameters. Raises ClientError."""
    url = session_url(config.endpoint, config.parameters)
    try:
        return turn_settings(parse_parameters(urlsplit(url).query))
    except ClientFault as fault:
        raise ClientError(fault.text) from None


async def run_streams(
    config: BenchConfig, recordings: Sequence[Recording], streams: int
) -> Outcome:
    """Raises SsasrError if not one session could be opened."""
    random = Random(f"{config.seed} {streams}")
    tracks = [
        make_track(recordings, config.seconds, config.message_seconds, random)
        for _ in range(streams)
    ]
    target = target_of(config)
    measurement = Measurement(config)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(measurement.run)
        started, own = trio.current_time(), _own_cpu()
        logs = await play_all(target, tracks, spread=SPREAD_SECONDS, random=random)
        seconds, cpu = trio.current_time() - started, _own_cpu() - own
        nursery.cancel_scope.cancel()
    check_begun(config, logs)
    samples = collect(logs, session_settings(config))
    processes = measurement.processes(seconds, samples.messages)
    return _outcome(config, streams, seconds, samples, processes, cpu / seconds)


def _outcome(
    config: BenchConfig,
    streams: int,
    seconds: float,
    samples: Samples,
    processes: Sequence[ProcessUse],
    client_cores: float,
) -> Outcome:
    finalization = spread([latency for _, latency in samples.finalization])
    drain = spread(samples.drain)
    lateness = spread(samples.lateness)
    return Outcome(
        streams=streams,
        seconds=seconds,
        samples=samples,
        first_partial=spread(samples.first_partial),
        first_seen=spread(samples.first_seen),
        final=spread(samples.final),
        finalization=finalization,
        drain=drain,
        wer=word_error_rate(samples.transcripts),
        processes=processes,
        client=ClientUse(client_cores, lateness, _bottleneck(client_cores, lateness)),
        failures=_failures(config, streams, samples, finalization, drain),
    )


def _bottleneck(cores: float, lateness: Spread) -> str:
    if cores > BUSY:
        return f"the clients took {cores:.0%} of a core"
    if lateness.p99 is not None and lateness.p99 > LATE:
        return f"1 % of the messages were sent more than {lateness.p99 * 1e3:.0f} ms late"
    return ""


def _failures(
    config: BenchConfig, streams: int, samples: Samples, finalization: Spread, drain: Spread
) -> list[str]:
    failures = []
    good = samples.codes.get(1000, 0)
    if good < streams:
        failures.append(f"{streams - good} of {streams} sessions did not end well")
    if finalization.p95 is None:
        failures.append("no turn ended")
    elif finalization.p95 > config.bound:
        failures.append(f"finalization p95 {finalization.p95:.3f} s > {config.bound} s")
    if drain.p95 is not None and drain.p95 > config.bound + DRAINED:
        failures.append(f"backlog of {drain.p95:.1f} s at the end")
    return failures


def _own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Measurement:
    """CPU and memory of the server's processes over one run. What has no connection when the run
    begins (an engine that gets its first stream then) is found a little later and counts from
    there."""

    def __init__(self, config: BenchConfig) -> None:
        self._config = config
        self._before: dict[int, Usage] = {}
        self._from_start: set[int] = set()

    async def run(self) -> None:
        self._note(self._config.pids or serving_url(self._config.endpoint))
        self._from_start = set(self._before)
        if not self._config.pids:
            await trio.sleep(FIND_PROCESSES + SPREAD_SECONDS)
            self._note(serving_url(self._config.endpoint))

    def processes(self, seconds: float, messages: int) -> list[ProcessUse]:
        found = []
        for pid, before in self._before.items():
            now = usage(pid)
            if now is None:
                continue
            cpu = now.cpu_seconds - before.cpu_seconds
            whole = pid in self._from_start
            window = seconds if whole else max(seconds - FIND_PROCESSES - SPREAD_SECONDS, 1.0)
            each = cpu / messages if messages and whole else None
            found.append(
                ProcessUse(pid, name_of(pid), cpu, cpu / window, each, now.rss, before.rss)
            )
        return found

    def _note(self, pids: Sequence[int]) -> None:
        for pid in pids:
            used = usage(pid)
            if used is not None:
                self._before.setdefault(pid, used)


@define
class Search:
    """For the largest number that goes well, to about 10 %: the first one doubled while it goes
    well, then halved intervals. ``streams`` is what to try next; None at the end."""

    streams: int | None
    good: int = 0
    _bad: int = 0

    def note(self, went_well: bool) -> None:
        """How it went with ``streams``."""
        assert self.streams is not None, "the search has ended"
        if went_well:
            self.good = self.streams
        else:
            self._bad = self.streams
        if not self._bad:
            self.streams = 2 * self.good if self.good < MOST_STREAMS else None
        elif self._bad - self.good <= max(1, self.good // 10):
            self.streams = None
        else:
            self.streams = (self.good + self._bad) // 2


async def find_capacity(
    config: BenchConfig, recordings: Sequence[Recording]
) -> tuple[int, list[Outcome]]:
    """The most streams within the bound, from ``config.streams`` on, and every run on the way. Ends
    early when the client is the bottleneck: more would measure the client."""
    outcomes: list[Outcome] = []
    search = Search(config.streams)
    while search.streams is not None:
        outcome = await run_streams(config, recordings, search.streams)
        outcomes.append(outcome)
        if outcome.client.bottleneck:
            break
        search.note(not outcome.failures)
    return search.good, outcomes
