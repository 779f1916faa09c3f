"""What every recogniser must do, as one function; a fake that passes may stand in for a real one.

``check_recognizer(make, clips)`` runs against the scripted recogniser, a tiny Whisper with random
weights and the real weights. ``clips`` are different recordings, float32 at 16 kHz, with speech in
them as far as the recogniser under test is concerned.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ssasr.engine.recognizer import Recognizer, SegmentStart, State, StepResult, Work
from ssasr.protocol.recognition import VAD_FRAME, StreamOptions, Word

Clip = NDArray[np.float32]
MOST_STEPS = 1_000
"""A recogniser that puts work off for longer than this never finishes it."""


def check_recognizer(make: Callable[[], Recognizer], clips: Sequence[Clip]) -> None:
    """Raises AssertionError with what is wrong. ``make`` may return the same object each time."""
    recognizer = make()
    recognizer.warm_up()
    assert recognizer.chunk > 0
    assert recognizer.languages
    assert recognizer.max_batch > 0
    runs = [_stream_alone(recognizer, clip) for clip in clips]
    assert any(run[-1].words for run in runs), "the clips must give words, or nothing is tested"
    for clip, run in zip(clips, runs, strict=True):
        _check_run(recognizer, run, 0, len(clip))
        assert _stream_alone(make(), clip) == run, "the same audio gives the same answers"
    _check_batches(recognizer, clips, runs)
    _check_starts_anywhere(recognizer, clips[0], runs[0])
    _check_final_before_position(recognizer, clips[0])
    _check_committed_words(recognizer, clips[0])
    _check_nothing_heard(recognizer)
    _check_offline(recognizer, clips[-1])
    _check_unknown_languages(recognizer, clips[0])


def step_until_done(recognizer: Recognizer, batch: Sequence[Work]) -> list[list[StepResult]]:
    """Step, as many at a time as a step takes, then step those that are unfinished without new
    audio, as an engine may."""
    result: list[list[StepResult]] = [[] for _ in batch]
    waiting = list(range(len(batch)))
    works = list(batch)
    for _ in range(MOST_STEPS):
        stepped, waiting = waiting[: recognizer.max_batch], waiting[recognizer.max_batch :]
        outcomes = recognizer.step([works[number] for number in stepped])
        assert len(outcomes) == len(stepped), "an outcome for each work"
        for number, outcome in zip(stepped, outcomes, strict=True):
            result[number].extend(outcome.results)
            if outcome.unfinished:
                empty = np.zeros(0, dtype=np.float32)
                works[number] = Work(works[number].state, empty, works[number].final_at)
                waiting.append(number)
        if not waiting:
            return result
    raise AssertionError(f"still unfinished after {MOST_STEPS} steps")


def stream(
    recognizer: Recognizer, state: State, clip: Clip, start: int = 0, final_at: int | None = None
) -> list[StepResult]:
    """The whole chunks of a clip one by one, then the rest with the end of the segment."""
    result = []
    whole = len(clip) // recognizer.chunk * recognizer.chunk
    for at in range(0, whole, recognizer.chunk):
        result += step_until_done(recognizer, [Work(state, clip[at : at + recognizer.chunk])])[0]
    end = start + len(clip) if final_at is None else final_at
    rest = clip[whole:] if final_at is None else clip[:0]
    return result + step_until_done(recognizer, [Work(state, rest, end)])[0]


def _stream_alone(recognizer: Recognizer, clip: Clip, start: int = 0) -> list[StepResult]:
    return stream(
        recognizer, recognizer.new_state(StreamOptions(), SegmentStart(start)), clip, start
    )


def _check_run(recognizer: Recognizer, run: Sequence[StepResult], start: int, length: int) -> None:
    """One stream's answers: positions, frames, and words that are final once and for all."""
    final: tuple[Word, ...] = ()
    position = start
    for result in run:
        assert result.position >= position, "answers come in order of position"
        assert start <= result.decoded <= result.position
        position = result.position
        assert result.words[: len(final)] == final, "a final word never changes, moves or goes away"
        flags = [word.final for word in result.words]
        assert flags == sorted(flags, reverse=True), "final words come first"
        final = tuple(word for word in result.words if word.final)
        _check_words(result.words, start)
        assert all(0.0 <= probability <= 1.0 for probability in result.speech)
        assert 0.0 <= result.end_of_turn_confidence <= 1.0
        assert result.language is None or result.language in recognizer.languages
    last = run[-1]
    assert last.position == start + length, "the last answer is about the end of the segment"
    assert all(word.final for word in last.words), "at the end every word is final"
    frames = sum(len(result.speech) for result in run)
    whole = length // recognizer.chunk * recognizer.chunk
    assert whole // VAD_FRAME <= frames <= length // VAD_FRAME, "each frame is reported once"


def _check_words(words: Sequence[Word], start: int) -> None:
    end = start
    for word in words:
        assert word.text
        assert word.text == word.text.strip()
        assert end <= word.start < word.end, "words follow each other in time"
        assert 0.0 <= word.confidence <= 1.0
        end = word.end


def _check_batches(
    recognizer: Recognizer, clips: Sequence[Clip], runs: Sequence[Sequence[StepResult]]
) -> None:
    """Streams that begin one after the other and share batches, in both orders, get what they get
    alone, but for how often they come."""
    for order in (1, -1):
        states = [recognizer.new_state(StreamOptions(), SegmentStart(0)) for _ in clips]
        begun = [3 * number for number in range(len(clips))]
        results: list[list[StepResult]] = [[] for _ in clips]
        done = [False] * len(clips)
        for tick in range(MOST_STEPS):
            numbers = [n for n in range(len(clips)) if begun[n] <= tick and not done[n]][::order]
            batch = []
            for number in numbers:
                at = (tick - begun[number]) * recognizer.chunk
                audio = clips[number][at : at + recognizer.chunk]
                done[number] = len(audio) < recognizer.chunk
                end = len(clips[number]) if done[number] else None
                batch.append(Work(states[number], audio, end))
            for number, result in zip(numbers, step_until_done(recognizer, batch), strict=True):
                results[number].append(result[-1])
            if all(done):
                break
        for result, run in zip(results, runs, strict=True):
            assert _said(result) == _said(run), "a stream's words do not depend on its batch"


def _said(run: Sequence[StepResult]) -> list[tuple[int, list[tuple[str, int, int, bool]]]]:
    """The last answer at each position, without the figures that rounding may touch."""
    last = {result.position: result for result in run}
    return [
        (at, [(word.text, word.start, word.end, word.final) for word in result.words])
        for at, result in last.items()
    ]


def _check_starts_anywhere(recognizer: Recognizer, clip: Clip, run: Sequence[StepResult]) -> None:
    """Where in the stream a segment begins changes nothing but the positions."""
    start = 1_000_003
    moved = _stream_alone(recognizer, clip, start)
    _check_run(recognizer, moved, start, len(clip))
    shifted = [
        (
            at - start,
            [(text, begin - start, end - start, final) for text, begin, end, final in words],
        )
        for at, words in _said(moved)
    ]
    assert shifted == _said(run)


def _check_final_before_position(recognizer: Recognizer, clip: Clip) -> None:
    """A segment may end before what was processed already; later audio does not count, and
    words that were final there stay as delivered."""
    whole = len(clip) // recognizer.chunk * recognizer.chunk
    for part in (0.25, 0.5, 0.9):
        at = int(whole * part)
        state = recognizer.new_state(StreamOptions(), SegmentStart(0))
        run = stream(recognizer, state, clip[:whole], final_at=at)
        last = run[-1]
        assert last.position == at
        assert all(word.final and word.start < at for word in last.words)
        before = [result for result in run[:-1] if result.position <= at]
        delivered = [word for word in before[-1].words if word.final] if before else []
        assert list(last.words[: len(delivered)]) == delivered


def _check_committed_words(recognizer: Recognizer, clip: Clip) -> None:
    """A replay: the segment's audio comes again, and the words that the client has stay first."""
    first = _stream_alone(recognizer, clip)
    delivered = next((h.words for h in first if any(w.final for w in h.words)), ())
    committed = tuple(word for word in delivered if word.final)
    assert committed, "the clip must give final words, or nothing is tested"
    state = recognizer.new_state(StreamOptions(), SegmentStart(0, committed))
    again = stream(recognizer, state, clip)
    for result in again:
        if result.position >= committed[-1].end:
            assert result.words[: len(committed)] == committed, "committed words stay first"
    _check_words(again[-1].words, 0)
    assert all(word.final for word in again[-1].words)


def _check_offline(recognizer: Recognizer, clip: Clip) -> None:
    """A file's words are there at its end, however it comes and whoever listens beside it."""
    whole = StreamOptions(offline=True)
    bit_by_bit = stream(recognizer, recognizer.new_state(whole, SegmentStart(0)), clip)
    beside = [
        Work(recognizer.new_state(options, SegmentStart(0)), clip, len(clip))
        for options in (whole, StreamOptions())
    ]
    at_once = step_until_done(recognizer, beside)[0][-1]
    assert _said([at_once]) == _said(bit_by_bit[-1:])
    assert all(word.final for word in at_once.words)
    assert at_once.position == len(clip)


def _check_unknown_languages(recognizer: Recognizer, clip: Clip) -> None:
    """They come from outside, and count for nothing."""
    plain = _stream_alone(recognizer, clip)
    state = recognizer.new_state(StreamOptions(languages=("tlh",)), SegmentStart(0))
    assert stream(recognizer, state, clip) == plain
    state = recognizer.new_state(StreamOptions(), SegmentStart(0))
    recognizer.configure(state, StreamOptions(languages=("tlh", "qya")))
    assert stream(recognizer, state, clip) == plain


def _check_nothing_heard(recognizer: Recognizer) -> None:
    """No audio and silence give no words."""
    state = recognizer.new_state(StreamOptions(), SegmentStart(0))
    results = step_until_done(recognizer, [Work(state, np.zeros(0, dtype=np.float32), 0)])[0]
    assert [result.words for result in results] == [()], "the end of a segment is answered once"
    silence = np.zeros(20 * recognizer.chunk, dtype=np.float32)
    for result in _stream_alone(recognizer, silence):
        assert result.words == ()
