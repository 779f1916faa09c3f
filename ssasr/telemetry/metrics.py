"""Metrics. Recording only; nothing here decides anything, and no label ever holds a transcript,
audio or a credential.
"""

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import trio
from attrs import define, field, frozen
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from ssasr import __version__
from ssasr.protocol.close_codes import END_CAUSES, EndCause, SessionLimit
from ssasr.protocol.engine_link import Refusal
from ssasr.telemetry.gpu import GpuCollector

LATENCY_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 15.0, 20.0, 30.0)
"""Seconds; an outage of an engine or of the balancer lasts into the tens."""
LOOP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds."""
STEP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds."""
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@frozen
class EngineReadings:
    """What an engine can be asked for at any time, cheaply, from the trio thread."""

    streams: Callable[[], float]
    capacity: Callable[[], float]
    load: Callable[[], float]
    queue_age: Callable[[], float]
    """Seconds."""
    backlog: Callable[[], float]
    """Seconds of audio."""


class Side(enum.Enum):
    """Whose metrics a process has; ``ssasr serve`` has both."""

    GATEWAY = "gateway"
    ENGINE = "engine"


class FailoverReason(enum.Enum):
    """Why a stream was moved to another engine."""

    LOST = "lost"
    SILENT = "silent"
    DRAINING = "draining"


@define(eq=False)
class FollowingCounter(Collector):
    """A counter that also includes running sessions; their share is computed when it is read."""

    name: str
    help: str
    _over: float = 0.0
    _under_way: set[Callable[[], float]] = field(factory=set)

    @contextmanager
    def follow(self, amount: Callable[[], float]) -> Iterator[None]:
        """``amount`` grows until the block ends."""
        self._under_way.add(amount)
        try:
            yield
        finally:
            self._under_way.remove(amount)
            self._over += amount()

    def describe(self) -> list[Metric]:
        return [CounterMetricFamily(self.name, self.help)]

    def collect(self) -> list[Metric]:
        value = self._over + sum(amount() for amount in self._under_way)
        return [CounterMetricFamily(self.name, self.help, value)]


@define(eq=False, slots=False)  # the metrics are attributes by being made
class Metrics:
    """Every metric of the process, in a registry of its own; ``docs/monitoring.md`` lists them.

    A counter whose labels form a closed set has all of its series from the start, at 0: Prometheus'
    ``rate`` does not see the step from nothing to the first event.
    """

    sides: frozenset[Side] = frozenset(Side)
    registry: CollectorRegistry = field(factory=CollectorRegistry)
    scrapes: int = field(default=0, init=False)
    """How often the metrics have been read."""
    _scraped: trio.Event = field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        registry = self.registry
        ProcessCollector(registry=registry)
        build = Gauge("ssasr_build_info", "Always 1; the version", ["version"], registry=registry)
        build.labels(__version__).set(1)
        self.ready = Gauge(
            "ssasr_ready",
            "1 while a session or stream of that model version would be served",
            ["version"],
            registry=registry,
        )
        self.draining = Gauge(
            "ssasr_draining", "1 once the process has been asked to stop", registry=registry
        )
        if Side.GATEWAY in self.sides:
            self._declare_gateway(registry)
            self._declare_records(registry)
        if Side.ENGINE in self.sides:
            self._declare_engine(registry)

    def _declare_gateway(self, r: CollectorRegistry) -> None:
        self.sessions = Gauge("ssasr_sessions", "Client sessions open now", registry=r)
        self.sessions_limit = Gauge("ssasr_sessions_limit", "Sessions admitted at once", registry=r)
        self.closes = Counter(
            "ssasr_session_ends",
            "Sessions ended or refused, by cause and close code",
            ["cause", "code", "limit"],
            registry=r,
        )
        for cause in EndCause:
            for limit in limits_of(cause):
                self.closes.labels(*_end(cause, limit))
        self.audio_seconds = FollowingCounter(
            "ssasr_audio_seconds", "Seconds of audio received from clients"
        )
        r.register(self.audio_seconds)
        self.failovers = Counter(
            "ssasr_failovers", "Streams moved to another engine", ["reason"], registry=r
        )
        for reason in FailoverReason:
            self.failovers.labels(reason.value)
        self.finalization = Histogram(
            "ssasr_finalization_seconds",
            "From what ended a turn, spoken by the client, to its final words",
            registry=r,
            buckets=LATENCY_BUCKETS,
        )
        self.word_lag = Histogram(
            "ssasr_word_lag_seconds",
            "From the end of a word in the audio to its first appearance in an answer",
            registry=r,
            buckets=LATENCY_BUCKETS,
        )
        self.revised_turns = Counter(
            "ssasr_speaker_revised_turns", "Turns whose speakers a revision changed", registry=r
        )
        self.loop_lag = Histogram(
            "ssasr_loop_lag_seconds",
            "How late the process's event loop wakes a task",
            registry=r,
            buckets=LOOP_BUCKETS,
        )
        self.engines_answering = Gauge(
            "ssasr_engines_answering",
            "1 while the engines of that model version answer this gateway",
            ["version"],
            registry=r,
        )

    def _declare_records(self, r: CollectorRegistry) -> None:
        self.licence = Gauge(
            "ssasr_licence_expires_timestamp_seconds",
            "When the licence file expires, Unix time; 0 without one",
            registry=r,
        )

        self.usage_pending = Gauge(
            "ssasr_usage_pending", "Usage records that are not on the disk yet", registry=r
        )
        self.usage_pending_seconds = Gauge(
            "ssasr_usage_pending_seconds", "How long the oldest of them has waited", registry=r
        )
        self.usage_lost = Counter(
            "ssasr_usage_lost", "Usage records given up because they could not be written",
            registry=r,
        )  # fmt: skip

        self.webhooks = Counter(
            "ssasr_webhooks",
            "Webhooks that were sent, failed (each try), were given up, or lost because they could "
            "not be written",
            ["result"],
            registry=r,
        )  # fmt: skip
        self.llm_answers = Counter(
            "ssasr_llm_answers", "Turns that the LLM answered, and that failed", ["result"],
            registry=r,
        )  # fmt: skip
        for result in ("sent", "failed", "given_up", "lost"):
            self.webhooks.labels(result)  # from 0, so that the first one is an increase
        for result in ("answered", "failed"):
            self.llm_answers.labels(result)

    def _declare_engine(self, r: CollectorRegistry) -> None:
        of = ["engine"]
        self.streams = Gauge("ssasr_engine_streams", "Streams that have a place", of, registry=r)
        self.capacity = Gauge("ssasr_engine_capacity", "Places for streams", of, registry=r)
        self.units = Gauge(
            "ssasr_engine_unit_seconds",
            "CPU time of a unit of work, which the capacity was found by",
            ["engine", "unit"],
            registry=r,
        )
        self.load = Gauge(
            "ssasr_engine_load_ratio",
            "Share of the last ten seconds that the model was at work",
            of,
            registry=r,
        )
        self.queue_age = Gauge(
            "ssasr_engine_queue_age_seconds",
            "How long the stream that waits longest has been ready for a step",
            of,
            registry=r,
        )
        self.backlog = Gauge(
            "ssasr_engine_backlog_seconds", "Audio received and not stepped through", of, registry=r
        )
        self.device_memory = Gauge(
            "ssasr_engine_device_memory_bytes",
            "Memory of the device that this process has allocated; none on a CPU",
            of,
            registry=r,
        )
        self.refusals = Counter(
            "ssasr_engine_refusals", "Streams refused at the handshake", ["reason"], registry=r
        )
        for reason in Refusal:
            self.refusals.labels(reason.value)
        self.engine_audio = Counter(
            "ssasr_engine_audio_seconds", "Seconds of audio stepped through", of, registry=r
        )
        self.steps = Histogram(
            "ssasr_step_seconds", "One model step", of, registry=r, buckets=STEP_BUCKETS
        )
        self.batch = Histogram(
            "ssasr_batch_streams", "Streams in one step", of, registry=r, buckets=BATCH_BUCKETS
        )
        self.speaker_windows = Counter(
            "ssasr_engine_speaker_windows",
            "Windows in which speakers were looked for",
            of,
            registry=r,
        )
        self.speaker_seconds = Counter(
            "ssasr_engine_speaker_seconds", "Seconds that this took", of, registry=r
        )

    def watch_engine(self, engine: str, readings: EngineReadings) -> None:
        """Publish the state of an engine; read when the metrics are."""
        self.streams.labels(engine).set_function(readings.streams)
        self.capacity.labels(engine).set_function(readings.capacity)
        self.load.labels(engine).set_function(readings.load)
        self.queue_age.labels(engine).set_function(readings.queue_age)
        self.backlog.labels(engine).set_function(readings.backlog)

    def measured(self, engine: str, seconds: Mapping[str, float]) -> None:
        """What the units of an engine's work take."""
        for unit, took in seconds.items():
            self.units.labels(engine, unit).set(took)

    def watch_device(self, engine: str, allocated: Callable[[], float]) -> None:
        """``allocated``: bytes."""
        self.device_memory.labels(engine).set_function(allocated)

    def watch_gpu(self, collector: GpuCollector) -> None:
        """Of an engine's GPU."""
        self.registry.register(collector)

    def watch_readiness(
        self, ready: Iterable[tuple[str, Callable[[], bool]]], draining: Callable[[], bool]
    ) -> None:
        """Publish whether each model version can be served, and whether the process is stopping."""
        for version, is_ready in ready:
            self.ready.labels(version).set_function(is_ready)
        self.draining.set_function(draining)

    def closed(self, cause: EndCause, limit: SessionLimit | None = None) -> None:
        """A session has ended. ``limit``: which one it met, for TOO_MANY_SESSIONS."""
        self.closes.labels(*_end(cause, limit)).inc()

    def engine_meter(self, engine: str) -> "StepMeter":
        """Looks the labels up once: a step is too often for that."""
        return StepMeter(
            self.steps.labels(engine),
            self.batch.labels(engine),
            self.engine_audio.labels(engine),
            self.speaker_windows.labels(engine),
            self.speaker_seconds.labels(engine),
        )

    async def wait_scraped(self) -> None:
        """Until the metrics are read the next time."""
        await self._scraped.wait()

    def exposition(self) -> bytes:
        """Prometheus text format."""
        self.scrapes += 1
        self._scraped.set()
        self._scraped = trio.Event()
        return generate_latest(self.registry)


def limits_of(cause: EndCause) -> tuple[SessionLimit | None, ...]:
    """The limits that a session can meet when it ends for ``cause``."""
    return tuple(SessionLimit) if cause is EndCause.TOO_MANY_SESSIONS else (None,)


def _end(cause: EndCause, limit: SessionLimit | None) -> tuple[str, str, str]:
    """Label values; an empty one is no label to Prometheus."""
    return cause.value, str(int(END_CAUSES[cause])), limit.value if limit else ""


@frozen
class StepMeter:
    """The metrics of one engine's steps."""

    steps: Histogram
    batch: Histogram
    audio: Counter
    windows: Counter
    window_seconds: Counter

    def listened(self, windows: int, seconds: float) -> None:
        self.windows.inc(windows)
        self.window_seconds.inc(seconds)

    def step(self, streams: int, audio_seconds: float, seconds: float) -> None:
        self.steps.observe(seconds)
        self.batch.observe(streams)
        self.audio.inc(audio_seconds)
