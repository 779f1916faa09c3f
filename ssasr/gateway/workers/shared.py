"""What the worker processes of one gateway share: places, used tokens, and what they report.

Places and tokens are rows of a small database in a directory that lives as long as the gateway:
every check and what follows from it are one transaction, and a worker that dies takes only its own
rows along. Reports go over a socket in the same directory: whoever is asked for metrics asks the
others first. Nothing in the directory outlives the gateway, and nothing in it is a secret or a
client's.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import trio
from attrs import frozen

from ssasr.errors import SsasrError
from ssasr.gateway.auth.access import QuotaBusy
from ssasr.gateway.auth.tokens import MEMORY, Token, TokenError, TokenMemoryFull

REPORT_SECONDS = 2.0
"""For all the others to report."""
BUSY_SECONDS = 0.05
"""To wait for another worker's transaction, which takes a fraction of a millisecond. Nothing else
of this process goes on meanwhile."""
PATIENCE_SECONDS = 10.0
"""The same for the supervisor, which serves no sessions."""

_SCHEMA = """
create table places (worker integer, key blob, count integer, primary key (worker, key));
create table tokens (nonce blob primary key, expires_at real);
"""


class ReportMissing(SsasrError):
    """A worker that should be there did not say how it is."""


def _connect(directory: Path, patience: float = PATIENCE_SECONDS) -> sqlite3.Connection:
    connection = sqlite3.connect(
        directory / "shared.db", timeout=patience, isolation_level=None, check_same_thread=True
    )
    connection.execute("pragma synchronous = off")  # it need not survive the machine
    return connection


def prepare(directory: Path) -> None:
    """Once, before the first worker."""
    connection = _connect(directory)
    connection.execute("pragma journal_mode = wal")
    connection.executescript(_SCHEMA)
    connection.close()


def forget(directory: Path, worker: int) -> None:
    """A worker has died, and its sessions with it."""
    connection = _connect(directory)
    connection.execute("delete from places where worker = ?", (worker,))
    connection.close()


class SharedQuota:
    """``access.SessionQuota`` and ``access.UsedTokens`` of one worker."""

    def __init__(self, directory: Path, worker: int) -> None:
        self._connection = _connect(directory, BUSY_SECONDS)
        self._owed: list[bytes] = []
        """Places that could not be given back yet."""
        self._worker = worker

    def take(self, key: bytes, limit: int | None) -> bool:
        self._settle()
        with self._transaction() as transaction:
            if limit is not None and self.count(key) >= limit:
                return False
            transaction.execute(
                "insert into places values (?, ?, 1) "
                "on conflict (worker, key) do update set count = count + 1",
                (self._worker, key),
            )
            return True

    def release_place(self, key: bytes) -> None:
        """Now, or with the next one that is taken or given back: never a failure."""
        self._owed.append(key)
        with suppress(QuotaBusy):
            self._settle()

    def _settle(self) -> None:
        while self._owed:
            self._release(self._owed[-1])
            self._owed.pop()

    def _release(self, key: bytes) -> None:
        with self._transaction() as transaction:
            mine = (self._worker, key)
            transaction.execute(
                "update places set count = count - 1 where worker = ? and key = ?", mine
            )
            transaction.execute(
                "delete from places where worker = ? and key = ? and count <= 0", mine
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Raises QuotaBusy."""
        try:
            self._connection.execute("begin immediate")
        except sqlite3.OperationalError as error:
            raise QuotaBusy(str(error)) from None
        with self._connection as transaction:
            yield transaction

    def count(self, key: bytes) -> int:
        """Of all workers."""
        query = "select coalesce(sum(count), 0) from places where key = ?"
        return int(self._connection.execute(query, (key,)).fetchone()[0])

    def open(self) -> dict[bytes, int]:
        query = "select key, sum(count) from places group by key"
        return dict(self._connection.execute(query).fetchall())

    def redeem(self, token: Token, now: float) -> None:
        """As ``UsedTokens``; raises QuotaBusy too."""
        with self._transaction() as transaction:
            if len(self) >= MEMORY:
                transaction.execute("delete from tokens where expires_at <= ?", (now,))
                if len(self) >= MEMORY:
                    raise TokenMemoryFull("Too many temporary tokens")
            try:
                transaction.execute(
                    "insert into tokens values (?, ?)", (token.nonce, token.expires_at)
                )
            except sqlite3.IntegrityError:
                raise TokenError("Token already used") from None

    def __len__(self) -> int:
        return int(self._connection.execute("select count(*) from tokens").fetchone()[0])


Report = Mapping[str, object]


@frozen
class Siblings:
    """``number``: which of ``count`` workers we are; ``report``: what we say of ourselves, as
    JSON."""

    directory: Path
    number: int
    count: int
    report: Callable[[], Report]

    def _address(self, number: int) -> str:
        return str(self.directory / f"{number}.sock")

    async def run(self) -> None:
        """Answer the other processes until cancelled."""
        address = self._address(self.number)
        with suppress(FileNotFoundError):
            os.unlink(address)  # of the worker that was here before
        listening = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        await listening.bind(address)
        listening.listen(self.count)
        await trio.serve_listeners(self._answer, [trio.SocketListener(listening)])

    async def _answer(self, stream: trio.SocketStream) -> None:
        with trio.move_on_after(REPORT_SECONDS):
            with suppress(trio.BrokenResourceError):
                await stream.send_all(json.dumps(self.report()).encode())
        await trio.aclose_forcefully(stream)

    async def reports(self) -> list[Report]:
        """Everybody's, our own among them. Raises ReportMissing."""
        found: dict[int, Report] = {self.number: self.report()}
        with trio.move_on_after(REPORT_SECONDS):
            async with trio.open_nursery() as nursery:
                for number in range(self.count):
                    if number != self.number:
                        nursery.start_soon(self._ask, number, found)
        if len(found) < self.count:
            raise ReportMissing(f"{self.count - len(found)} of {self.count} workers do not report")
        return list(found.values())

    async def _ask(self, number: int, found: dict[int, Report]) -> None:
        try:
            stream = await trio.open_unix_socket(self._address(number))
            async with stream:
                answer = b"".join([bytes(part) async for part in stream])
            found[number] = json.loads(answer)
        except (OSError, trio.BrokenResourceError, ValueError):
            pass  # it is missing
