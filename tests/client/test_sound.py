"""Recordings as they are found: unfinished, wired wrong, with several channels."""

import io
import os
import struct
import threading

import numpy as np
import pytest
import soundfile

from ssasr.client.connection import ClientError
from ssasr.client.sound import Mixer, WavStream, open_sound

RATE = 8_000
TONE = (np.sin(np.arange(RATE) / 7) * 0.5).astype(np.float32)


def read(name):
    return np.concatenate(list(open_sound(str(name)).blocks()))


def wav(tmp_path, *, says=None, subtype="PCM_16", channels=1):
    """``says``: what the header says of the data's length."""
    path = tmp_path / "talk.wav"
    soundfile.write(path, np.stack([TONE] * channels, axis=1), RATE, subtype=subtype)
    if says is not None:
        data = bytearray(path.read_bytes())
        at = data.index(b"data") + 4
        data[at : at + 4] = struct.pack("<I", says)
        path.write_bytes(data)
    return path


@pytest.mark.parametrize("says", [0, 1 << 30, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_that_is_being_written_is_read_to_its_end(tmp_path, says):
    samples = read(wav(tmp_path, says=says))
    assert samples.shape == (RATE, 1)
    assert np.allclose(samples[:, 0], TONE, atol=1e-4)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "PCM_U8", "FLOAT"])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav_from_a_pipe(tmp_path, subtype, channels):
    data = wav(tmp_path, subtype=subtype, channels=channels).read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[data])
    writer.start()
    samples = read(pipe)
    writer.join()
    assert samples.shape == (RATE, channels)
    assert np.allclose(samples[:, 0], TONE, atol=0.01)


def test_other_formats_come_through_a_pipe_too(tmp_path):
    soundfile.write(tmp_path / "talk.flac", TONE, RATE)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = (tmp_path / "talk.flac").read_bytes()
    writer = threading.Thread(target=pipe.write_bytes, args=[data])
    writer.start()
    assert len(read(pipe)) == RATE
    writer.join()


@pytest.mark.parametrize(
    "data", [b"", b"fmt \x10\x00\x00\x00" + bytes(16), b"LIST\xff\xff\xff\xff"]
)
def test_a_wav_stream_without_samples_is_said(data):
    with pytest.raises(ClientError, match="standard input"):
        WavStream.open(io.BytesIO(data), "standard input")


def test_what_is_not_there_or_no_file(tmp_path):
    with pytest.raises(ClientError, match="no such file"):
        open_sound(str(tmp_path / "missing.wav"))
    (tmp_path / "notes.wav").write_text("not audio")
    with pytest.raises(ClientError, match="no audio that can be read"):
        open_sound(str(tmp_path / "notes.wav"))


def test_channels_are_mixed():
    left, right = TONE, TONE / 2
    assert np.allclose(Mixer().mixed(np.stack([left, right], axis=1)), TONE * 0.75)


def test_channels_that_cancel_each_other_are_not():
    """A cable that is wired wrong: the mean of both is silence."""
    mixer = Mixer()
    quiet = np.zeros((100, 2), np.float32)
    assert not mixer.mixed(quiet).any()
    assert not mixer.cancelled
    assert np.allclose(mixer.mixed(np.stack([TONE, -0.9 * TONE], axis=1)), TONE)
    assert mixer.cancelled
    assert np.allclose(mixer.mixed(np.stack([TONE, TONE], axis=1)), TONE), "and so it stays"


def test_a_channel_is_chosen():
    block = np.stack([TONE, TONE / 2], axis=1)
    assert np.allclose(Mixer(2).mixed(block), TONE / 2)
    with pytest.raises(ClientError, match="no channel 3"):
        Mixer(3).mixed(block)
