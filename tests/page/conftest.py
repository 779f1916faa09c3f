"""A server with the scripted engines for the tests of a module, and something to say to it."""

import numpy as np
import pytest
import soundfile

from tests.conftest import JFK
from tests.harness.demo_page import SCRIPTED
from tests.harness.processes import server


@pytest.fixture(scope="module")
def serving():
    """The server's process, and its port."""
    with server(*SCRIPTED) as (program, port):
        yield program.process, port


@pytest.fixture(scope="module")
def port(serving):
    return serving[1]


@pytest.fixture(scope="session")
def spoken(tmp_path_factory):
    """The recording and then half a minute of silence, as a microphone would hear it."""
    samples, rate = soundfile.read(JFK, dtype="int16")
    path = tmp_path_factory.mktemp("spoken") / "speech.wav"
    soundfile.write(path, np.concatenate([samples, np.zeros(30 * rate, "int16")]), rate)
    return path
