"""Sending usage records to an address of the operator's, if there is one. Off unless it is set.

The segment files are the queue: a small cursor file beside them says how far they have been sent,
so nothing is lost by a crash of either side or by an outage of any length. A batch may arrive twice
(a crash between its answer and the cursor); ``session_id`` tells. One POST of JSON lines
(``application/x-ndjson``) a batch; 2xx means taken, anything else is tried again, later and later.
"""

import functools
import json
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import h11
import trio
from attrs import define, field, frozen

from ssasr.errors import StartRefused
from ssasr.gateway.usage.records import UsageLog, segments
from ssasr.runtime.durable import write_atomically
from ssasr.telemetry.logs import get_logger

BATCH_BYTES = 256 << 10
POST_DEADLINE = 20.0
FIRST_RETRY = 1.0
LONGEST_RETRY = 300.0
"""Seconds."""

log = get_logger(__name__)


class PushFailed(Exception):
    """The batch was not taken; the text says why and holds no record."""


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """Reads every certificate that the machine trusts: once."""
    return ssl.create_default_context()


@frozen
class Destination:
    """``token``: sent as ``Authorization: Bearer``."""

    host: str
    port: int
    target: str
    tls: bool
    token: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str, token: str | None = None) -> "Destination":
        """Raises StartRefused."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise StartRefused(f"{url!r} is not an address to send usage records to") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
            raise StartRefused(f"{url!r} is not an address to send usage records to")
        tls = parts.scheme == "https"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.hostname, port or (443 if tls else 80), target, tls, token)

    async def post(self, body: bytes) -> None:
        """Raises PushFailed. Follows no redirect: records go where the operator said."""
        try:
            with trio.fail_after(POST_DEADLINE):
                status = await self._exchange(body)
        except (OSError, trio.TooSlowError, trio.BrokenResourceError) as error:
            raise PushFailed(f"{self.host} cannot be reached: {type(error).__name__}") from error
        except h11.RemoteProtocolError as error:
            raise PushFailed(f"{self.host} does not speak HTTP") from error
        if not 200 <= status < 300:
            raise PushFailed(f"{self.host} answered {status}")

    async def _exchange(self, body: bytes) -> int:
        stream: trio.abc.Stream = await trio.open_tcp_stream(self.host, self.port)
        if self.tls:
            stream = trio.SSLStream(
                stream, _tls_context(), server_hostname=self.host, https_compatible=True
            )
        async with stream:
            connection = h11.Connection(h11.CLIENT)
            head = h11.Request(method="POST", target=self.target, headers=self._headers(body))
            for part in (head, h11.Data(data=body), h11.EndOfMessage()):
                await stream.send_all(connection.send(part) or b"")
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(bytes(await stream.receive_some()))
                elif isinstance(event, h11.Response):
                    return event.status_code
                elif not isinstance(event, h11.InformationalResponse):
                    raise h11.RemoteProtocolError("no response")

    def _headers(self, body: bytes) -> list[tuple[str, str]]:
        headers = [
            ("Host", self.host),
            ("Content-Type", "application/x-ndjson"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        if self.token is not None:
            headers.append(("Authorization", f"Bearer {self.token}"))
        return headers


@frozen
class Cursor:
    """Everything before ``offset`` of ``segment`` has been taken."""

    segment: str = ""
    offset: int = 0

    @classmethod
    def load(cls, directory: Path) -> "Cursor":
        try:
            content = json.loads((directory / "pushed.json").read_text())
            return cls(str(content["segment"]), int(content["offset"]))
        except FileNotFoundError:
            return cls()
        except (ValueError, KeyError, TypeError) as error:
            raise StartRefused(f"{directory / 'pushed.json'} is damaged: {error}") from error

    def save(self, directory: Path) -> None:
        """Atomically."""
        content = json.dumps({"segment": self.segment, "offset": self.offset})
        write_atomically(directory / "pushed.json", content)


@define(eq=False)
class UsagePush:
    """``run`` sends what there is and waits for more, until cancelled."""

    usage: UsageLog
    destination: Destination
    first_retry: float = FIRST_RETRY
    failures: int = 0

    async def run(self) -> None:
        directory = self.usage.directory
        cursor = await trio.to_thread.run_sync(Cursor.load, directory)
        delay = self.first_retry
        while True:
            batch, following = await trio.to_thread.run_sync(next_batch, directory, cursor)
            if not batch:
                with trio.move_on_after(LONGEST_RETRY):
                    await self.usage.wait_grown()
                continue
            try:
                await self.destination.post(batch)
            except PushFailed as failed:
                self.failures += 1
                log.warning("usage records not sent, will try again", reason=str(failed))
                await trio.sleep(delay)
                delay = min(2 * delay, LONGEST_RETRY)
                continue
            delay = self.first_retry
            cursor = following
            await trio.to_thread.run_sync(cursor.save, directory)


def next_batch(directory: Path, cursor: Cursor) -> tuple[bytes, Cursor]:
    """Whole lines that have not been sent, of one segment, and the cursor once they have."""
    for segment in segments(directory):
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
