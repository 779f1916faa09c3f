"""Metrics. Recording only; nothing here decides anything, and no label ever holds a transcript,
audio or a credential.
"""

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import trio
from attrs import define, field
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

LATENCY_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 15.0, 20.0, 30.0)
"""Seconds; an outage of an engine or of the balancer lasts into the tens."""
LOOP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds."""
STEP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds."""
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


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
    scraped: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)
    """Where to wait until they are read the next time."""

    def __attrs_post_init__(self) -> None:
        ProcessCollector(registry=self.registry)
        build = self._gauge("ssasr_build_info", "Always 1; the version", "version")
        build.labels(__version__).set(1)
        self.ready = self._gauge(
            "ssasr_ready",
            "1 while a session or stream of that model version would be served",
            "version",
        )
        self.draining = self._gauge("ssasr_draining", "1 once the process has been asked to stop")
        if Side.GATEWAY in self.sides:
            self._declare_gateway()
            self._declare_records()
        if Side.ENGINE in self.sides:
            self._declare_engine()

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str, values: Iterable[str] = ()) -> Counter:
        """``values``: of the only label, all that there are."""
        counter = Counter(name, text, labels, registry=self.registry)
        for value in values:
            counter.labels(value)
        return counter

    def _histogram(self, name: str, text: str, *labels: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=buckets)

    def _declare_gateway(self) -> None:
        self.sessions = self._gauge("ssasr_sessions", "Client sessions open now")
        self.sessions_limit = self._gauge("ssasr_sessions_limit", "Sessions admitted at once")
        self.closes = self._counter(
            "ssasr_session_ends",
            "Sessions ended or refused, by cause and close code",
            "cause", "code", "limit",
        )  # fmt: skip
        for cause in EndCause:
            for limit in limits_of(cause):
                self.closes.labels(*_end(cause, limit))
        self.audio_seconds = FollowingCounter(
            "ssasr_audio_seconds", "Seconds of audio received from clients"
        )
        self.registry.register(self.audio_seconds)
        self.failovers = self._counter(
            "ssasr_failovers",
            "Streams moved to another engine",
            "reason",
            values=[reason.value for reason in FailoverReason],
        )
        self.finalization = self._histogram(
            "ssasr_finalization_seconds",
            "From what ended a turn, spoken by the client, to its final words",
            buckets=LATENCY_BUCKETS,
        )
        self.word_lag = self._histogram(
            "ssasr_word_lag_seconds",
            "From the end of a word in the audio to its first appearance in an answer",
            buckets=LATENCY_BUCKETS,
        )
        self.revised_turns = self._counter(
            "ssasr_speaker_revised_turns", "Turns whose speakers a revision changed"
        )
        self.loop_lag = self._histogram(
            "ssasr_loop_lag_seconds",
            "How late the process's event loop wakes a task",
            buckets=LOOP_BUCKETS,
        )
        self.engines_answering = self._gauge(
            "ssasr_engines_answering",
            "1 while the engines of that model version answer this gateway",
            "version",
        )

    def _declare_records(self) -> None:
        self.licence = self._gauge(
            "ssasr_licence_expires_timestamp_seconds",
            "When the licence file expires, Unix time; 0 without one",
        )
        self.usage_pending = self._gauge(
            "ssasr_usage_pending", "Usage records that are not on the disk yet"
        )
        self.usage_pending_seconds = self._gauge(
            "ssasr_usage_pending_seconds", "How long the oldest of them has waited"
        )
        self.usage_lost = self._counter(
            "ssasr_usage_lost", "Usage records given up because they could not be written"
        )
        self.webhooks = self._counter(
            "ssasr_webhooks",
            "Webhooks that were sent, failed (each try), were given up, or lost because they could "
            "not be written",
            "result",
            values=("sent", "failed", "given_up", "lost"),
        )
        self.llm_answers = self._counter(
            "ssasr_llm_answers",
            "Turns that the LLM answered, and that failed",
            "result",
            values=("answered", "failed"),
        )

    def _declare_engine(self) -> None:
        gauge, of = self._gauge, "engine"
        self.streams = gauge("ssasr_engine_streams", "Streams that have a place", of)
        self.capacity = gauge("ssasr_engine_capacity", "Places for streams", of)
        self.units = gauge(
            "ssasr_engine_unit_seconds",
            "CPU time of a unit of work, which the capacity was found by",
            of,
            "unit",
        )
        self.load = gauge(
            "ssasr_engine_load_ratio",
            "Share of the last ten seconds that the model was at work",
            of,
        )
        self.queue_age = gauge(
            "ssasr_engine_queue_age_seconds",
            "How long the stream that waits longest has been ready for a step",
            of,
        )
        self.backlog = gauge(
            "ssasr_engine_backlog_seconds", "Audio received and not stepped through", of
        )
        self.device_memory = gauge(
            "ssasr_engine_device_memory_bytes",
            "Memory of the device that this process has allocated; none on a CPU",
            of,
        )
        self._declare_steps(of)

    def _declare_steps(self, of: str) -> None:
        counter = self._counter
        self.refusals = counter(
            "ssasr_engine_refusals",
            "Streams refused at the handshake",
            "reason",
            values=[reason.value for reason in Refusal],
        )
        self.engine_audio = counter(
            "ssasr_engine_audio_seconds", "Seconds of audio stepped through", of
        )
        self.steps = self._histogram(
            "ssasr_step_seconds", "One model step", of, buckets=STEP_BUCKETS
        )
        self.batch = self._histogram(
            "ssasr_batch_streams", "Streams in one step", of, buckets=BATCH_BUCKETS
        )
        self.speaker_windows = counter(
            "ssasr_engine_speaker_windows", "Windows in which speakers were looked for", of
        )
        self.speaker_seconds = counter("ssasr_engine_speaker_seconds", "Seconds that this took", of)

    def closed(self, cause: EndCause, limit: SessionLimit | None = None) -> None:
        """A session has ended. ``limit``: which one it met, for TOO_MANY_SESSIONS."""
        self.closes.labels(*_end(cause, limit)).inc()

    def exposition(self) -> bytes:
        """Prometheus text format."""
        self.scrapes += 1
        self.scraped.unpark_all()
        return generate_latest(self.registry)


def limits_of(cause: EndCause) -> tuple[SessionLimit | None, ...]:
    """The limits that a session can meet when it ends for ``cause``."""
    return tuple(SessionLimit) if cause is EndCause.TOO_MANY_SESSIONS else (None,)


def _end(cause: EndCause, limit: SessionLimit | None) -> tuple[str, str, str]:
    """Label values; an empty one is no label to Prometheus."""
    return cause.value, str(int(END_CAUSES[cause])), limit.value if limit else ""
