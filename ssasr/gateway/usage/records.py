"""Usage records: one line a session, for the operator's own accounts.

The allow-list is ``UsageRecord``: its fields are all that is ever written or sent. No audio, no
text, no addresses, no credential (``key_id`` is a digest's beginning).

Records are lines of JSON in numbered segment files that are only ever appended to. A batch is on
the disk (fsync) before anybody may take it for written; a line that a crash tore is cut off at the
next start. While the disk is full or gone the records wait in memory, up to a bound, and sessions
go on.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs
import trio
from attrs import define, field, frozen

from ssasr.errors import StartRefused
from ssasr.runtime.durable import sync_directory
from ssasr.telemetry.logs import get_logger

SEGMENT_BYTES = 16 << 20
"""A segment that has grown to this is closed and the next one begun: some 70,000 records."""
MOST_WAITING = 100_000
"""Records in memory while the disk takes none, some 50 MB; beyond it the oldest are lost, and that
is logged."""
RETRY_SECONDS = 5.0

log = get_logger(__name__)


@frozen
class UsageRecord:
    """Times are Unix seconds; ``key_id`` identifies a key without being it."""

    session_id: str
    started: float
    ended: float
    audio_seconds: float
    model: str
    close_code: int
    key_id: str

    def line(self) -> bytes:
        return json.dumps(attrs.asdict(self), separators=(",", ":")).encode() + b"\n"


def segments(directory: Path) -> list[Path]:
    """Oldest first."""
    return sorted(directory.glob("usage-????????.jsonl"))


def _nobody(_: int) -> None:
    pass


@define(eq=False)
class UsageLog:
    """``record`` from any session; ``run`` writes until cancelled, and then what is left."""

    directory: Path
    segment_bytes: int = SEGMENT_BYTES
    retry_seconds: float = RETRY_SECONDS
    on_lost: Callable[[int], None] = _nobody
    """Called with the number of records that were just given up."""
    written: int = 0
    lost: int = 0
    _waiting: deque[UsageRecord] = field(factory=deque)
    _wake: trio.Event = field(factory=trio.Event)
    _grown: trio.Event = field(factory=trio.Event)

    @classmethod
    def open(cls, directory: Path) -> "UsageLog":
        """Makes the directory, mends what a crash left. Raises StartRefused."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for segment in segments(directory)[-1:]:
                cut_torn_line(segment)
            probe = directory / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StartRefused(f"cannot keep usage records in {directory}: {error}") from error
        return cls(directory)

    def record(self, record: UsageRecord) -> None:
        """Never waits and never fails: a session does not end worse for being counted."""
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
            self._lose(1)
        self._waiting.append(record)
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
            if not self._append(self._take()):
                self._lose(len(self._take()))

    @property
    def pending(self) -> int:
        """Records that are not on the disk yet."""
        return len(self._waiting)

    def _lose(self, count: int) -> None:
        self.lost += count
        log.error("usage records lost", records=count, in_all=self.lost)
        self.on_lost(count)

    async def wait_grown(self) -> None:
        """Until something more is on the disk."""
        await self._grown.wait()

    async def _write_waiting(self) -> bool:
        batch = self._take()
        if not batch:
            return True
        ok = await trio.to_thread.run_sync(self._append, batch)
        if ok:
            self._grown.set()
            self._grown = trio.Event()
        return ok

    def _take(self) -> list[UsageRecord]:
        batch = list(self._waiting)
        self._waiting.clear()
        return batch

    def _append(self, batch: list[UsageRecord]) -> bool:
        """Blocks. False: nothing of it counts as written, and it waits again."""
        if not batch:
            return True
        try:
            append_lines(self.directory, (record.line() for record in batch), self.segment_bytes)
        except OSError as error:
            log.error("usage records not written, will try again", error=str(error))
            self._waiting.extendleft(reversed(batch))
            return False
        self.written += len(batch)
        return True


def append_lines(directory: Path, lines: Iterable[bytes], segment_bytes: int) -> None:
    """All of them or, after a failure, none: a half-written batch is cut off again."""
    existing = segments(directory)
    number = int(existing[-1].stem.removeprefix("usage-")) if existing else 1
    if existing and existing[-1].stat().st_size >= segment_bytes:
        number += 1
    path = directory / f"usage-{number:08}.jsonl"
    fresh = not path.exists()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
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
        sync_directory(directory)


def cut_torn_line(segment: Path) -> None:
    """After a crash the last line may lack its end; it was never counted as written."""
    data = segment.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        log.warning("cut a torn usage record", segment=segment.name, bytes=len(data) - whole)
        with segment.open("rb+") as file:
            file.truncate(whole)
            os.fsync(file.fileno())


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
