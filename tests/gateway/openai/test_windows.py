"""A recording in windows: all of it, none too long, cut where it is quiet."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ssasr.gateway.openai.windows import EARLIEST, LONGEST, Windows
from ssasr.protocol.recognition import SAMPLE_RATE


def cut(pcm, sizes):
    windows, at, found = Windows.new(), 0, []
    for size in sizes:
        found += windows.add(pcm[at : at + 2 * size])
        at += 2 * size
    found += windows.add(pcm[at:])
    return [*found, *windows.remaining()]


def noise(seconds):
    return np.random.default_rng(1).integers(-3_000, 3_000, seconds * SAMPLE_RATE, np.int16)


RECORDING = noise(100)
for pause in (20, 41, 66):
    RECORDING[pause * SAMPLE_RATE : pause * SAMPLE_RATE + SAMPLE_RATE // 2] //= 500


@settings(max_examples=25)
@given(st.lists(st.integers(0, 40 * SAMPLE_RATE), max_size=8))
def test_windows_are_the_recording_however_it_comes(sizes):
    pcm = RECORDING.astype("<i2").tobytes()
    found = cut(pcm, sizes)
    assert b"".join(window.pcm for window in found) == pcm
    assert found == cut(pcm, [])
    assert [window.number for window in found] == list(range(len(found)))
    starts = np.cumsum([0, *(window.samples for window in found)]).tolist()
    assert [window.start for window in found] == starts[:-1]


def test_they_end_in_pauses():
    ends = [window.start + window.samples for window in cut(RECORDING.tobytes(), [])]
    for end, pause in zip(ends, (20, 41, 66), strict=False):
        assert pause < end / SAMPLE_RATE < pause + 0.5


def test_sound_without_a_pause_is_cut_all_the_same():
    for window in cut(noise(90).tobytes(), [])[:-1]:
        assert EARLIEST <= window.samples <= LONGEST


def test_silence_is_cut_late():
    windows = cut(bytes(2 * 60 * SAMPLE_RATE), [])
    assert windows[0].samples > LONGEST - SAMPLE_RATE
    assert cut(b"", []) == []
