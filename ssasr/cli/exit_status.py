"""What a process ends with."""

import sys
from collections.abc import Callable

from ssasr.errors import SsasrError, UsageError
from ssasr.telemetry.logs import get_logger


def exit_status(command: Callable[[], int | None]) -> int:
    """What a process that does this ends with; why it failed is on stderr."""
    try:
        return command() or 0
    except UsageError as error:
        sys.stderr.write(f"ssasr: {error}\n")
        return 2
    except (SsasrError, OSError) as error:
        sys.stderr.write(f"ssasr: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        get_logger(__name__).critical("fatal fault", exc_info=error)
        sys.stderr.write(f"ssasr: fatal: {type(error).__name__}: {error}\n")
        return 1
