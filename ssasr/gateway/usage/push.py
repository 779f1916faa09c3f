"""Sending usage records to an address of the operator's, if there is one. Off unless it is set.

The segment files are the queue: a small cursor file beside them says how far they have been sent,
so nothing is lost by a crash of either side or by an outage of any length. A batch may arrive twice
(a crash between its answer and the cursor); ``session_id`` tells. One POST of JSON lines
(``application/x-ndjson``) a batch; 2xx means taken, anything else is tried again.
"""

import json
from pathlib import Path

import trio
from attrs import define, field, frozen

from ssasr.errors import StartRefused
from ssasr.gateway.outbox.journal import Journal, number_of, segments
from ssasr.gateway.outbox.outbox import NotTaken
from ssasr.net.http_client import RequestFailed, Target, post
from ssasr.runtime.durable import write_atomically

BATCH_BYTES = 256 << 10
POST_DEADLINE = 20.0


@frozen
class Destination:
    """``token``: sent as ``Authorization: Bearer``."""

    target: Target
    token: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str, token: str | None = None) -> "Destination":
        """Raises StartRefused."""
        try:
            return cls(Target.parse(url), token)
        except ValueError:
            raise StartRefused(f"{url!r} is not an address to send usage records to") from None

    async def post(self, body: bytes) -> None:
        """Raises NotTaken."""
        headers = {"Content-Type": "application/x-ndjson"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            answer = await post(self.target, headers, body, seconds=POST_DEADLINE)
        except RequestFailed as failed:
            raise NotTaken(str(failed)) from failed
        if not 200 <= answer.status < 300:
            raise NotTaken(f"{self.target.host} answered {answer.status}")


@frozen
class Cursor:
    """Everything before ``offset`` of ``segment`` has been taken."""

    segment: str = ""
    offset: int = 0

    @classmethod
    def load(cls, directory: Path) -> "Cursor":
        """Raises StartRefused."""
        try:
            content = json.loads((directory / "pushed.json").read_text())
            return cls(str(content["segment"]), int(content["offset"]))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StartRefused(f"cannot use {directory / 'pushed.json'}: {error}") from error

    def save(self, directory: Path) -> None:
        """Atomically."""
        content = json.dumps({"segment": self.segment, "offset": self.offset})
        write_atomically(directory / "pushed.json", content)


@frozen(eq=False)
class Batch:
    """Usage records."""

    queue: "UsageQueue"
    body: bytes
    following: Cursor
    """Where the next one begins."""

    async def send(self) -> None:
        await self.queue.destination.post(self.body)

    async def forget(self) -> None:
        await trio.to_thread.run_sync(self.following.save, self.queue.usage.directory)


@define(eq=False)
class UsageQueue:
    """One batch at a time, in order; made before anything is written. Raises StartRefused."""

    usage: Journal
    destination: Destination
    what: str = "usage records"
    _cursor: Cursor = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._cursor = Cursor.load(self.usage.directory)
        self.usage.newest = number_of(self._cursor.segment)

    async def next(self) -> Batch:
        while True:
            growth = self.usage.growth
            body, following = await trio.to_thread.run_sync(next_batch, self.usage, self._cursor)
            if body:
                self._cursor = following
                return Batch(self, body, following)
            await growth.wait()


def next_batch(usage: Journal, cursor: Cursor) -> tuple[bytes, Cursor]:
    """Whole lines that have not been sent, of one segment, and the cursor once they have."""
    for segment in segments(usage.directory, usage.name):
        if segment.name < cursor.segment:
            continue
        offset = cursor.offset if segment.name == cursor.segment else 0
        with segment.open("rb") as file:
            file.seek(offset)
            data = file.read(BATCH_BYTES)
        whole = data.rfind(b"\n") + 1
        if whole:
            return data[:whole], Cursor(segment.name, offset + whole)
    return b"", cursor
