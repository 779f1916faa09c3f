"""Who speaks when, by the real networks and by the scripted one."""

import numpy as np
import pytest
import soundfile
import torch

from ssasr.engine.speakers.diarizer import VoiceDiarizer
from ssasr.engine.speakers.scripted import ScriptedDiarizer
from ssasr.engine.speakers.windows import Window
from tests.conftest import JFK
from tests.engine.speakers.test_networks import DATA

SECOND = 16_000


def cosine(one, other):
    return float(np.frombuffer(one, "<f2").astype(float) @ np.frombuffer(other, "<f2"))


@pytest.fixture(scope="module")
def diarizer():
    torch.set_num_threads(1)
    return VoiceDiarizer.load("cpu")


@pytest.fixture(scope="module")
def readers():
    """Linda 4 s, John 4 s, Linda 1.8 s."""
    parts = [DATA / "speech.flac", JFK, DATA / "sentence_end.flac"]
    return [soundfile.read(part, dtype="float32")[0][: 4 * SECOND] for part in parts]


@pytest.mark.weights
def test_a_reader_sounds_like_herself_and_not_like_another(diarizer, readers):
    silence = np.zeros(SECOND, np.float32)
    windows = [np.concatenate([silence, reader, silence]) for reader in readers]
    runs_of = diarizer.find_voices([Window(len(audio), audio) for audio in windows])
    linda, john, again = (window.voices for window in runs_of)
    assert abs(linda[0].runs[0].start - SECOND) < SECOND / 4
    assert abs(linda[-1].runs[-1].end - 5 * SECOND) < SECOND / 4
    for voice in (*linda, *john, *again):
        assert SECOND / 2 <= voice.clean <= 3 * SECOND
        assert cosine(voice.embedding, voice.embedding) == pytest.approx(1, abs=1e-3)
    assert cosine(linda[0].embedding, again[0].embedding) > 0.5
    assert cosine(linda[0].embedding, john[0].embedding) < 0.2


@pytest.mark.weights
def test_a_batch_hears_what_each_window_holds(diarizer, readers):
    audio = np.concatenate(readers)
    ends = [3 * SECOND, 6 * SECOND, 600, 0, len(audio)]
    windows = [Window(end, audio[:end]) for end in ends]
    together = diarizer.find_voices(windows)
    for window, runs_of in zip(windows, together, strict=True):
        (alone,) = diarizer.find_voices([window])
        assert [voice.runs for voice in runs_of.voices] == [voice.runs for voice in alone.voices]
        for one, other in zip(runs_of.voices, alone.voices, strict=True):
            assert one.clean == other.clean
            if one.embedding:
                assert cosine(one.embedding, other.embedding) > 0.999
    assert together[2].voices == together[3].voices == ()


@pytest.mark.weights
def test_nobody_is_heard_in_silence(diarizer):
    assert diarizer.find_voices([Window(SECOND, np.zeros(SECOND, np.float32))])[0].voices == ()


def test_the_scripted_one_tells_tones_apart():
    times = np.arange(2 * SECOND) / SECOND
    low, high = (np.sin(2 * np.pi * pitch * times).astype(np.float32) / 2 for pitch in (200, 1_600))
    audio = np.concatenate([low, high, np.zeros(SECOND, np.float32), low])
    (runs_of,) = ScriptedDiarizer().find_voices([Window(100 + len(audio), audio)])
    assert runs_of.start == 100
    one, other = sorted(runs_of.voices, key=lambda voice: len(voice.runs), reverse=True)
    assert [len(voice.runs) for voice in (one, other)] == [2, 1]
    assert cosine(one.embedding, other.embedding) == 0
