"""The policy of one segment, with hypotheses written down by hand."""

import numpy as np
import pytest

from ssasr.engine.whisper import segment as policy
from ssasr.engine.whisper.segment import Due, Kind, Segment, without_squeezed
from ssasr.engine.whisper.splice import Spoken
from ssasr.protocol.recognition import SAMPLE_RATE, VAD_FRAME, StreamOptions, Word

CHUNK = 3 * VAD_FRAME


def _segment(committed=(), start=0):
    return Segment(StreamOptions(), start, list(committed))


def _hear(segment, seconds, probability):
    """Chunks of speech or silence; what falls due on the way."""
    due = []
    for _ in range(round(seconds * SAMPLE_RATE / CHUNK)):
        segment.hear(np.zeros(CHUNK, np.float32), [probability] * 3)
        one = segment.due(None)
        if one is not None:
            due.append(one)
            segment.apply(one, [], reliable=True)
    return due


def _say(*words):
    """(text, start, end) in seconds -> a hypothesis."""
    return [
        Spoken(Word(text, int(begin * SAMPLE_RATE), int(end * SAMPLE_RATE), 0.9), (number,))
        for number, (text, begin, end) in enumerate(words)
    ]


def _decoded(segment, at, *words, kind=Kind.PARTIAL, reliable=True):
    segment.apply(Due(kind, segment.origin, int(at * SAMPLE_RATE)), _say(*words), reliable=reliable)
    return [word.text for word in segment.committed]


def test_silence_is_never_decoded_and_never_kept():
    segment = _segment()
    assert _hear(segment, 60, 0.01) == []
    assert segment.due(segment.position) is None
    assert len(segment.recent(10**9)) <= policy.LEAD
    assert len(segment._speech) * VAD_FRAME <= policy.LEAD + VAD_FRAME


def test_speech_is_decoded_on_the_grid_and_once_when_it_stops():
    segment = _segment(start=777)
    due = _hear(segment, 3, 0.9)
    assert [one.kind for one in due] == [Kind.PARTIAL] * len(due)
    assert [(one.end - 777) % policy.STEP for one in due] == [0] * len(due)
    assert np.diff([one.end for one in due]).tolist() == [policy.STEP] * (len(due) - 1)
    stopped = segment.speech_end
    quiet = _hear(segment, 3, 0.01)
    assert [(one.kind, one.end) for one in quiet] == [(Kind.SETTLED, stopped + policy.SETTLE)]


def test_a_click_is_not_a_word():
    segment = _segment()
    segment.hear(np.zeros(CHUNK, np.float32), [0.01, 0.9, 0.01])
    assert _hear(segment, 2, 0.01) == []


def test_a_decode_that_was_put_off_becomes_the_newest_one():
    segment = _segment()
    for _ in range(20):
        segment.hear(np.zeros(CHUNK, np.float32), [0.9] * 3)
    due = segment.due(None)
    assert due is not None
    assert due.end == 20 * CHUNK // policy.STEP * policy.STEP


def test_words_are_final_when_hypotheses_agree_and_audio_has_gone_on():
    segment = _segment()
    for _ in range(30):
        segment.hear(np.zeros(CHUNK, np.float32), [0.9] * 3)
    said = ("one", 0.1, 0.4), ("two", 0.5, 0.8), ("three", 0.9, 1.2)
    assert _decoded(segment, 1.5, *said[:2]) == []
    # "one" and "two" agreed twice and lie far enough back; "three" was said once.
    assert _decoded(segment, 1.9, *said) == ["one", "two"]
    # Agreed upon, but too near the end.
    assert _decoded(segment, 2.05, *said) == ["one", "two"]
    assert _decoded(segment, 2.6, *said) == ["one", "two", "three"]
    assert all(word.final for word in segment.committed)


def test_casing_and_punctuation_are_no_disagreement_but_a_word_is():
    segment = _segment()
    for _ in range(30):
        segment.hear(np.zeros(CHUNK, np.float32), [0.9] * 3)
    _decoded(segment, 2.0, ("so", 0.1, 0.3), ("long", 0.3, 0.5))
    assert _decoded(segment, 2.5, ("So,", 0.1, 0.3), ("wrong", 0.3, 0.5)) == ["So,"]


def test_a_hypothesis_that_was_cut_makes_nothing_final():
    segment = _segment()
    for _ in range(30):
        segment.hear(np.zeros(CHUNK, np.float32), [0.9] * 3)
    for at in (1.5, 2.0, 2.5):
        assert _decoded(segment, at, ("so", 0.1, 0.3), reliable=False) == []


def test_a_rest_makes_everything_final_and_forgets_the_audio():
    segment = _segment()
    _hear(segment, 1, 0.9)
    for _ in range(3):
        segment.hear(np.zeros(CHUNK, np.float32), [0.01] * 3)
    due = segment.due(None)
    segment.apply(due, _say(("hello.", 0.2, 0.9)), reliable=True)
    _hear(segment, 2, 0.01)
    assert [(word.text, word.final) for word in segment.words()] == [("hello.", True)]
    assert len(segment.recent(10**9)) <= policy.LEAD + CHUNK


def test_the_end_reuses_a_decode_that_covered_all_speech():
    segment = _segment()
    _hear(segment, 1, 0.9)
    _hear(segment, 0.5, 0.01)
    assert segment.due(segment.position) is None
    assert segment.due(int(0.5 * SAMPLE_RATE)) == Due(Kind.FINAL, 0, int(0.5 * SAMPLE_RATE))


def test_the_end_decodes_speech_that_nothing_covered():
    segment = _segment()
    _hear(segment, 1, 0.9)
    segment.hear(np.zeros(CHUNK, np.float32), [0.9] * 3)
    at = segment.position
    assert segment.due(at) == Due(Kind.FINAL, segment.origin, at)


def test_words_at_the_end_are_final_and_lie_before_it():
    segment = _segment()
    _hear(segment, 2, 0.9)
    segment.pending = _say(("in", 0.2, 0.5), ("out", 1.5, 1.8))
    assert [(w.text, w.final) for w in segment.final_words(SAMPLE_RATE)] == [("in", True)]


def test_a_long_excerpt_is_cut_in_the_silence_between_final_words():
    segment = _segment()
    _hear(segment, 4, 0.9)
    _hear(segment, 0.5, 0.01)
    _hear(segment, 5, 0.9)
    assert segment.origin == 0
    segment.committed = [w.word for w in _say(("a", 3.0, 4.03), ("b", 4.52, 5.0))]
    segment.pending = []
    _decoded(segment, segment.position / SAMPLE_RATE, ("c", 6.0, 6.5))
    assert 4.03 <= segment.origin / SAMPLE_RATE <= 4.52


def test_words_before_a_forced_cut_are_kept():
    segment = _segment()
    for _ in range(28 * SAMPLE_RATE // CHUNK):
        segment.hear(np.zeros(CHUNK, np.float32), [0.9] * 3)
    _decoded(segment, 27.5, ("early", 1.0, 1.4), ("late", 26.0, 26.5), reliable=False)
    assert segment.origin > 2 * SAMPLE_RATE
    assert [(word.text, word.final) for word in segment.words()] == [
        ("early", True),
        ("late", False),
    ]


@pytest.mark.slow
def test_audio_is_bounded_whatever_the_decoder_says():
    segment = _segment()
    for _ in range(120 * SAMPLE_RATE // CHUNK):
        segment.hear(np.zeros(CHUNK, np.float32), [0.9] * 3)
        due = segment.due(None)
        if due is not None:
            assert due.end - due.begin <= 30 * SAMPLE_RATE
            segment.apply(due, [], reliable=False)
    assert len(segment.recent(10**9)) <= policy.FULL + policy.STEP


def test_words_without_audio_are_dropped_in_runs_only():
    said = _say(
        ("and", 0.0, 0.3), ("the", 0.3, 0.32), ("gut", 0.32, 0.8), ("and", 0.8, 0.8001),
        ("the", 0.8001, 0.82), ("gut", 0.82, 0.8201), ("being", 0.83, 1.2),
    )  # fmt: skip
    kept = [spoken.word.text for spoken in without_squeezed(said)]
    assert kept == ["and", "the", "gut", "being"]


def test_borders_move_out_of_silence_and_words_stay_in_order():
    segment = _segment()
    _hear(segment, 1, 0.9)
    _hear(segment, 1, 0.01)
    _hear(segment, 1, 0.9)
    segment.committed, segment.pending = [], []
    _decoded(segment, 3.0, ("before", 0.5, 1.9), ("after", 1.95, 2.6))
    before, later = segment.words()
    assert before.end <= 1.2 * SAMPLE_RATE
    assert later.start >= 1.8 * SAMPLE_RATE
    assert before.end <= later.start
