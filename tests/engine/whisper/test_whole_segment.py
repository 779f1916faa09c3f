"""A segment of a file: one decode, at its end, of all that was said."""

import threading

import numpy as np
import pytest
import torch
from attrs import evolve

from ssasr.engine.recognizer import SegmentStart, Work
from ssasr.engine.tokenizers import WhisperTokenizer
from ssasr.engine.whisper.placement import LEAD
from ssasr.engine.whisper.segment import RINGING, Due, Kind
from ssasr.engine.whisper.vocabulary import Vocabulary
from ssasr.engine.whisper.whole_segment import WholeSegment
from ssasr.protocol.recognition import SAMPLE_RATE, StreamOptions
from tests.engine.whisper.segments import SILENCE, SPEECH, advance, receive, say
from tests.engine.whisper.tiny import recognizer

OFFLINE = StreamOptions(offline=True)
LONG = 5 * SAMPLE_RATE


def segment():
    return WholeSegment(OFFLINE, 0, [])


@pytest.mark.parametrize("parts", [1, 10])
def test_nothing_is_decoded_before_the_end(parts):
    whole = segment()
    for _ in range(parts):
        receive(whole, 20 / parts, SPEECH)
        dues, answers = advance(whole)
        assert dues == []
        assert all(answer.words == () for answer in answers)
    end = whole.speech_buffer.received
    dues, answers = advance(whole, lambda due: say(("hello", 1, 2), ("world", 2, 3)), final_at=end)
    assert [(due.kind, due.begin, due.end) for due in dues] == [(Kind.FINAL, 0, end)]
    assert [word.text for word in answers[-1].words if word.final] == ["hello", "world"]
    assert answers[-1].position == end


def test_silence_around_what_was_said_is_left_out_and_a_pause_in_it_is_not():
    whole = segment()
    for seconds, probability in (
        (5, SILENCE),
        (2, SPEECH),
        (3, SILENCE),
        (2, SPEECH),
        (4, SILENCE),
    ):
        receive(whole, seconds, probability)
    (due,), _ = advance(whole, final_at=whole.speech_buffer.received)
    assert due.begin == pytest.approx(5 * SAMPLE_RATE - LEAD, abs=2_000)
    assert due.end == pytest.approx(12 * SAMPLE_RATE + RINGING, abs=4_000)


def test_what_the_decoder_leaves_out_after_a_pause_is_decoded_next():
    whole = segment()
    for seconds, probability in ((3, SPEECH), (1, SILENCE), (3, SPEECH)):
        receive(whole, seconds, probability)
    early = {False: say(("first", 1, 3.2)), True: say(("rest", 4.5, 6.5))}
    dues, answers = advance(
        whole, lambda due: early[due.continues], final_at=whole.speech_buffer.received
    )
    assert [due.continues for due in dues] == [False, True]
    assert [word.text for word in answers[-1].words] == ["first", "rest"]


def test_what_is_decoded_next_is_in_the_same_language():
    """Though that is not sure yet: a second of speech tells it worse than all of it did."""
    model, whole = recognizer(), segment()
    model.vocabulary = evolve(model.vocabulary, multilingual=True)
    whole.language.found("de", 0.4, LONG)
    first, following = Due(Kind.FINAL, 0, LONG), Due(Kind.FINAL, SAMPLE_RATE, LONG, continues=True)
    assert [model._language(whole, due) for due in (first, following)] == [None, "de"]


def test_silence_is_not_decoded():
    whole = segment()
    receive(whole, 20, SILENCE)
    dues, answers = advance(whole, final_at=whole.speech_buffer.received)
    assert (dues, answers[-1].words) == ([], ())


def test_the_end_may_lie_behind():
    whole = segment()
    receive(whole, 10, SPEECH)
    advance(whole)
    (due,), answers = advance(whole, lambda due: say(("hello", 1, 2)), final_at=LONG)
    assert due.end == LONG
    assert answers[-1].position == LONG


def test_a_translation_begins_otherwise():
    names = ("endoftext", "startoftranscript", "en", "de", "transcribe", "translate",
             "startofprev", "nospeech", "notimestamps")  # fmt: skip
    tokenizer = WhisperTokenizer({number: f"<|{name}|>" for number, name in enumerate(names)})
    vocabulary = Vocabulary(tokenizer, torch.zeros(9), torch.zeros(9), True, ("en", "de"))
    written = [names[token] for token in vocabulary.prefix("de", translate=True)]
    assert written == ["startoftranscript", "de", "translate", "notimestamps"]
    assert names[vocabulary.prefix("de")[2]] == "transcribe"


def noise(seconds, seed):
    return np.random.default_rng(seed).normal(0, 0.1, seconds * SAMPLE_RATE).astype(np.float32)


class Noted:
    """A ``Decoding`` of which one knows what was decoded."""

    def __init__(self, decoding):
        self.decoding, self.passes, self.calls = decoding, decoding.passes, []

    def __call__(self, requests):
        self.calls.append([len(request.samples) for request in requests])
        return self.decoding(requests)

    @property
    def lengths(self):
        return [length for call in self.calls for length in call]


def again(work):
    return [Work(each.state, each.audio[:0], each.final_at) for each in work]


def step_until_done(model, work):
    while work:
        outcomes = zip(work, model.step(work), strict=True)
        work = again([each for each, outcome in outcomes if outcome.unfinished])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_waits_for_live_streams(workers):
    """Without workers there is one thing at a time, and live streams come first."""
    model = recognizer(workers=workers)
    noted = model.decoding = Noted(model.decoding)
    whole = StreamOptions(offline=True)
    work = [
        Work(model.new_state(options, SegmentStart(0)), audio, len(audio))
        for options, audio in ((whole, noise(3, 1)), (StreamOptions(), noise(2, 2)))
    ]
    step_until_done(model, work)
    (file,) = [length for length in noted.lengths if length > 2 * SAMPLE_RATE]
    if not workers:
        assert noted.lengths[-1] == file


def finals(model, count):
    whole = StreamOptions(offline=True)
    pieces = [noise(3, seed) for seed in range(count)]
    return [Work(model.new_state(whole, SegmentStart(0)), audio, len(audio)) for audio in pieces]


def test_windows_that_wait_share_the_free_workers():
    model = recognizer(workers=2)
    noted = model.decoding = Noted(model.decoding)
    step_until_done(model, finals(model, 4))
    assert sorted(map(len, noted.calls)) == [2, 2]


def test_a_window_that_comes_in_waits_for_no_worker(monkeypatch):
    model, waited, go_on = recognizer(workers=2), [], threading.Event()
    monkeypatch.setattr(model, "_decode", lambda *given: go_on.wait())
    monkeypatch.setattr(model._background, "wait", waited.append)
    decoding = finals(model, 1)
    listening = Work(
        model.new_state(StreamOptions(offline=True), SegmentStart(0)), noise(1, 9), None
    )
    try:
        model.step([*decoding, listening])
        assert not waited
        model.step(again(decoding))
        assert len(waited) == 1
    finally:
        go_on.set()
