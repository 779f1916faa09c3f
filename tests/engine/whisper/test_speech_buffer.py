"""Where somebody speaks, with probabilities written down by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ssasr.engine.whisper.speech_buffer import GAP, SpeechBuffer
from ssasr.protocol.recognition import VAD_FRAME


def _result(*runs, start=0):
    """(frames, probability), advanced to the end."""
    speech_buffer = SpeechBuffer(start)
    probabilities = [probability for frames, probability in runs for _ in range(frames)]
    count = len(probabilities)
    speech_buffer.receive(np.arange(count * VAD_FRAME, dtype=np.float32), probabilities)
    speech_buffer.advance(start + count * VAD_FRAME)
    return speech_buffer


@given(st.lists(st.integers(0, 3_000), max_size=8))
def test_frames_are_whole_and_lose_nothing(sizes):
    speech_buffer = SpeechBuffer(0)
    audio = np.arange(sum(sizes), dtype=np.float32)
    pieces = np.split(audio, np.cumsum(sizes)[:-1]) if sizes else []
    frames = [speech_buffer.frames(piece) for piece in pieces]
    joined = np.concatenate([np.zeros((0, VAD_FRAME), np.float32), *frames]).ravel()
    np.testing.assert_array_equal(joined, audio[: len(joined)])
    assert len(audio) - len(joined) < VAD_FRAME


def test_nothing_is_known_of_what_was_not_reached():
    speech_buffer = SpeechBuffer(7)
    speech_buffer.receive(np.zeros(9 * VAD_FRAME, np.float32), [0.9] * 3 + [0.1] * 6)
    assert speech_buffer.speech_end is None
    assert speech_buffer.received - speech_buffer.position == 9 * VAD_FRAME
    assert speech_buffer.silence_ahead == 6 * VAD_FRAME
    assert speech_buffer.advance(7 + 4 * VAD_FRAME) == (0.9, 0.9, 0.9, 0.1)
    assert speech_buffer.speech_end == 7 + 3 * VAD_FRAME
    assert speech_buffer.silence == VAD_FRAME


def test_who_speaks_already_may_grow_softer():
    speech_buffer = _result((1, 0.4), (1, 0.6), (1, 0.4), (1, 0.3), (1, 0.4))
    assert speech_buffer.voiced(0, 5 * VAD_FRAME).tolist() == [False, True, True, False, False]


def test_stretches_are_parted_by_real_silence_only():
    speech_buffer = _result((2, 0.9), (5, 0.1), (2, 0.9), (GAP // VAD_FRAME, 0.1), (3, 0.9))
    assert speech_buffer.stretches(0, 18 * VAD_FRAME) == [
        (0, 9 * VAD_FRAME),
        (15 * VAD_FRAME, 18 * VAD_FRAME),
    ]
    assert speech_buffer.stretches(3 * VAD_FRAME, 6 * VAD_FRAME) == []


def test_a_frame_that_is_not_over_does_not_count():
    """It has been processed by an engine that is further on, and must make no difference."""
    speech_buffer = _result((2, 0.9), (2, 0.1), (1, 0.9))
    at = 5 * VAD_FRAME - 1
    assert speech_buffer.speech_until(at) == 2 * VAD_FRAME
    assert speech_buffer.voiced(2 * VAD_FRAME, at).tolist() == [False, False]
    assert speech_buffer.speech_until(at + 1) == 5 * VAD_FRAME


def test_speech_up_to_the_end_of_a_span_reaches_its_end():
    speech_buffer = _result((4, 0.9))
    assert speech_buffer.stretches(100, 3 * VAD_FRAME + 17) == [(100, 3 * VAD_FRAME + 17)]


def test_what_is_forgotten_is_gone_and_the_rest_stays_in_place():
    speech_buffer = _result((4, 0.1), (4, 0.9), start=1_000)
    speech_buffer.forget(1_000 + 3 * VAD_FRAME + 5)
    assert len(speech_buffer.recent(10**9)) == 5 * VAD_FRAME - 5
    begin = 1_000 + 4 * VAD_FRAME
    assert speech_buffer.samples(begin, begin + 2).tolist() == [
        4.0 * VAD_FRAME,
        4.0 * VAD_FRAME + 1,
    ]
    assert speech_buffer.stretches(begin - VAD_FRAME, begin + VAD_FRAME) == [
        (begin, begin + VAD_FRAME)
    ]
    speech_buffer.forget(0)
    assert len(speech_buffer.recent(10**9)) == 5 * VAD_FRAME - 5


def test_the_threshold_is_the_streams_own():
    """A client that speaks softly asks for a lower one; what is decoded must follow."""
    soft = [0.3] * 5
    for threshold, spoken in ((0.5, 0), (0.3, 5), (0.25, 5)):
        speech_buffer = SpeechBuffer(0, threshold)
        speech_buffer.receive(np.zeros(5 * VAD_FRAME, np.float32), soft)
        assert speech_buffer.silence_ahead == (0 if threshold < 0.5 else 5 * VAD_FRAME)
        speech_buffer.advance(5 * VAD_FRAME)
        assert speech_buffer.spoken == spoken * VAD_FRAME


def test_speech_goes_on_until_it_is_well_below_the_threshold():
    speech_buffer = SpeechBuffer(0, 0.3)
    speech_buffer.receive(np.zeros(4 * VAD_FRAME, np.float32), [0.31, 0.16, 0.14, 0.16])
    speech_buffer.advance(4 * VAD_FRAME)
    assert speech_buffer.speech_end == 2 * VAD_FRAME


@given(st.integers(0, 6), st.integers(0, 6))
def test_a_new_threshold_holds_from_the_next_audio_on_however_far_behind_the_segment_is(
    at, advanced
):
    """Else an engine that takes the stream over would find something else."""
    speech_buffer = SpeechBuffer(0, 0.5)
    for frame in range(6):
        if frame == at:
            speech_buffer.threshold = 0.2
        speech_buffer.receive(np.zeros(VAD_FRAME, np.float32), [0.3])
        if frame == advanced:
            speech_buffer.advance((frame + 1) * VAD_FRAME)
    speech_buffer.advance(6 * VAD_FRAME)
    assert speech_buffer.spoken == (6 - min(at, 6)) * VAD_FRAME
