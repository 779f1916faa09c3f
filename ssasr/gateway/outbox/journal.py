"""Lines that survive: what an outbox sends, and the operator's usage records.

They are kept in numbered segment files that are only ever appended to. A number is not used again
when its segment has been removed, since who reads them goes by it. A batch is on the disk
(fsync) before anybody may take it for written; a new segment has its name once its first lines are
whole, so that a reader or a crash finds all of it or nothing. A line that a crash tore is cut off
at the next start. While the disk is full or gone the lines wait in memory, up to a bound, and
sessions go on.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import trio
from attrs import define, field

from ssasr.errors import StartRefused
from ssasr.runtime.durable import sync_directory
from ssasr.telemetry.logs import get_logger

SEGMENT_BYTES = 16 << 20
"""A segment that has grown to this is closed and the next one begun: some 70,000 usage records."""
MOST_WAITING = 50 << 20
"""Bytes in memory while the disk takes none, some 200,000 usage records; beyond it the oldest lines
are lost, and that is logged."""
RETRY_SECONDS = 5.0

log = get_logger(__name__)


def segments(directory: Path, name: str) -> list[Path]:
    """Oldest first."""
    return sorted(directory.glob(f"{name}-????????.jsonl"))


def number_of(segment: str) -> int:
    """By its name; 0: it is none."""
    number = segment.removesuffix(".jsonl").rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def _ignore(_: int) -> None:
    pass


@define(eq=False)
class Journal:
    """``add`` from any session; ``run`` writes until cancelled, and then what is left. ``name``:
    what its segments' names begin with; ``what``: what the log calls its lines. ``segment_bytes``:
    0 makes a segment of every line, which can be removed by itself."""

    directory: Path
    name: str
    what: str
    segment_bytes: int = SEGMENT_BYTES
    retry_seconds: float = RETRY_SECONDS
    most_waiting: int = MOST_WAITING
    mode: int = 0o640
    """Who may read the segments."""
    on_lost: Callable[[int], None] = _ignore
    """Called with the number of lines that were just given up."""
    written: int = 0
    lost: int = 0
    newest: int = 0
    """Number of a segment that has been; the next one has a higher one."""
    _waiting: deque[tuple[float, bytes]] = field(factory=deque)
    """Lines that are not on the disk, oldest first, and when each was added."""
    _waiting_bytes: int = 0
    _writing: bool = False
    _wake: trio.Event = field(factory=trio.Event)
    _grown: trio.Event = field(factory=trio.Event)

    def prepare(self) -> "Journal":
        """Makes the directory, mends what a crash left; the journal itself. Raises StartRefused."""
        directory = self.directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for unfinished in directory.glob(f".{self.name}-????????.jsonl"):
                unfinished.unlink()
            for segment in segments(directory, self.name)[-1:]:
                cut_torn_line(segment)
            probe = directory / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StartRefused(f"cannot keep {self.what} in {directory}: {error}") from error
        return self

    def add(self, line: bytes) -> None:
        """Never waits and never fails: a session does not end worse for it."""
        self._waiting.append((trio.current_time(), line))
        self._waiting_bytes += len(line)
        self._drop_excess()
        self._wake.set()

    async def run(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                if not await self._write_waiting():
                    await trio.sleep(self.retry_seconds)
                    self._wake.set()
        finally:
            # Sessions that have just been drained are among what waits; not a wait, so no shield.
            self._remove(self._append([line for _, line in self._waiting]))
            if self._waiting:
                self._lose(len(self._waiting))

    @property
    def pending(self) -> int:
        """Lines that are not on the disk yet."""
        return len(self._waiting)

    @property
    def pending_seconds(self) -> float:
        """How long the oldest of them has waited."""
        return trio.current_time() - self._waiting[0][0] if self._waiting else 0.0

    def _lose(self, count: int) -> None:
        self.lost += count
        log.error("lines lost", of=self.what, count=count, in_all=self.lost)
        self.on_lost(count)

    @property
    def growth(self) -> trio.Event:
        """Set when something more is on the disk than now."""
        return self._grown

    async def _write_waiting(self) -> bool:
        batch = [line for _, line in self._waiting]
        if not batch:
            return True
        self._writing = True
        try:
            done = await trio.to_thread.run_sync(self._append, batch)
        finally:  # it may be cancelled before the thread has begun
            self._writing = False
        self._remove(done)
        self._drop_excess()
        self._grown.set()
        self._grown = trio.Event()
        return done == len(batch)

    def _remove(self, count: int) -> None:
        """Forget the oldest ``count`` lines."""
        for _ in range(count):
            self._waiting_bytes -= len(self._waiting.popleft()[1])

    def _drop_excess(self) -> None:
        """Lose the oldest lines beyond the bound, unless they are just being written."""
        while self._waiting_bytes > self.most_waiting and not self._writing:
            self._remove(1)
            self._lose(1)

    def _append(self, batch: list[bytes]) -> int:
        """Blocks. How many lines, from the first on, count as written."""
        done = 0
        try:
            for lines in (batch,) if self.segment_bytes else ((line,) for line in batch):
                if lines:
                    self.newest = append_lines(
                        self.directory, self.name, lines, self.segment_bytes, self.mode, self.newest
                    )
                done += len(lines)
        except OSError as error:
            log.error("lines not written, will try again", of=self.what, error=str(error))
        self.written += done
        return done


def append_lines(
    directory: Path,
    name: str,
    lines: Iterable[bytes],
    segment_bytes: int,
    mode: int = 0o640,
    newest: int = 0,
) -> int:
    """All of them or, after a failure, none: a half-written batch is cut off again. The number of
    the segment that they are in: the last one, or a new one above it and ``newest``."""
    number = max((number_of(path.name) for path in segments(directory, name)), default=0)
    segment = _segment(directory, name, number)
    fresh = not (number and segment_bytes) or segment.stat().st_size >= segment_bytes
    if fresh:
        number = max(number, newest) + 1
        segment = _segment(directory, name, number)
    path = segment.with_name(f".{segment.name}") if fresh else segment
    flags = os.O_WRONLY | os.O_APPEND | (os.O_CREAT | os.O_TRUNC if fresh else 0)
    handle = os.open(path, flags, mode)
    try:
        size = os.fstat(handle).st_size
        try:
            _write_all(handle, b"".join(lines))
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)
    if fresh:
        path.replace(segment)
        sync_directory(directory)
    return number


def _segment(directory: Path, name: str, number: int) -> Path:
    return directory / f"{name}-{number:08}.jsonl"


def cut_torn_line(segment: Path) -> None:
    """After a crash the last line may lack its end; it was never counted as written."""
    data = segment.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        log.warning("cut a torn line", segment=segment.name, bytes=len(data) - whole)
        with segment.open("rb+") as file:
            file.truncate(whole)
            os.fsync(file.fileno())


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
