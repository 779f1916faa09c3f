"""``ssasr mic`` with a device made of a recording, and the command where there is no device."""

import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import trio
import trio.testing

from ssasr.client.connection import ClientError
from ssasr.client.microphone import (
    METER_WIDTH,
    WAITING,
    Audio,
    Microphone,
    Request,
    decibels,
    list_devices,
    load_sounddevice,
    meter,
    send_audio,
    stream_microphone,
)


class PortAudioError(Exception):
    pass


class FakeSounddevice:
    """sounddevice's interface, as far as it is used, over a list of devices."""

    PortAudioError = PortAudioError

    class default:
        device = (1, 0)

    def __init__(self, *devices):
        self._devices = devices

    def query_devices(self, wanted=None, kind=None):
        every = [
            {"name": name, "index": i, "max_input_channels": channels, "default_samplerate": rate}
            for i, (name, channels, rate) in enumerate(self._devices)
        ]
        if kind is None:
            return every
        recording = [each for each in every if each["max_input_channels"]]
        if isinstance(wanted, str):
            recording = [each for each in recording if wanted in each["name"]]
        if not recording:
            raise ValueError(f"No input device matching {wanted!r}\nmore")
        return recording[0]


STUDIO = FakeSounddevice(("speakers", 0, 48_000.0), ("USB mic", 1, 44_100.0))


def test_devices_that_record_are_listed_and_the_default_marked():
    assert list_devices(STUDIO) == ["* 1: USB mic (44100 Hz)"]


def test_device_by_name():
    assert Microphone.find(STUDIO, "USB").rate == 44_100


@pytest.mark.parametrize(("name", "text"), [(None, "no microphone found"), ("x", "no microphone")])
def test_no_device_is_one_line(name, text):
    with pytest.raises(ClientError, match=text) as caught:
        Microphone.find(FakeSounddevice(), name)
    assert "\n" not in str(caught.value)
    with pytest.raises(ClientError, match="no microphone found"):
        list_devices(FakeSounddevice())


def test_absent_package_and_library_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(ClientError, match=r"pip install 'ssasr\[mic\]'"):
        load_sounddevice()


def test_meter():
    assert decibels(b"") == decibels(bytes(64)) == -np.inf
    assert decibels(np.full(100, -32_768, "<i2").tobytes()) == 0
    assert meter(-np.inf) == "·" * METER_WIDTH
    assert meter(0.0) == "█" * METER_WIDTH
    assert meter(-30.0) == "█" * (METER_WIDTH // 2) + "·" * (METER_WIDTH // 2)


class Recorded:
    """A device that plays samples from a thread of its own, as fast as it can, then interrupts."""

    rate = 16_000

    def __init__(self, samples, at_end):
        self._samples = samples
        self._at_end = at_end

    @contextmanager
    def open(self, deliver):
        def play():
            for start in range(0, len(self._samples), 1_280):
                deliver(self._samples[start : start + 1_280].astype("<i2").tobytes())
            self._at_end()

        thread = threading.Thread(target=play)
        thread.start()
        try:
            yield
        finally:
            thread.join()


class Words:
    def __init__(self):
        self.turns = []

    def show(self, message):
        if getattr(message, "end_of_turn", False):
            self.turns.append(message.transcript)


@pytest.mark.slow
async def test_speech_becomes_words_and_an_interrupt_finishes_them(served, jfk):
    """Exactly the words of the same audio from a file; SIGINT is real."""
    screen, levels = Words(), []
    device = Recorded(jfk, lambda: signal.raise_signal(signal.SIGINT))
    # raise_signal in a thread reaches the main thread's handler
    request = Request(served.url, "self-hosted", {})
    with trio.fail_after(30):
        await stream_microphone(request, device, screen, levels.append)
    assert sum(map(len, levels)) == 2 * len(jfk)
    assert len(" ".join(screen.turns).split()) > 15


class Deaf:
    """A session that takes nothing."""

    async def send_audio(self, _):
        await trio.sleep_forever()


async def test_a_network_that_is_too_slow_costs_audio_and_is_reported(capsys, nursery):
    audio = Audio.new()
    nursery.start_soon(send_audio, Deaf(), audio, lambda _: None)
    await trio.testing.wait_all_tasks_blocked()  # it takes the first message at once
    with audio.fed_by(Recorded(np.zeros(1_280 * 600), lambda: None)):
        with trio.fail_after(60):
            while audio.lost < 600 - WAITING - 1:
                await trio.sleep(0.001)
    assert "7 s were not sent" in capsys.readouterr().err
    nursery.cancel_scope.cancel()


@pytest.mark.slow
def test_the_command_without_a_device():
    """A list where there is a microphone, one line where there is none."""
    command = [sys.executable, "-m", "ssasr", "mic", "--list-devices"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if result.returncode == 0:
        assert " Hz)" in result.stdout
    else:
        assert result.returncode == 1
        (line,) = result.stderr.strip().splitlines()
        assert line.startswith("ssasr: ")
