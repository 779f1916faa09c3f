"""Files that somebody else replaces while the process runs: keys, certificates."""

from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from ssasr.telemetry.logs import get_logger

log = get_logger(__name__)

PERIOD = 2.0
"""Seconds between two looks; one ``stat`` a file."""

_Stamp = tuple[int, int, int] | None


async def watch_files(paths: Sequence[Path], changed: Callable[[], None]) -> None:
    """Call ``changed`` whenever one of the files is another one than before, until cancelled. Not
    before two looks have found the same, for files may be half written, and a key is not replaced
    at the same moment as its certificate."""
    taken = before = _stamps(paths)
    while True:
        await trio.sleep(PERIOD)
        now = _stamps(paths)
        if now == before != taken:
            taken = now
            log.info("files have changed")
            changed()
        before = now


def _stamps(paths: Sequence[Path]) -> list[_Stamp]:
    return [_stamp(path) for path in paths]


def _stamp(path: Path) -> _Stamp:
    """Of what a link leads to: Kubernetes replaces a folder of all files by moving a link."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
