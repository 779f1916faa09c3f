"""The recogniser over slots: the reference's tokens, whatever the company and the schedule."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    rule,
    run_state_machine_as_test,
)

from ssasr.engine.fastconformer.config import load_config
from ssasr.engine.fastconformer.recognizer import largest_batch
from ssasr.engine.fastconformer.slots import Layout
from ssasr.engine.recognizer import SegmentStart, Work
from ssasr.errors import EngineBusy
from ssasr.protocol.recognition import VAD_FRAME, StreamOptions, Word
from tests.engine.fastconformer import reference
from tests.engine.fastconformer.conftest import loudness


@define(eq=False)
class Stream:
    """A stream that feeds a recogniser and keeps what it says."""

    recognizer: object
    audio: np.ndarray
    options: StreamOptions = field(factory=StreamOptions)
    start: int = 0
    fed: int = 0
    results: list = field(factory=list)
    tokens: list = field(factory=list)
    committed: tuple = ()
    state: object = field(init=False)

    def __attrs_post_init__(self):
        self.state = self.recognizer.new_state(
            self.options, SegmentStart(self.start, self.committed)
        )

    def work(self, chunks=1, final_at=None):
        """The next chunks, or all up to ``final_at`` (samples of this stream's audio)."""
        end = (
            self.fed + chunks * self.recognizer.chunk
            if final_at is None
            else max(final_at, self.fed)
        )
        piece = self.audio[self.fed : end]
        self.fed += len(piece)
        return Work(self.state, piece, None if final_at is None else self.start + final_at)

    def take(self, outcome):
        assert not outcome.unfinished
        self.results += outcome.results
        self.tokens = [(t.token, t.place) for t in self.state.transcript._tokens]

    @property
    def delivered(self):
        """Final words of the answer before the last."""
        return [w for w in self.results[-2].words if w.final] if len(self.results) > 1 else []

    @property
    def rewound(self):
        return len(self.results) > 1 and self.results[-1].position < self.results[-2].position

    @property
    def words(self):
        return self.results[-1].words

    @property
    def said(self):
        """The words of each answer."""
        return [
            [(w.text, w.start, w.end, w.final) for w in result.words] for result in self.results
        ]

    @property
    def speech(self):
        return [p for result in self.results for p in result.speech]

    def whole_chunks_left(self):
        return (len(self.audio) - self.fed) // self.recognizer.chunk

    def run(self, final_at=None):
        """Alone, to the end."""
        final_at = len(self.audio) if final_at is None else final_at
        while self.whole_chunks_left() and self.fed + self.recognizer.chunk < final_at:
            self.take(self.recognizer.step([self.work()])[0])
        self.take(self.recognizer.step([self.work(final_at=final_at)])[0])
        return self


def together(recognizer, streams):
    """All streams side by side, each to its end."""
    left = list(streams)
    while left:
        works = [
            s.work() if s.whole_chunks_left() > 1 else s.work(final_at=len(s.audio)) for s in left
        ]
        for stream, outcome in zip(left, recognizer.step(works), strict=True):
            stream.take(outcome)
        left = [s for s, w in zip(left, works, strict=True) if w.final_at is None]


@pytest.mark.slow
@pytest.mark.parametrize("lookahead", reference.LOOKAHEADS)
@pytest.mark.parametrize("architecture", ["english", "multilingual"])
def test_tokens_are_the_reference_s(architecture, lookahead, request, make_recognizer):
    """Twenty utterances of each architecture and lookahead, 200 in all; the longer ones are longer
    than what a slot keeps."""
    model, directory = request.getfixturevalue(architecture)
    audios = [reference.utterance(100 * lookahead + n, 9_000 + 2_513 * n) for n in range(20)]
    recognizer = make_recognizer(directory, lookahead + 1, slots=20, rewind=1)
    assert len(audios[-1]) // 1280 > recognizer._layout.attention_ring
    streams = [Stream(recognizer, audio) for audio in audios]
    together(recognizer, streams)
    prompt = 101 if architecture == "multilingual" else None
    expected = reference.offline_tokens(model, audios, lookahead, prompt)
    assert [stream.tokens for stream in streams] == expected
    assert sum(map(len, expected)) > 60
    assert len({token for tokens in expected for token, _ in tokens}) > 5


@pytest.mark.parametrize("lookahead", [0, 3, 6])
def test_tokens_before_the_end_are_the_reference_s_streaming(english, lookahead, make_recognizer):
    recognizer = make_recognizer(english[1], lookahead + 1)
    said = 0
    for seed in range(3):
        stream = Stream(recognizer, reference.utterance(seed, 40_000))
        for _ in range(stream.whole_chunks_left()):
            stream.take(recognizer.step([stream.work()])[0])
        frames = recognizer._grid.complete(stream.fed) * (lookahead + 1)
        expected = reference.streamed_tokens(english[0], stream.audio, lookahead)
        assert stream.tokens == [(token, place) for token, place in expected if place < frames]
        said += len(stream.tokens)
    assert said > 5


def test_a_forced_language_is_its_prompt(multilingual, make_recognizer):
    audio = reference.utterance(11, 40_000)
    recognizer = make_recognizer(multilingual[1], 2)
    assert {"en", "de", "ja", "zh"} <= set(recognizer.languages)
    found = {}
    for languages, prompt in (("de", 9), ("ja", 10), ("", 101), ("tlh", 101), ("tlh de", 9)):
        options = StreamOptions(tuple(languages.split()))
        found[languages] = Stream(recognizer, audio, options).run().tokens
        expected = reference.offline_tokens(multilingual[0], [audio], 1, prompt)
        assert [found[languages]] == expected
    assert found["de"] != found["ja"]


def test_configure_changes_the_language_from_the_next_chunk_on(multilingual, make_recognizer):
    audio = reference.utterance(11, 40_000)
    recognizer = make_recognizer(multilingual[1], 2)
    stream = Stream(recognizer, audio, StreamOptions(languages=("de",)))
    stream.take(recognizer.step([stream.work(chunks=5)])[0])
    recognizer.configure(stream.state, StreamOptions(languages=("ja",)))
    stream.run()
    german = Stream(recognizer, audio, StreamOptions(languages=("de",))).run().tokens
    japanese = Stream(recognizer, audio, StreamOptions(languages=("ja",))).run().tokens
    assert [t for t in stream.tokens if t[1] < 10] == [t for t in german if t[1] < 10]
    assert stream.tokens not in (german, japanese)


# -- any schedule -------------------------------------------------------------------------------


class Schedule(RuleBasedStateMachine):
    """Streams join, step in any subset, fall behind, go back, leave; each must say what it says
    alone in a recogniser of its own. The recogniser has few slots, so that they are used again."""

    make = None
    directory = None
    streams = Bundle("streams")

    @initialize(chunk_frames=st.sampled_from([1, 2, 4]))
    def start(self, chunk_frames):
        self.chunk_frames = chunk_frames
        self.recognizer = self.make(self.directory, chunk_frames, slots=4)
        self.open = []

    @rule(target=streams, seed=st.integers(0, 5), start=st.integers(0, 10**6))
    def join(self, seed, start):
        if len(self.open) == 4:
            with pytest.raises(EngineBusy):
                Stream(self.recognizer, np.zeros(0, np.float32))
            return None
        # Longer than what a slot keeps.
        audio = reference.utterance(seed, 60_000)
        stream = Stream(self.recognizer, audio, start=start)
        self.open.append(stream)
        return stream

    @rule(data=st.data())
    def step_some(self, data):
        able = [s for s in self.open if s.whole_chunks_left() > 3]
        if not able:
            return
        chosen = data.draw(st.lists(st.sampled_from(able), unique_by=id, min_size=1))
        ends = data.draw(st.lists(st.sampled_from(self.open), unique_by=id, max_size=1))
        works = [
            (stream, stream.work(chunks=min(chunks, stream.whole_chunks_left())))
            for stream, chunks in (
                (stream, data.draw(st.sampled_from([1, 2, 3, 14])))
                for stream in chosen
                if stream not in ends
            )
        ]
        for stream in ends:
            reach = stream.fed + 2 * self.recognizer.chunk
            back = max(0, stream.fed - 3 * self.recognizer.chunk)
            at = data.draw(st.integers(back, min(reach, len(stream.audio))))
            works.append((stream, stream.work(final_at=at)))
        for (stream, work), outcome in zip(
            works, self.recognizer.step([work for _, work in works]), strict=True
        ):
            before = stream.speech
            stream.take(outcome)
            if work.final_at is not None:
                self.open.remove(stream)
                self.compare(stream, work.final_at - stream.start, before)

    @rule(stream=consumes(streams))
    def leave(self, stream):
        if stream in self.open:
            self.recognizer.release(stream.state)
            self.open.remove(stream)

    def compare(self, stream, at, speech):
        alone = Stream(
            self.make(self.directory, self.chunk_frames, slots=1), stream.audio, start=stream.start
        )
        alone.run(final_at=at)
        assert stream.tokens == alone.tokens
        delivered = [w for w in stream.delivered if w.end <= stream.start + at]
        assert list(stream.words[: len(delivered)]) == delivered
        if not stream.rewound:
            assert [(w.text, w.start, w.end, w.final) for w in stream.words] == [
                (w.text, w.start, w.end, w.final) for w in alone.words
            ]
        common = min(len(speech), len(alone.speech))
        assert speech[:common] == pytest.approx(alone.speech[:common], abs=1e-6)

    def teardown(self):
        if hasattr(self, "open"):
            for stream in self.open:
                self.recognizer.release(stream.state)
            statistics = self.recognizer.statistics()
            assert statistics.free_slots == statistics.slots
            assert statistics.cut == 0


@pytest.mark.slow
def test_any_schedule_equals_running_alone(english, make_recognizer):
    Schedule.make, Schedule.directory = staticmethod(make_recognizer), english[1]
    run_state_machine_as_test(
        Schedule, settings=settings(max_examples=12, stateful_step_count=18, deadline=None)
    )


# -- ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_frames", [1, 4])
@pytest.mark.parametrize("at", [0, 100, 5_119, 8_000, 20_001, 70_000])
def test_going_back_equals_ending_there(english, make_recognizer, chunk_frames, at):
    """From 70,000 the slot has been full for long: the latest audio lies over the oldest."""
    audio = reference.utterance(3, max(26_000, at + 14_000))
    recognizer = make_recognizer(english[1], chunk_frames, rewind=20)
    ahead = Stream(recognizer, audio)
    ahead.take(recognizer.step([ahead.work(chunks=ahead.whole_chunks_left())])[0])
    ahead.take(recognizer.step([ahead.work(final_at=at)])[0])
    on_grid_chunk = Stream(recognizer, audio).run(final_at=at)
    assert ahead.tokens == on_grid_chunk.tokens
    delivered = [word for word in ahead.delivered if word.end <= at]
    assert list(ahead.words[: len(delivered)]) == delivered
    if chunk_frames == 1 and at > 1_280:  # no lookahead: what was delivered was right already
        assert ahead.words == on_grid_chunk.words
    assert recognizer.statistics().rewound == 1


def test_too_far_back_the_words_are_cut(english, make_recognizer):
    audio = reference.utterance(3, 60_000)
    recognizer = make_recognizer(english[1], 1, rewind=2)
    stream = Stream(recognizer, audio)
    stream.take(recognizer.step([stream.work(chunks=stream.whole_chunks_left())])[0])
    before = stream.words
    stream.take(recognizer.step([stream.work(final_at=20_000)])[0])
    assert recognizer.statistics().cut == 1
    assert recognizer.statistics().free_slots == recognizer.statistics().slots
    assert all(word.final and word.end <= 20_000 for word in stream.words)
    texts = [word.text for word in stream.words]
    assert texts[:-1] == [word.text for word in before][: len(texts) - 1]


def test_its_words(english, make_recognizer):
    audio = reference.utterance(5, 30_000)
    recognizer = make_recognizer(english[1], 2)
    stream = Stream(recognizer, audio, start=7_000).run()
    final = stream.results[-1]
    assert final.position == final.decoded == 37_000
    assert all(word.final for word in final.words)
    assert len(stream.speech) == 30_000 // VAD_FRAME
    assert 0.0 <= min(stream.speech) < max(stream.speech) <= 1.0
    for earlier, later in pairwise(stream.results):
        assert earlier.decoded <= earlier.position
        assert earlier.position < later.position
        kept = [word for word in earlier.words if word.final]
        assert list(later.words[: len(kept)]) == kept
    for first, second in pairwise(final.words):
        assert 7_000 <= first.start <= first.end <= second.start <= second.end <= 37_000
        assert 0.0 < first.confidence <= 1.0


def test_committed_words_stay_first(english, make_recognizer):
    audio = reference.utterance(5, 30_000)
    recognizer = make_recognizer(english[1], 2)
    words = Stream(recognizer, audio, start=500).run().words
    assert len(words) > 3
    committed = tuple(
        Word(word.text.upper(), word.start, word.end, 0.5, final=True) for word in words[:2]
    )
    again = Stream(recognizer, audio, start=500, committed=committed).run()
    assert again.words == (*committed, *words[2:])
    assert all(result.words[:2] == committed for result in again.results)


def test_an_ended_segment_is_not_stepped_again(english, make_recognizer):
    recognizer = make_recognizer(english[1], 1)
    stream = Stream(recognizer, reference.utterance(0, 4_000)).run()
    with pytest.raises(AssertionError, match="not stepped again"):
        recognizer.step([Work(stream.state, np.zeros(1280, np.float32))])


def test_releasing_twice_frees_one_slot(english, make_recognizer):
    recognizer = make_recognizer(english[1], 1)
    state = recognizer.new_state(StreamOptions(), SegmentStart(0))
    recognizer.release(state)
    recognizer.release(state)
    assert recognizer.statistics().free_slots == recognizer.statistics().slots


@pytest.mark.parametrize("chunk_frames", [1, 2, 4])
def test_speech_is_what_one_look_at_all_frames_finds(english, make_recognizer, chunk_frames):
    """Though a step may have a frame more or less than the one before."""
    audio = reference.utterance(5, 30_000)
    stream = Stream(make_recognizer(english[1], chunk_frames), audio).run()
    count = len(audio) // VAD_FRAME
    frames = torch.from_numpy(audio[: count * VAD_FRAME]).reshape(1, count, VAD_FRAME)
    expected, _ = loudness(frames, torch.zeros(1, 64), torch.zeros(1, 2, 128))
    assert stream.speech == pytest.approx(expected[0].tolist(), abs=1e-6)


def test_a_step_takes_what_one_run_does(english, make_recognizer):
    """Nobody's words wait for those of a second part of the batch."""
    recognizer = make_recognizer(english[1], 2, largest=3)
    assert recognizer.max_batch == 3
    streams = [Stream(recognizer, reference.utterance(n, 12_000)) for n in range(4)]
    recognizer.step([stream.work() for stream in streams[:3]])
    statistics = recognizer.statistics()
    assert (statistics.runs, statistics.rows) == (1, 3)
    with pytest.raises(AssertionError, match="fits into one run"):
        recognizer.step([stream.work() for stream in streams])


def test_the_longer_the_chunks_the_fewer_in_one_run(english):
    config = load_config(english[1])
    sizes = [largest_batch(Layout(config, 5_000, frames, 2)) for frames in (1, 2, 4, 7, 14)]
    assert sizes == [4_096, 2_048, 1_024, 585, 292]
    assert largest_batch(Layout(config, 40, 14, 2)) == 40


def test_another_stream_s_leavings_do_not_matter(english, make_recognizer):
    """A slot full of infinities and old audio is as good as a new one."""
    audio = reference.utterance(9, 20_000)
    recognizer = make_recognizer(english[1], 2, slots=1)
    fresh = Stream(recognizer, audio).run()
    slots = recognizer._runner._program.slots
    for tensor in (slots.audio, slots.text, slots.vad, *slots.attention, *slots.convolution):
        tensor.copy_(torch.randn(tensor.shape) * 100)
    again = Stream(recognizer, audio).run()
    assert (again.tokens, again.speech) == (fresh.tokens, fresh.speech)
