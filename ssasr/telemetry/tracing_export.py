"""What the tracing thread says of itself. Imported only where traces are on: it needs their SDK."""

import logging
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from ssasr.telemetry.logs import get_logger

log = get_logger(__name__)


def quiet_sdk() -> None:
    """The SDK logs each batch that it cannot deliver, and each attempt, in a format of its own."""
    logger = logging.getLogger("opentelemetry")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False


class ReportingExporter(SpanExporter):
    """``exporter``, and one line in the log when it stops or starts to get spans away."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._delivers = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        delivers = result is SpanExportResult.SUCCESS
        if delivers and not self._delivers:
            log.info("traces are delivered again")
        elif self._delivers and not delivers:
            log.warning("traces are not delivered, and are lost until they are")
        self._delivers = delivers
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
