"""OpenTelemetry traces: a span for each session, stream and finalization, for a collector of the
operator's. Off, and then not even imported, unless somebody says where they go.

The span that a task works under travels with the task, as OpenTelemetry's own does, in a context
variable: trio hands it to every task that the task starts. Without a tracer that span is
``NOTHING``, whose methods do nothing, so those who note things need not ask whether anybody reads.

What a span may hold is ``ATTRIBUTES``: no text, no key, no address. Errors are the names of their
types. Spans are exported by a thread of the SDK's own, from a queue with a bound; when it is full
or the collector is gone, spans are lost and sessions go on.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio
from attrs import frozen

from ssasr import __version__
from ssasr.errors import StartRefused
from ssasr.telemetry.logs import get_logger

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer as OtelTracer

PATH = "/v1/traces"
HEADER = "traceparent"
"""W3C Trace Context."""
FLUSH_SECONDS = 3.0
"""For the last spans to leave when the process ends."""
ATTRIBUTES = frozenset(
    {
        "session_id", "model_version", "speech_model", "family", "model", "engine", "attempt",
        "moved_because", "segment", "position_seconds", "audio_seconds", "turns", "words", "cause",
        "close_code", "error",
    }
)  # fmt: skip
"""All that a span may hold, each with ``ssasr.`` in front; ``docs/monitoring.md`` explains them."""

Value = str | int | float

log = get_logger(__name__)


@frozen
class Span:
    """Nothing at all; ``_Recorded`` is one."""

    def child(self, name: str, *, calls_out: bool = False, **attributes: Value) -> "Span":
        """``calls_out``: it is the client's side of work that another process does."""
        return self

    def note(self, **attributes: Value) -> None: ...

    def end(self) -> None: ...

    def headers(self) -> list[tuple[str, str]]:
        """By which another process makes its spans children of this one."""
        return []


NOTHING = Span()
_current: ContextVar[Span] = ContextVar("ssasr_span", default=NOTHING)


@frozen
class Tracer:
    """Traces nothing; ``_RecordingTracer`` does."""

    def begin(self, name: str, traceparent: str = "", **attributes: Value) -> Span:
        """``traceparent``: of the span in another process that this is a part of."""
        return NOTHING


OFF = Tracer()


def current() -> Span:
    """What this task works under."""
    return _current.get()


@contextmanager
def working_under(span: Span) -> Iterator[Span]:
    """Until the block ends, which ends the span."""
    token = _current.set(span)
    try:
        yield span
    except Exception as error:
        span.note(error=type(error).__name__)
        raise
    finally:
        _current.reset(token)
        span.end()


def child_span(
    name: str, *, calls_out: bool = False, **attributes: Value
) -> AbstractContextManager[Span]:
    """``working_under`` a child of the current span."""
    return working_under(current().child(name, calls_out=calls_out, **attributes))


# -- what is only used once somebody has asked for traces ------------------------------------------


@frozen
class Destination:
    """``url``: None leaves everything to OpenTelemetry's own environment variables."""

    url: str | None


def destination(endpoint: str | None, environment: Mapping[str, str]) -> Destination | None:
    """Where traces go, if anywhere: ours wins over OpenTelemetry's own variables, which count as
    they do everywhere. Raises StartRefused."""
    if endpoint is not None:
        parts = urlsplit(endpoint)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
            raise StartRefused(f"{endpoint!r} is not an address for traces (http://HOST:4318)")
        url = endpoint.rstrip("/")
        return Destination(url if url.endswith(PATH) else url + PATH)
    wanted = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environment.get(
        "OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    exporter = environment.get("OTEL_TRACES_EXPORTER", "otlp")
    return Destination(None) if wanted and not disabled and exporter == "otlp" else None


@asynccontextmanager
async def tracing(to: Destination | None, service: str) -> AsyncIterator[Tracer]:
    """The process's tracer; what it has recorded is sent before this ends, but not for long.
    ``service``: OTEL_SERVICE_NAME wins. Raises StartRefused."""
    if to is None:
        yield OFF
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise StartRefused("traces need more packages: pip install 'ssasr[otel]'") from None
    exporter = OTLPSpanExporter(to.url)
    async with exported(exporter, service) as tracer:
        yield tracer


@asynccontextmanager
async def exported(exporter: "SpanExporter", service: str) -> AsyncIterator[Tracer]:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from ssasr.telemetry.tracing_export import ReportingExporter, quiet_sdk

    quiet_sdk()
    resource = Resource.create({"service.name": service, "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(ReportingExporter(exporter)))
    try:
        yield _RecordingTracer(provider.get_tracer("ssasr", __version__))
    finally:
        with trio.move_on_after(FLUSH_SECONDS, shield=True) as scope:
            await trio.to_thread.run_sync(provider.shutdown, abandon_on_cancel=True)
        if scope.cancelled_caught:
            exporter.shutdown()  # so that the thread which tries and tries again gives up


@frozen
class _RecordingTracer(Tracer):
    tracer: "OtelTracer"

    def begin(self, name: str, traceparent: str = "", **attributes: Value) -> Span:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        context = TraceContextTextMapPropagator().extract({HEADER: traceparent})
        span = self.tracer.start_span(
            name, context, SpanKind.SERVER, attributes=_attributes(attributes)
        )
        return _Recorded(self.tracer, span)


@frozen
class _Recorded(Span):
    tracer: "OtelTracer"
    span: "OtelSpan"

    def child(self, name: str, *, calls_out: bool = False, **attributes: Value) -> Span:
        from opentelemetry.trace import SpanKind, set_span_in_context

        kind = SpanKind.CLIENT if calls_out else SpanKind.INTERNAL
        context = set_span_in_context(self.span)
        span = self.tracer.start_span(name, context, kind, attributes=_attributes(attributes))
        return _Recorded(self.tracer, span)

    def note(self, **attributes: Value) -> None:
        self.span.set_attributes(_attributes(attributes))
        if "error" in attributes:
            from opentelemetry.trace import StatusCode

            self.span.set_status(StatusCode.ERROR)

    def end(self) -> None:
        self.span.end()

    def headers(self) -> list[tuple[str, str]]:
        from opentelemetry.trace import set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, set_span_in_context(self.span))
        return [(HEADER, carrier[HEADER])] if HEADER in carrier else []


def _attributes(given: Mapping[str, Value]) -> dict[str, Value]:
    assert given.keys() <= ATTRIBUTES, f"not to be exported: {given.keys() - ATTRIBUTES}"
    return {f"ssasr.{name}": value for name, value in given.items()}
