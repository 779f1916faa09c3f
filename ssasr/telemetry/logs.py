"""Logs. No line ever holds a transcript, audio or a credential."""

import logging
import sys
from typing import Any, TextIO

import structlog
from attrs import define


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
        logger_factory=structlog.PrintLoggerFactory(LogOutput(sys.stderr)),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )


@define(eq=False)
class LogOutput:
    """Where log lines go. What cannot be written (a full disk, a reader that has gone) is dropped:
    a server must not end, nor a session, because nobody can note what it does."""

    stream: TextIO
    lost: int = 0
    """Writes that failed."""

    def write(self, text: str) -> None:
        try:
            self.stream.write(text)
        except OSError:
            self.lost += 1

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError:
            self.lost += 1
