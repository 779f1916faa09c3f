"""Uploads that go wrong, against the real program: each ends in a documented answer, nothing is
left on the disk or of the places, and the next file is served."""

import json
import re
import select
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from urllib.request import urlopen

import openai
import pytest
from websockets.sync.client import connect

from tests.conftest import JFK
from tests.harness.clients import pieces, speech_like
from tests.harness.flac import silence
from tests.harness.processes import server

pytestmark = pytest.mark.slow

HEAD = (
    b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nAuthorization: self-hosted\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n"
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
)
LARGE = bytes(3 << 20)
"""More than stays in memory."""
DEADLINE = 60


@contextmanager
def changed(tmp_path, *lines):
    """A server that runs these first; its files go where they can be counted."""
    (tmp_path / "sitecustomize.py").write_text("\n".join(lines))
    spool = tmp_path / "spool"
    spool.mkdir()
    with server("--engine-kind", "scripted", TMPDIR=str(spool), PYTHONPATH=str(tmp_path)) as (
        program,
        port,
    ):
        yield program, port
        assert list(spool.iterdir()) == []


def upload_to(port, size):
    """A connection on which a file of that size has been announced."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
    connection.sendall(HEAD % size)
    return connection


def answer_on(connection):
    """Status and error."""
    answer = b""
    while not re.search(rb"\}\}$", answer):
        data = connection.recv(65_536)
        assert data, answer
        answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


def wait_until(condition):
    deadline = monotonic() + DEADLINE
    while not condition():
        assert monotonic() < deadline
        sleep(0.02)


def spooled(program):
    """Files of the process that have no name any more: what is spooled has none from the start."""
    links = []
    for path in Path(f"/proc/{program.process.pid}/fd").iterdir():
        try:
            links.append(str(path.readlink()))
        except FileNotFoundError:
            continue
    return [link for link in links if "/spool/" in link]


def in_use(port):
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        (line,) = re.findall(rb"(?m)^ssasr_sessions (.*)$", answer.read())
    return float(line)


def check_as_before(program, port):
    """Nothing is kept, and a file is served."""
    wait_until(lambda: not spooled(program))
    wait_until(lambda: in_use(port) == 0)
    base = f"http://127.0.0.1:{port}/v1"
    with openai.OpenAI(api_key="self-hosted", base_url=base, max_retries=0) as client:
        assert client.audio.transcriptions.create(model="whisper-1", file=JFK).text


def test_slow_and_stalled_and_truncated_uploads(tmp_path):
    short = "from ssasr.gateway.openai import uploads; uploads.PATIENCE = uploads.STALLED = 1.0"
    with changed(tmp_path, short) as (program, port):
        with upload_to(port, 1 << 20) as dribbling:
            while not select.select([dribbling], [], [], 0.05)[0]:
                dribbling.sendall(b"x")
            status, error = answer_on(dribbling)
            assert (status, error["code"]) == (408, "upload_too_slow")
        with upload_to(port, 4 << 20) as stalled:
            stalled.sendall(LARGE)
            status, error = answer_on(stalled)
            assert (status, error["code"]) == (408, "upload_too_slow")
        with upload_to(port, 4 << 20) as truncated:
            truncated.sendall(LARGE)
            wait_until(lambda: spooled(program))
        wait_until(lambda: "cause=client_vanished" in program.stderr)
        with upload_to(port, 200) as cut_short:
            cut_short.sendall(bytes(200))
            status, error = answer_on(cut_short)
            assert (status, error["code"]) == (400, "invalid_request")
        check_as_before(program, port)


def test_thirty_hours_of_silence_in_200_kilobytes(tmp_path):
    """Refused at once where the file says how long it is; otherwise after as much as is allowed."""
    sooner = "from ssasr.gateway.openai import transcription; transcription.LONGEST_AUDIO = 3_600"
    with changed(tmp_path, sooner) as (program, port):
        base = f"http://127.0.0.1:{port}/v1"
        with openai.OpenAI(api_key="self-hosted", base_url=base, max_retries=0) as client:
            create = client.audio.transcriptions.create
            for says_length, stream, refusal in (
                (True, False, openai.BadRequestError),
                (False, False, openai.BadRequestError),
                (False, True, openai.APIError),
            ):
                bomb = silence(30, says_length=says_length)
                assert len(bomb) < 200_000
                with pytest.raises(refusal) as refused:
                    list(create(model="whisper-1", file=("a.flac", bomb), stream=stream))
                assert refused.value.code == "audio_too_long"
        check_as_before(program, port)


NO_ROOM = {
    "no file may grow": "from resource import *; setrlimit(RLIMIT_FSIZE, (2 << 20, 2 << 20))",
    "the disk is full": (
        "import ctypes, os, subprocess\n"
        "assert ctypes.CDLL(None).unshare(0x20000) == 0\n"  # CLONE_NEWNS
        "subprocess.run(['mount', '--make-rprivate', '/'], check=True)\n"
        "subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=2m', 'x', os.environ['TMPDIR']],\n"
        "    check=True, env={'PATH': os.environ['PATH']})\n"
    ),
}


@pytest.mark.parametrize("how", NO_ROOM)
def test_no_room_for_the_file(tmp_path, how):
    """And who speaks meanwhile does not notice."""
    private = ["unshare", "--mount", "true"]
    if how == "the disk is full" and subprocess.run(private, check=False).returncode:
        pytest.skip("may not mount")
    with changed(tmp_path, NO_ROOM[how]) as (program, port):
        url = f"ws://127.0.0.1:{port}/v3/ws?sample_rate=16000"
        with connect(url, additional_headers={"Authorization": "self-hosted"}) as live:
            speech = pieces(speech_like(2.0))
            for piece in speech[:10]:
                live.send(piece)
            with upload_to(port, 4 << 20) as upload:
                upload.sendall(LARGE)
                status, error = answer_on(upload)
                assert (status, error["code"]) == (507, "insufficient_storage")
                assert error["type"] == "server_error"
            for piece in speech[10:]:
                live.send(piece)
            live.send('{"type": "Terminate"}')
            *_, turn, last = map(json.loads, live)
            assert turn["end_of_turn"]
            assert (last["type"], last["audio_duration_seconds"]) == ("Termination", 2)
        check_as_before(program, port)
