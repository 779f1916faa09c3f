"""Usage records: what is in them, that they survive, and that they arrive."""

import json
import os
from pathlib import Path

import attrs
import h11
import pytest
import trio
import trio.testing

from ssasr.errors import StartRefused
from ssasr.gateway.outbox.journal import Journal, append_lines, segments
from ssasr.gateway.outbox.outbox import Backoff, Outbox
from ssasr.gateway.usage import push
from ssasr.gateway.usage.push import Cursor, Destination, UsageQueue, next_batch
from ssasr.gateway.usage.records import NAME, UsageRecord, keep_record, open_usage

ALLOWED = {
    "session_id", "started", "ended", "audio_seconds", "model", "close_code", "key_id",
}  # fmt: skip


def made(number: int) -> UsageRecord:
    return UsageRecord(f"session-{number}", 1.0, 2.5, 1.5, "en-default", 1000, "abcd")


def read(directory: Path) -> list[str]:
    """The ids of the records on the disk."""
    lines = [line for path in segments(directory, NAME) for line in path.read_text().splitlines()]
    return [json.loads(line)["session_id"] for line in lines]


def ids(count: int) -> list[str]:
    return [f"session-{n}" for n in range(count)]


def test_nothing_but_what_is_allowed_is_ever_written():
    assert {field.name for field in attrs.fields(UsageRecord)} == ALLOWED
    assert json.loads(made(1).line()).keys() == ALLOWED


async def written(directory: Path, count: int, **settings) -> Journal:
    log = open_usage(directory)
    for name, value in settings.items():
        setattr(log, name, value)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        for number in range(count):
            keep_record(log, made(number))
            if number % 7 == 0:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()  # a stop right after the last session loses nothing
    return log


async def test_records_are_on_the_disk_after_a_stop(tmp_path: Path):
    log = await written(tmp_path / "new" / "usage", 100)
    assert read(log.directory) == ids(100)
    assert (log.written, log.lost) == (100, 0)


async def test_a_record_of_the_very_last_moment_is_on_the_disk(tmp_path: Path):
    """The writer has been woken for it and is cancelled before it has begun."""
    log = open_usage(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        await trio.testing.wait_all_tasks_blocked()
        keep_record(log, made(0))
        nursery.cancel_scope.cancel()
    assert read(tmp_path) == ids(1)
    assert (log.written, log.lost, log.pending) == (1, 0, 0)


async def test_segments_are_closed_at_their_size_and_only_appended_to(tmp_path: Path):
    for _ in range(3):
        append_lines(tmp_path, NAME, [made(n).line() for n in range(10)], segment_bytes=1_000)
    assert [path.name for path in segments(tmp_path, NAME)] == [
        f"usage-{n:08}.jsonl" for n in (1, 2, 3)
    ]  # fmt: skip
    assert read(tmp_path) == ids(10) * 3


@pytest.mark.parametrize("cut", [1, 20, 100])
async def test_a_line_that_a_crash_tore_is_cut_off(tmp_path: Path, cut: int):
    await written(tmp_path, 3)
    (segment,) = segments(tmp_path, NAME)
    segment.write_bytes(segment.read_bytes() + made(9).line()[:cut])
    await written(tmp_path, 2)
    assert read(tmp_path) == [*ids(3), *ids(2)]


def test_a_new_segment_is_seen_whole_or_not_at_all(tmp_path: Path, monkeypatch):
    """By who lists them while it is written, and by the next start after a crash meanwhile."""
    real_write, seen = os.write, []

    def write(handle: int, data: memoryview) -> int:
        seen.extend(path.read_bytes() for path in segments(tmp_path, NAME))
        return real_write(handle, data[: len(data) // 2 + 1])

    monkeypatch.setattr(os, "write", write)
    for number in range(3):
        append_lines(tmp_path, NAME, [made(number).line()], segment_bytes=0)
    assert set(seen) == {made(0).line(), made(1).line()}

    def crash(*_) -> None:
        raise SystemExit

    monkeypatch.setattr(os, "write", crash)
    with pytest.raises(SystemExit):
        append_lines(tmp_path, NAME, [made(3).line()], segment_bytes=0)
    open_usage(tmp_path)
    assert read(tmp_path) == ids(3)
    assert len(list(tmp_path.iterdir())) == 3


async def test_a_disk_that_fails_loses_nothing_and_stops_nobody(tmp_path: Path, monkeypatch):
    """Fails in the middle of a batch, as a full disk does, and recovers."""
    write, broken = os.write, [True]

    def failing(handle: int, data: memoryview) -> int:
        if broken[0]:
            write(handle, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return write(handle, data)

    monkeypatch.setattr(os, "write", failing)
    log = open_usage(tmp_path)
    log.retry_seconds = 0.01
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        for number in range(5):
            keep_record(log, made(number))
            await trio.sleep(0.005)
        assert read(tmp_path) == []
        broken[0] = False
        with trio.fail_after(60):
            while log.written < 5:  # noqa: ASYNC110  it may take several batches
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    assert read(tmp_path) == ids(5)


async def test_how_long_records_wait_says_that_a_disk_fails(
    tmp_path: Path, autojump_clock, monkeypatch
):
    """It is 0 while they are written, however many sessions end."""
    monkeypatch.setattr(trio.to_thread, "run_sync", in_this_thread)
    log = open_usage(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        for number in range(20):
            keep_record(log, made(number))
            await trio.sleep(1.0)
            assert (log.pending, log.pending_seconds) == (0, 0.0)
        os.rename(tmp_path, f"{tmp_path}-away")
        keep_record(log, made(20))
        await trio.sleep(12.0)
        keep_record(log, made(21))
        assert (log.pending, log.pending_seconds) == (2, 12.0)
        os.rename(f"{tmp_path}-away", tmp_path)
        await trio.sleep(6.0)
        assert (log.pending, log.pending_seconds) == (0, 0.0)
        nursery.cancel_scope.cancel()
    assert read(tmp_path) == ids(22)


async def in_this_thread(function, *arguments):
    """For a clock that would not wait for another one."""
    await trio.lowlevel.checkpoint()
    return function(*arguments)


async def test_what_waits_in_memory_is_bounded(tmp_path: Path):
    log = open_usage(tmp_path)
    log.most_waiting = 5 * len(made(0).line())
    for number in range(8):
        keep_record(log, made(number))
    assert (log.lost, log.pending) == (3, 5)


def test_a_place_that_cannot_be_written_refuses_the_start(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StartRefused, match="usage records"):
        open_usage(tmp_path / "file" / "usage")


# -- push -----------------------------------------------------------------------------------------


class Collector:
    """An HTTP server that takes, refuses or breaks off, as the script says, then takes."""

    def __init__(self, script: list[int]) -> None:
        self.script = script
        self.bodies: list[bytes] = []
        self.headers: dict[str, str] = {}

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            connection = h11.Connection(h11.SERVER)
            body = b""
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await stream.receive_some())
                elif isinstance(event, h11.Request):
                    self.headers = {k.decode(): v.decode() for k, v in event.headers}
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                else:
                    break
            status = self.script.pop(0) if self.script else 204
            if status in {200, 204}:
                self.bodies.append(body)
            if status:
                answer = h11.Response(status_code=status, headers=[("Content-Length", "0")])
                await stream.send_all(connection.send(answer) or b"")

    @property
    def taken(self) -> list[str]:
        lines = b"".join(self.bodies).splitlines()
        return [json.loads(line)["session_id"] for line in lines]


async def pushed(directory: Path, collector: Collector, wanted: int) -> Outbox:
    """Push until ``wanted`` records have arrived and the cursor says so."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, collector.serve, [listener])
        port = listener.socket.getsockname()[1]
        destination = Destination.parse(f"http://127.0.0.1:{port}/usage?x=1", "t0ken")
        usage = open_usage(directory)
        outbox = Outbox(UsageQueue(usage, destination), Backoff(first=0.01))
        nursery.start_soon(outbox.run)
        with trio.fail_after(60):
            while len(collector.taken) < wanted or next_batch(usage, Cursor.load(directory))[0]:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    return outbox


async def test_records_arrive_once_and_in_order(tmp_path: Path):
    append_lines(tmp_path, NAME, [made(n).line() for n in range(10)], segment_bytes=1)
    append_lines(tmp_path, NAME, [made(n).line() for n in range(10, 20)], segment_bytes=1)
    collector = Collector([])
    await pushed(tmp_path, collector, 20)
    assert collector.taken == ids(20)
    assert collector.headers["authorization"] == "Bearer t0ken"
    append_lines(tmp_path, NAME, [made(20).line()], segment_bytes=1)
    await pushed(tmp_path, collector, 21)  # a new process goes on where the old one was
    assert collector.taken == ids(21)


async def test_records_arrive_after_what_was_taken_has_been_deleted(tmp_path: Path, nursery):
    """As the page on configuration says one may, while it runs and when it does not."""
    append_lines(tmp_path, NAME, [made(n).line() for n in range(10)], segment_bytes=1)
    append_lines(tmp_path, NAME, [made(n).line() for n in range(10, 20)], segment_bytes=1)
    collector = Collector([])
    await pushed(tmp_path, collector, 20)
    for segment in segments(tmp_path, NAME):
        segment.unlink()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, collector.serve, [listener])
    address = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
    usage = open_usage(tmp_path)
    queue = UsageQueue(usage, Destination.parse(address))
    nursery.start_soon(usage.run)
    nursery.start_soon(Outbox(queue, Backoff(first=0.01)).run)
    for number in range(20, 23):
        keep_record(usage, made(number))
        with trio.fail_after(60):
            while f"session-{number}" not in collector.taken:
                await trio.sleep(0.01)
        for segment in segments(tmp_path, NAME):
            segment.unlink()
    assert collector.taken == ids(23)
    nursery.cancel_scope.cancel()


async def test_an_outage_is_waited_out(tmp_path: Path):
    append_lines(tmp_path, NAME, [made(n).line() for n in range(5)], segment_bytes=1)
    collector = Collector([503, 0, 301, 401])
    outbox = await pushed(tmp_path, collector, 5)
    assert collector.taken == ids(5)
    assert outbox.failures == 4


async def test_a_torn_line_is_not_sent(tmp_path: Path):
    append_lines(tmp_path, NAME, [made(0).line()], segment_bytes=1 << 20)
    (segment,) = segments(tmp_path, NAME)
    with segment.open("ab") as file:
        file.write(made(1).line()[:-5])
    usage = Journal(tmp_path, NAME, "usage records")  # as it stands, without being mended
    batch, cursor = next_batch(usage, Cursor())
    assert batch == made(0).line()
    assert next_batch(usage, cursor) == (b"", cursor)


async def test_a_disk_that_cannot_keep_the_cursor_ends_nothing(tmp_path: Path, monkeypatch):
    """Neither does one that cannot be read for a while; nothing is sent twice for it."""
    append_lines(tmp_path, NAME, [made(n).line() for n in range(5)], segment_bytes=1)
    fail_at_first(monkeypatch, "write_atomically", 3)
    fail_at_first(monkeypatch, "next_batch", 2)
    collector = Collector([])
    await pushed(tmp_path, collector, 5)
    assert collector.taken == ids(5)


def fail_at_first(monkeypatch, name: str, times: int) -> None:
    works, left = getattr(push, name), [times]

    def failing(*arguments):
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(28, "No space left on device")
        return works(*arguments)

    monkeypatch.setattr(push, name, failing)


@pytest.mark.parametrize(
    "url", ["ftp://x/", "http://", "usage.example", "http://u:p@h/", "http://:p@h/", "http://h:x"]
)
def test_addresses_that_are_none_are_refused(url: str):
    with pytest.raises(StartRefused):
        Destination.parse(url)
