"""Which windows are listened to, and with which answer they go: by positions, never by pace."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ssasr.engine.recognizer import Outcome, StepResult
from ssasr.engine.scheduler import Scheduler
from ssasr.engine.streams import Stream, StreamId, answers
from ssasr.protocol.recognition import Audio, Final, Finalize, Open, StreamOptions
from ssasr.protocol.voices import CONTEXT, Voices

CHUNK, HOP = 100, 250
OPTIONS = StreamOptions(speakers=True)


def step(stream):
    """One step of a model that hears its windows' audio itself; the answers."""
    take = stream.take()
    take.voices = [Voices(w.end - len(w.audio), w.end, ()) for w in take.windows]
    for window in take.windows:
        begun = stream.plan._start
        assert window.since == begun + max(0, window.end - begun - 1) // HOP * HOP
    for window in take.windows:  # the audio of a sample is its position
        expected = np.arange(window.end - len(window.audio), window.end) % 1_000
        assert np.array_equal(np.round(window.audio * 32_768), expected)
    ends = list(range(take.upto - take.samples + CHUNK, take.upto + 1, CHUNK))
    ends = ends if take.final_at is None else [*ends, take.final_at]
    outcome = Outcome(tuple(StepResult(end, (), (), end) for end in ends))
    given = answers(take, outcome)
    stream.settle(take, outcome)
    return given


def audio(first, count):
    return Audio(first, (np.arange(first, first + count) % 1_000).astype("<i2").tobytes())


def play(opening, cuts, ends, patience):
    """The voices of each segment up to its end, which may lie behind what was processed."""
    stream = Stream(StreamId(0, 1), opening, CHUNK, hop=HOP)
    runs_of, segment, length = {}, opening.segment, opening.start + sum(cuts)
    pending = [end for end in ends if opening.start <= end <= length]

    def take_in(given):
        nonlocal segment
        for answer in given:
            if answer.segment != segment:
                continue
            runs_of.update({(segment, voices.end): voices for voices in answer.voices})
            if isinstance(answer, Final):
                for key in [k for k in runs_of if k[0] == segment and k[1] > answer.at]:
                    del runs_of[key]
                segment += 1

    at = opening.start - opening.context
    stream.receive(audio(at, opening.context)) if opening.context else None
    for number, cut in enumerate(cuts):
        stream.receive(audio(stream.received, cut))
        while stream.ready and number % (patience + 1) == 0:
            take_in(step(stream))
        while pending and pending[0] <= stream.received:
            stream.receive(Finalize(segment, pending.pop(0)))
            while stream.ready:
                take_in(step(stream))
    while stream.ready:
        take_in(step(stream))
    return runs_of


talks = st.tuples(st.lists(st.integers(1, 700), min_size=1, max_size=12), st.integers(0, 2))


@settings(deadline=None, max_examples=150)
@given(talks, talks, st.sets(st.integers(0, 3_000), max_size=4))
def test_windows_do_not_depend_on_how_the_audio_comes(one, other, ends):
    ends = sorted(ends)
    (cuts, patience), (other_cuts, other_patience) = one, other
    missing = sum(cuts) - sum(other_cuts)
    other_cuts = [*other_cuts, missing] if missing > 0 else other_cuts
    cuts = [*cuts, -missing] if missing < 0 else cuts
    opening = Open("s", OPTIONS)
    first = play(opening, cuts, ends, patience)
    assert first == play(opening, other_cuts, ends, other_patience)
    grid = {(segment, end) for segment, end in first if end not in ends}
    starts = [0, *[end for end in ends if end <= sum(cuts)]]
    assert all((end - starts[segment]) % HOP == 0 for segment, end in grid)


def test_the_last_window_goes_with_the_final_however_late_answers_are_made():
    """An engine that takes a stream over is past the end already when it learns of it. The updates
    until there are old to the session, and what goes with them is lost."""
    scheduler = Scheduler(CHUNK, 1, 1, 8, HOP)
    assert scheduler.reserve()
    stream = scheduler.admit_reserved(Open("s", OPTIONS))
    scheduler.feed(stream, audio(0, 800), 0.0)
    done = []
    for ends in ((600, 700, 800), (630,)):
        (share,) = scheduler.next_batch()
        share.voices = [Voices(w.end - len(w.audio), w.end, ()) for w in share.windows]
        outcome = Outcome(tuple(StepResult(end, (), (), end) for end in ends))
        scheduler.complete([share], [outcome], 0.0)
        done.append((share, outcome))
        if len(done) == 1:
            scheduler.feed(stream, Finalize(0, 630), 0.0)
    *updates, final = [answer for each in done for answer in answers(*each)]
    assert [voices.end for update in updates for voices in update.voices] == [250, 500, 750]
    assert [voices.end for voices in final.voices] == [630]


def test_a_stream_that_is_taken_over_hears_the_same_windows():
    cuts, ends = [300] * 40, [3_100, 9_000]
    whole = play(Open("s", OPTIONS), cuts, ends, 0)
    again = play(Open("s", OPTIONS, 2, 9_000, context=9_000), [300] * 10, [], 0)
    assert again == {key: value for key, value in whole.items() if key[0] == 2}
    assert len(again) > 10


def test_a_window_reaches_back_no_further_than_the_context():
    stream = Stream(StreamId(0, 1), Open("s", OPTIONS), 16_000, hop=16_000)
    for first in range(0, 2 * CONTEXT, 16_000):
        stream.receive(audio(first, 16_000))
        given = stream.take().windows
        assert [len(window.audio) for window in given] == [min(first + 16_000, CONTEXT)]


def test_who_did_not_ask_pays_nothing():
    stream = Stream(StreamId(0, 1), Open("s", StreamOptions()), CHUNK, hop=HOP)
    stream.receive(audio(0, 1_000))
    assert stream.plan is None
    assert stream.take().windows == ()
    deaf = Stream(StreamId(0, 1), Open("s", OPTIONS), CHUNK)
    assert deaf.plan is None
