"""Files, by OpenAI's SDK, against the real program."""

import re
import socket
from time import monotonic, sleep

import numpy as np
import openai
import pytest
import soundfile

from tests.conftest import JFK
from tests.harness.processes import server

pytestmark = pytest.mark.slow

GERMAN = JFK.parents[2] / "tests" / "data" / "german.flac"
WORDS = (
    "and so my fellow americans ask not what your country can do for you "
    "ask what you can do for your country"
)


def sdk(port):
    return openai.OpenAI(
        api_key="self-hosted", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0
    )


@pytest.mark.weights
def test_words_of_a_recording():
    with server("--engines", "english", "--max-streams", 2) as (_, port), sdk(port) as client:
        create = client.audio.transcriptions.create
        found = create(model="whisper-1", file=JFK, language="en", response_format="verbose_json")
        events = list(create(model="english", file=JFK, stream=True))
        styled = create(model="whisper-1", file=JFK, prompt="we write in lower case without marks")
    assert " ".join(re.findall(r"[a-z]+", found.text.lower())) == WORDS
    assert found.segments[0].start < 1 < 9 < found.segments[-1].end < 11
    assert events[-1].text == found.text
    assert found.text.startswith("And so my fellow Americans")
    assert styled.text.startswith("and so my fellow Americans")


@pytest.mark.weights
@pytest.mark.filterwarnings("ignore:deprecated")  # by the SDK, which has it all the same
def test_a_translation():
    with server("--engines", "multilingual", "--max-streams", 2) as (_, port), sdk(port) as client:
        said = client.audio.transcriptions.create(
            model="whisper-1", file=GERMAN, response_format="verbose_json"
        )
        meant = client.audio.translations.create(
            model="whisper-1", file=GERMAN, response_format="verbose_json"
        )
    assert said.language == "german"
    assert "Frau und zwei Töchtern in Stuttgart" in said.text
    assert meant.language == "english"
    assert "wife and two daughters in Stuttgart" in meant.text


def test_a_client_that_leaves_ends_the_work(tmp_path):
    """Of an hour of audio, which would be worked on for longer than this test lasts."""
    path = tmp_path / "long.flac"
    speech, rate = soundfile.read(JFK, dtype="int16")
    soundfile.write(path, np.tile(speech, 330), rate)
    body = path.read_bytes()
    head = (
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nAuthorization: self-hosted\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n"
    )
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    form = part + body + b"\r\n--b--\r\n"
    with server("--engine-kind", "scripted") as (program, port):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head % len(form) + form)
        deadline = monotonic() + 60
        while "file ended" not in program.stderr and monotonic() < deadline:
            sleep(0.05)
        assert re.search(r"file ended +cause=client_vanished", program.stderr)
