"""Metrics and logs. Recording only; nothing here decides anything.

No metric, label or log line ever holds a transcript, audio or a credential.
"""

import logging
import sys
from collections.abc import Callable
from typing import Any

import structlog
from attrs import define, field
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ssasr.protocol.close_codes import EndCause

LATENCY_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Seconds."""
STEP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds."""
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def get_logger(name: str) -> Any:
    return structlog.get_logger(name)


def configure_logging(*, json: bool, level: str = "info") -> None:
    """Called once, by ``cli``. Logs go to stderr; stdout belongs to results."""
    renderer: Any = structlog.processors.JSONRenderer()
    if not json:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


@define(eq=False)
class Metrics:
    """Every metric of the process, in a registry of its own."""

    registry: CollectorRegistry = field(factory=CollectorRegistry)
    sessions: Gauge = field(init=False)
    closes: Counter = field(init=False)
    audio_seconds: Counter = field(init=False)
    failovers: Counter = field(init=False)
    finalization: Histogram = field(init=False)
    streams: Gauge = field(init=False)
    capacity: Gauge = field(init=False)
    load: Gauge = field(init=False)
    refusals: Counter = field(init=False)
    steps: Histogram = field(init=False)
    batch: Histogram = field(init=False)

    def __attrs_post_init__(self) -> None:
        r = self.registry
        self.sessions = Gauge("ssasr_sessions", "Client sessions open now", registry=r)
        self.closes = Counter(
            "ssasr_session_ends", "Sessions ended, by cause", ["cause"], registry=r
        )
        self.audio_seconds = Counter(
            "ssasr_audio_seconds", "Seconds of audio received from clients", registry=r
        )
        self.failovers = Counter(
            "ssasr_failovers", "Streams moved to another engine", ["reason"], registry=r
        )
        self.finalization = Histogram(
            "ssasr_finalization_seconds",
            "From the decision that a turn has ended to its final words",
            registry=r,
            buckets=LATENCY_BUCKETS,
        )
        self.streams = Gauge(
            "ssasr_engine_streams", "Streams that have a place", ["engine"], registry=r
        )
        self.capacity = Gauge("ssasr_engine_capacity", "Places for streams", ["engine"], registry=r)
        self.load = Gauge(
            "ssasr_engine_load_ratio",
            "Share of the last ten seconds that the model was at work",
            ["engine"],
            registry=r,
        )
        self.refusals = Counter(
            "ssasr_engine_refusals", "Streams refused at the handshake", ["reason"], registry=r
        )
        self.steps = Histogram(
            "ssasr_step_seconds", "One model step", ["engine"], registry=r, buckets=STEP_BUCKETS
        )
        self.batch = Histogram(
            "ssasr_batch_streams", "Streams in one step", ["engine"], registry=r,
            buckets=BATCH_BUCKETS,
        )  # fmt: skip

    def watch_engine(
        self,
        engine: str,
        *,
        streams: Callable[[], float],
        capacity: Callable[[], float],
        load: Callable[[], float],
    ) -> None:
        """Publish how much room an engine has; read when the metrics are."""
        self.streams.labels(engine).set_function(streams)
        self.capacity.labels(engine).set_function(capacity)
        self.load.labels(engine).set_function(load)

    def closed(self, cause: EndCause) -> None:
        self.closes.labels(cause.value).inc()

    def step(self, engine: str, streams: int, seconds: float) -> None:
        self.steps.labels(engine).observe(seconds)
        self.batch.labels(engine).observe(streams)

    def exposition(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self.registry)
