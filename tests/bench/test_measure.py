"""Latencies of hand-made sessions whose every moment is known."""

import json
from random import Random

import numpy as np
import pytest

from ssasr.bench.measure import collect, spread, word_error_rate
from ssasr.bench.player import StreamLog
from ssasr.bench.recordings import Track, make_recording, make_track, sound_stretches
from ssasr.net.frames import apply_mask
from ssasr.protocol.parameters import parse_parameters
from ssasr.protocol.settings import turn_settings

SETTINGS = turn_settings(parse_parameters("min_turn_silence=400&max_turn_silence=1200"))


def word(text, start, end, final):
    return {"text": text, "start": start, "end": end, "confidence": 0.9, "word_is_final": final}


def turn(words, *, ended=False, confidence=0.1, order=0):
    return {
        "type": "Turn", "turn_order": order, "end_of_turn": ended, "words": words,
        "end_of_turn_confidence": confidence, "transcript": " ".join(w["text"] for w in words),
    }  # fmt: skip


def log_of(*arrivals, speech=((0.5, 2.0),), reference=None):
    track = Track([b""] * 40, speech, reference, 0.1)
    log = StreamLog(track, [(at, json.dumps(message)) for at, message in arrivals])
    log.began, log.ended, log.closed, log.code = 100.0, 104.0, 104.25, 1000
    return log


@pytest.mark.parametrize(("confidence", "silence"), [(0.9, 0.4), (0.1, 1.2)])
def test_finalization_counts_from_the_end_of_speech_and_the_silence_asked_for(confidence, silence):
    end = turn([word("a", 500, 1_950, True)], ended=True, confidence=confidence)
    samples = collect([log_of((102.0 + silence + 0.3, end))], SETTINGS)
    assert [latency for _, latency in samples.finalization] == pytest.approx([0.3])


def test_word_lags():
    samples = collect(
        [
            log_of(
                (101.1, turn([word("wor", 500, 1_000, False)])),
                (101.2, turn([word("World", 500, 1_050, False)])),
                (101.7, turn([word("world", 500, 1_100, True)])),
                (103.0, turn([word("World", 500, 1_100, True)], ended=True)),
            )
        ],
        SETTINGS,
    )
    assert samples.first_partial == pytest.approx([0.6])
    assert samples.first_seen == pytest.approx([0.1])
    assert samples.final == pytest.approx([0.6])
    assert samples.drain == pytest.approx([0.25])
    assert samples.codes == {1000: 1}


def test_a_turn_that_ends_where_no_speech_ends_is_counted_apart():
    end = turn([word("a", 500, 1_000, True)], ended=True)
    samples = collect([log_of((102.0, end))], SETTINGS)
    assert (samples.finalization, samples.unmatched) == ([], 1)


def test_the_word_error_rate_is_over_what_was_said():
    ends = [
        (102.0, turn([word("And", 0, 900, True), word("so,", 900, 2_000, True)], ended=True)),
        (103.0, turn([word("on", 2_000, 2_500, True)], ended=True, order=1)),
    ]
    said = collect([log_of(*ends, reference="And so, off.")], SETTINGS).transcripts
    assert said == [("And so, off.", "And so, on")]
    assert word_error_rate(said) == pytest.approx(1 / 3)
    assert word_error_rate([]) is None


def test_percentiles():
    found = spread([float(i) for i in range(100)])
    assert (found.count, found.p50, found.p95, found.p99) == (100, 50.0, 95.0, 99.0)
    assert spread([]).p50 is None


def test_speech_is_where_there_is_sound():
    samples = np.zeros(64_000, np.float32)
    samples[16_384:32_768] = 0.1  # both on the frames' grid
    samples[33_280:40_960] = 0.1  # after a gap too short to count
    samples[51_200:57_344] = 0.1
    assert sound_stretches(samples, 16_000) == [(1.024, 2.56), (3.2, 3.584)]
    assert sound_stretches(np.zeros(16_000, np.float32), 16_000) == []


def test_a_track_is_whole_recordings_with_their_speech_where_it_is_played():
    tone = np.full(16_000, 0.1, np.float32)
    recording = make_recording("tone", tone, gap=1.05, reference="one")
    assert len(recording.frames) == 21  # 2.05 s in whole messages of 0.1 s
    track = make_track([recording], 4.5, 0.1, Random(1))
    before = round(track.speech[0][0] / 0.1)
    assert len(track.frames) == before + 21 * len(track.speech)
    assert track.seconds >= 4.5
    assert track.reference == " ".join(["one"] * len(track.speech))
    # 4 bytes of head, 4 of key
    pcm = b"".join(apply_mask(frame[8:], frame[4:8]) for frame in track.frames)
    loud = np.flatnonzero(np.frombuffer(pcm, "<i2"))
    assert loud[0] == round(track.speech[0][0] * 16_000)
