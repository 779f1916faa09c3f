"""``ssasr gateway --workers``: real processes behind one port, one gateway to everybody outside."""

import json
import os
import signal
from contextlib import contextmanager
from time import monotonic, sleep
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import trio
from trio_websocket import ConnectionClosed

from tests.harness.clients import connect, speech_like
from tests.harness.processes import Program, free_port, running

pytestmark = pytest.mark.slow

SPEECH = speech_like(2.0)
PATIENCE = 30.0


@contextmanager
def gateway(*arguments, workers=2):
    """Workers before one scripted engine; the program and its port."""
    engine = ("--model", "english", "--engine-kind", "scripted", "--max-streams", "50")
    with running("engine", *engine) as (_, engine_port):
        endpoint = f"ws://127.0.0.1:{engine_port}"
        options = ("--asr-endpoint", endpoint, "--engines", "english", "--workers", workers)
        with running("gateway", *options, *arguments) as (program, port):
            wait_until(lambda: status(port) is not None)
            try:
                yield program, port
            finally:
                program.stop()


def get(port, path, key=None):
    headers = {} if key is None else {"Authorization": key}
    with urlopen(Request(f"http://127.0.0.1:{port}{path}", headers=headers), timeout=10) as page:
        return page.read().decode()


def status(port):
    """None while one of the workers does not report."""
    try:
        found = json.loads(get(port, "/v1/status"))
    except (HTTPError, OSError):
        return None
    return found if found["ready"] else None


def wait_until(condition):
    deadline = monotonic() + PATIENCE
    while not (found := condition()):
        assert monotonic() < deadline, "it did not come to pass"
        sleep(0.05)
    return found


def metrics(port):
    """None while one of the workers does not report."""
    try:
        lines = get(port, "/metrics").splitlines()
    except (HTTPError, OSError):
        return None
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def children(program):
    with open(f"/proc/{program.process.pid}/task/{program.process.pid}/children") as file:
        return [int(pid) for pid in file.read().split()]


async def open_many(port, keys_and_counts):
    """The first answer to each session while all the others were open, by key."""
    answers = {key: [] for key, _ in keys_and_counts}
    answered, total = trio.Event(), sum(count for _, count in keys_and_counts)

    async def one(key):
        url = f"ws://127.0.0.1:{port}/v3/ws"
        async with connect(url, key=key, sample_rate=16_000) as websocket:
            first = json.loads(await websocket.get_message())
            answers[key].append(first.get("error_code", first["type"]))
            if sum(map(len, answers.values())) == total:
                answered.set()
            await answered.wait()

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for key, count in keys_and_counts:
                for _ in range(count):
                    nursery.start_soon(one, key)
    return answers


def test_limits_tokens_and_metrics_are_those_of_one_gateway():
    """Sessions of a key, sessions of all, a token's single use; and whoever is asked says the sum
    of all workers."""
    with gateway("--api-keys", "small 3, large", "--max-sessions", "10", workers=3) as (_, port):
        answers = trio.run(open_many, port, [("small", 8)])
        assert sorted(answers["small"], key=str) == [3009] * 5 + ["Begin"] * 3
        nobody_left(port)
        answers = trio.run(open_many, port, [("large", 14)])
        assert answers["large"].count("Begin") == 10
        nobody_left(port)
        page = get(port, "/v3/token?expires_in_seconds=60", key="large")
        token = json.loads(page)["token"]
        answers = trio.run(open_many, port, [(token, 6)])[token]
        assert (answers.count("Begin"), answers.count(1008)) == (1, 5)
        nobody_left(port)
        for _ in range(6):
            found = metrics(port)
            ended = sum(float(v) for k, v in found.items() if "session_ends_total" in k)
            assert ended == 8 + 14 + 6
            assert float(found["ssasr_sessions"]) == 0
            assert float(found["ssasr_sessions_limit"]) == 10
        assert (status(port)["workers"], status(port)["sessions_limit"]) == (3, 10)


def nobody_left(port):
    wait_until(lambda: (status(port) or {}).get("sessions") == 0)


def test_a_worker_that_dies_is_started_again_and_its_places_are_free():
    with gateway("--api-keys", "key 2") as (program, port):
        before = children(program)
        assert len(before) == 2

        async def kill_while_open():
            url = f"ws://127.0.0.1:{port}/v3/ws"
            async with connect(url, key="key", sample_rate=16_000) as websocket:
                await websocket.get_message()
                for pid in before:
                    os.kill(pid, signal.SIGKILL)
                with trio.fail_after(PATIENCE), pytest.raises(ConnectionClosed):
                    await websocket.get_message()

        trio.run(kill_while_open)
        wait_until(lambda: len(set(children(program)) - set(before)) == 2)
        wait_until(lambda: status(port))
        assert "a worker died" in program.stderr
        answers = trio.run(open_many, port, [("key", 3)])["key"]
        assert answers.count("Begin") == 2


def test_an_order_to_stop_drains_all_workers():
    with gateway("--drain-seconds", "20") as (program, port):

        async def speak_on():
            url = f"ws://127.0.0.1:{port}/v3/ws"
            async with connect(url, sample_rate=16_000) as websocket:
                await websocket.get_message()
                await websocket.send_message(SPEECH.tobytes()[:32_000])
                program.process.send_signal(signal.SIGTERM)
                await trio.sleep(0.5)
                await websocket.send_message('{"type":"Terminate"}')
                with trio.fail_after(PATIENCE):
                    try:
                        while True:
                            await websocket.get_message()
                    except ConnectionClosed as closed:
                        return closed.reason.code

        assert trio.run(speak_on) == 1000
        assert program.wait(PATIENCE) == 0
        assert not os.path.exists(f"/proc/{program.process.pid}")


def test_workers_end_with_their_parent():
    with gateway() as (program, _):
        pids = children(program)
        program.process.kill()
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


def test_a_port_that_is_taken_is_refused():
    port = free_port()
    options = ["--asr-endpoint", "ws://127.0.0.1:1", "--workers", "2"]
    with running("gateway", "--asr-endpoint", "ws://127.0.0.1:1", port=port, ready=False):
        second = Program(["gateway", "--host", "127.0.0.1", "--port", port, *options]).start()
        assert second.wait(PATIENCE) == 1
        assert f"cannot listen on 127.0.0.1:{port}" in second.stderr


def test_a_second_gateway_cannot_join_the_workers_of_the_first():
    with gateway() as (_, port):
        options = ["--asr-endpoint", "ws://127.0.0.1:1", "--workers", "2"]
        second = Program(["gateway", "--host", "127.0.0.1", "--port", port, *options]).start()
        assert second.wait(PATIENCE) == 1
        assert "cannot listen" in second.stderr


def test_what_cannot_hold_for_all_is_refused():
    options = ["--asr-endpoint", "ws://127.0.0.1:1", "--workers", "2"]
    limited = Program(
        ["gateway", "--port", free_port(), *options, "--max-connections-per-address", "5"]
    ).start()
    assert limited.wait(PATIENCE) == 2
    assert "--max-connections-per-address" in limited.stderr


def test_usage_is_kept_by_each_worker_and_none_is_lost(tmp_path):
    with gateway("--usage-dir", tmp_path) as (program, port):
        trio.run(open_many, port, [("self-hosted", 12)])
        nobody_left(port)
        assert program.stop() == 0
    files = tmp_path.rglob("usage-*.jsonl")
    lines = [line for path in files for line in path.read_text().splitlines()]
    assert len({json.loads(line)["session_id"] for line in lines}) == len(lines) == 12


def test_a_worker_that_is_killed_takes_only_its_own_sessions_along(tmp_path):
    """New ones are served meanwhile, it comes back, and each session that ended has one record."""
    ended = []

    async def one(port, opened, go_on):
        """A session to its end, or to that of its worker."""
        async with connect(f"ws://127.0.0.1:{port}/v3/ws", sample_rate=16_000) as websocket:
            begin = json.loads(await websocket.get_message())
            assert begin["type"] == "Begin"
            opened.append(begin["id"])
            await go_on.wait()
            try:
                await websocket.send_message('{"type":"Terminate"}')
                while json.loads(await websocket.get_message())["type"] != "Termination":
                    pass
            except ConnectionClosed:
                return
        ended.append(begin["id"])

    async def many(port, count, between=None):
        opened, go_on = [], trio.Event()
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(count):
                    nursery.start_soon(one, port, opened, go_on)
                while len(opened) < count:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                if between is not None:
                    await between()
                go_on.set()

    with gateway("--usage-dir", tmp_path) as (program, port):
        before = children(program)

        async def kill_one():
            os.kill(before[0], signal.SIGKILL)
            while before[0] in children(program):  # noqa: ASYNC110
                await trio.sleep(0.01)
            await many(port, 6)

        trio.run(many, port, 20, kill_one)
        assert 6 < len(ended) < 26, "six new ones, and some of the twenty, not all"
        wait_until(lambda: len(set(children(program)) - set(before)) == 1)
        wait_until(lambda: status(port))
        trio.run(many, port, 6)
        nobody_left(port)
        program.stop()
    lines = [line for path in tmp_path.rglob("usage-*") for line in path.read_text().splitlines()]
    assert sorted(json.loads(line)["session_id"] for line in lines) == sorted(ended)
