"""What is said of a segment depends on its audio alone: not on how that arrived, nor on whether
another engine began it."""

import numpy as np
import pytest
from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssasr.engine.whisper.segment import CHUNK, Kind
from ssasr.protocol.recognition import SAMPLE_RATE, VAD_FRAME
from tests.engine.whisper.segments import SILENCE, SPEECH, advance, asking, new_segment, say


def _talk(frames):
    """A decoder's stand-in: what it says depends on the excerpt and on nothing else. Of some
    excerpts it leaves out most."""

    def decode(due):
        said, at = [], due.begin
        until = due.end if due.begin // 1_000 % 3 else min(due.end, due.begin + 20_000)
        while at + 4_000 < until:
            at += 3_000 + (at * 7 + due.end * 13 + due.begin) % 5_000
            text = "abcdefgh"[(at // 4_000 + due.end // 30_000) % 8]
            said.append((text, at / SAMPLE_RATE, min(at + 2_500, due.end) / SAMPLE_RATE))
        return say(*said)

    return decode


def _foreign(segment, frames):
    """The same, of a language that it has to find out where it is not settled."""
    talk = _talk(frames)

    def decode(due):
        before, name = segment.language.before, segment.language.settled
        if due.kind is Kind.LANGUAGE or name is None:
            decode_all = (due.end // 20_000 + due.begin // 7_000) % 5
            name = (
                before if before and decode_all == 4 else ("de", "nl", "sv", "en", "de")[decode_all]
            )
            segment.detected(name, 0.9 if due.end // 3_000 % 3 else 0.5)
            name = segment.language.name
        return [evolve(one, word=evolve(one.word, text=one.word.text + name)) for one in talk(due)]

    return decode


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 90)), min_size=1, max_size=8),
    st.lists(st.integers(1, 64), min_size=1, max_size=10),
    st.floats(0, 1),
    st.booleans(),
    st.integers(-20, 40),
    st.booleans(),
    st.none() | st.integers(0, 100),
)
@example([(False, 20), (True, 86), (False, 138)], [1], 0.453125, False, 1, True, None)
def test_results_do_not_depend_on_how_the_audio_arrived(
    runs, pieces, part, on_grid, beyond, multilingual, softly
):
    """Neither on the size of the pieces nor on how far the engine was when it was given the
    segment ends. ``softly``: the chunk from which the client speaks so and has said so."""
    speech = [SPEECH if voiced else SILENCE for voiced, count in runs for _ in range(count)]
    speech += [SILENCE] * (-len(speech) % 3)
    chunks = [speech[n : n + 3] for n in range(0, len(speech), 3)]
    if softly is not None:
        chunks[softly:] = [[p / 3 for p in chunk] for chunk in chunks[softly:]]
    at = int(part * len(chunks) * CHUNK)
    at -= at % CHUNK if on_grid else 0

    def run(sizes, ahead):
        segment, place, answers = new_segment(multilingual=multilingual), 0, []
        decode = _foreign(segment, speech) if multilingual else _talk(speech)
        until = max(0, min(len(chunks), at // CHUNK + ahead))
        for size in sizes:
            for number, probabilities in enumerate(chunks[place : min(place + size, until)], place):
                if number == softly:
                    segment.configure(evolve(segment.options, vad_threshold=0.25))
                segment.speech_buffer.receive(np.zeros(CHUNK, np.float32), probabilities)
            place = min(place + size, until)
            answers += advance(segment, decode)[1]
        if softly is not None and softly >= place:
            segment.configure(evolve(segment.options, vad_threshold=0.25))
        missing = at - segment.speech_buffer.received
        if missing > 0:
            rest = [p for chunk in chunks[place:] for p in chunk][: missing // VAD_FRAME]
            segment.speech_buffer.receive(np.zeros(missing, np.float32), rest)
        *more, final = advance(segment, decode, final_at=at)[1]
        found = final.words, final.language, final.language_confidence
        return [one for one in answers + more if one.position <= at], found

    answers, found = run([1] * len(chunks), 0)
    others, same = run(pieces + [64] * len(chunks), beyond)
    assert same == found
    assert others == answers


def _guess(due):
    """Most of what this decoder says stays; the last second of it is a guess."""
    said, at, number = [], due.begin, due.begin // 6_000
    while (at := number * 6_000) + 4_000 < due.end:
        number += 1
        if at < due.begin:
            continue
        unsure = due.end - at < SAMPLE_RATE
        text = f"{'maybe' if unsure and (due.end // CHUNK) % 3 else 'word'}-{number}"
        said.append((text, at / SAMPLE_RATE, min(at + 5_000, due.end) / SAMPLE_RATE))
    return say(*said, unsure=[f"word-{number}" for number in range(0, 100, 3)])


def _again(probabilities, part, decoder, **more):
    """A segment that is processed to its end, and again by an engine that takes it over when
    ``part`` of the answers were delivered: the answers to both from there on, and their decodes
    (position, what) since the last of the words became final that were so then. ``decoder``: makes
    one, of a segment that it is given."""
    audio = np.zeros(len(probabilities) * VAD_FRAME, np.float32)

    def decode_all(**known):
        segment, excerpts = new_segment(**more, **known), []
        segment.speech_buffer.receive(audio, probabilities)
        decode = decoder(segment)

        def noted(due):
            excerpts.append((segment.position, due))
            return decode(due)

        return advance(segment, noted, final_at=len(audio))[1], excerpts

    answers, excerpts = decode_all()
    run = 1 + int(part * (len(answers) - 2))
    final = tuple(word for word in answers[run - 1].words if word.final)
    since = next(one.position for one in answers if one.words[: len(final)] == final)
    since = since if final else 0
    again, others = decode_all(committed=final, taken_over=since)
    return (
        (answers[run:], [one for one in excerpts if one[0] >= since]),
        (again[run:], [one for one in others if one[0] >= since]),
    )


@settings(max_examples=100)
@example([(True, 8), (False, 10), (True, 20)], 0.5, None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 40)), min_size=2, max_size=6),
    st.floats(0, 1),
    st.none() | st.floats(0, 12),
)
def test_a_segment_that_is_taken_over_goes_on_with_the_same_words(runs, part, known_after):
    """And hears the same excerpts from where the last final word became so. ``known_after``:
    seconds after which excerpts show their language; None: it is given."""

    def decoder(segment):
        if known_after is None:
            return _guess
        found = asking(
            segment, lambda due: ("de", 0.9 if due.end > known_after * SAMPLE_RATE else 0.5), _guess
        )
        return found[1]

    first, second = _again(
        [SPEECH if voiced else SILENCE for voiced, count in runs for _ in range(3 * count)],
        part, decoder, multilingual=known_after is not None,
    )  # fmt: skip
    assert second == first


def _waver(due):
    """Words at fixed places, a few of which come and go or are said twice, and half of which it is
    not sure of: where the words end that are final already is a question of alignment."""
    words = []
    for number in range(-(-due.begin // 6_000), (due.end - 4_001) // 6_000 + 1):
        mood = (number * 2_654_435_761 + due.end // CHUNK * 40_503 + due.begin) // 7 % 97
        text = "ach" if mood < 12 else ("ja", "und", "so")[number % 3]
        at = number * 6_000 + mood % 5 * 320
        spans = [(at, number * 6_000 + 5_000), (at + 600, number * 6_000 + 5_400)]
        times = 0 if 12 <= mood < 20 else 2 if 20 <= mood < 30 else 1
        for start, end in spans[:times]:
            unsure = [text] if (start + due.end) // 3_000 % 2 else []
            said = text, start / SAMPLE_RATE, min(end, due.end) / SAMPLE_RATE
            words += say(said, unsure=unsure)
    return words


@pytest.mark.parametrize(
    ("tentative", "mode"), [(False, None), (False, "max_accuracy"), (True, None)]
)
@pytest.mark.parametrize("multilingual", [False, True])
@settings(max_examples=60)
@example([(False, 18), (True, 33)], 0.78)
@example([(True, 150), (False, 5), (True, 120), (False, 20)], 0.9)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 60)), min_size=1, max_size=6),
    st.floats(0, 1),
)
def test_so_it_does_where_hypotheses_do_not_agree_on_what_is_final(
    tentative, mode, multilingual, runs, part
):
    first, second = _again(
        [SPEECH if voiced else SILENCE for voiced, count in runs for _ in range(3 * count)],
        part, lambda segment: _waver, multilingual=multilingual, languages=("de",),
        tentative=tentative, mode=mode,
    )  # fmt: skip
    assert second == first
