"""A stream's options hold by position, whatever the engine's pace."""

import numpy as np
from attrs import asdict
from hypothesis import given, settings
from hypothesis import strategies as st

from ssasr.engine.recognizer import Outcome, StepResult
from ssasr.engine.streams import SampleArray, Stream, StreamId, prepare
from ssasr.protocol.recognition import Audio, Configure, Finalize, Open, StreamOptions, Word

CHUNK = 100


def step(stream, used):
    """One step; notes the options of every chunk it held, by segment and end."""
    take = stream.take()
    position, samples = stream.position, take.samples
    ends = list(range(position - samples + CHUNK, position + 1, CHUNK))
    if take.final_at is not None and (not ends or ends[-1] != position) and samples:
        ends.append(position)
    for end in ends:
        used[take.segment, end] = take.options
    stream.state = object()
    at = position if take.final_at is None else take.final_at
    stream.settle(take, Outcome((StepResult(at, (), (), at),)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.integers(1, 350), st.just("new")), max_size=12), st.data())
def test_new_options_hold_from_the_audio_after_them(script, data):
    """The step that hears the first later sample is the first with the new options."""
    stream, used, changes = Stream(StreamId(0, 1), Open("s", StreamOptions()), CHUNK), {}, []
    for item in script:
        if item == "new":
            options = StreamOptions(pause=len(changes))
            changes.append((stream.received, options))
            stream.receive(Configure(options))
        else:
            stream.receive(Audio(stream.received, bytes(2 * item)))
        while stream.ready and data.draw(st.booleans()):
            step(stream, used)
    if data.draw(st.booleans()):
        at = data.draw(st.integers(stream.start.at, stream.received))
        stream.receive(Finalize(stream.segment, at))
    while stream.ready:
        step(stream, used)
    for (_, end), options in used.items():
        held = [changed for position, changed in changes if position < end]
        assert options == (held[-1] if held else StreamOptions())


def test_options_without_end_take_no_memory():
    stream = Stream(StreamId(0, 1), Open("s", StreamOptions()), CHUNK)
    for _ in range(3):
        stream.receive(Audio(stream.received, bytes(2 * CHUNK)))
        for number in range(100):
            stream.receive(Configure(StreamOptions(pause=number)))
    assert [options.pause for _, options in stream._changes] == [99] * 3


def test_a_segment_begins_with_the_language_that_was_spoken_before():
    stream, before = (
        Stream(StreamId(0, 1), Open("s", StreamOptions(), language_before="en"), CHUNK),
        [],
    )
    said = (Word("ja", 0, 50, 0.9, final=True),)
    for words, language, confidence in (((), "fr", 0.9), (said, "de", 0.9), (said, "nl", 0.5)):
        stream.receive(Audio(stream.received, bytes(2 * CHUNK)))
        stream.receive(Finalize(stream.segment, stream.received))
        take = stream.take()
        before.append(take.start.language_before)
        last = StepResult(take.final_at, (), words, take.final_at, 0.0, language, confidence)
        stream.settle(take, Outcome((last,)))
    assert before == ["en", "en", "de"]
    assert stream.start.language_before == "de"


EVENTS = st.one_of(
    st.integers(1, 350),
    st.sampled_from(["new", "final", "prepare", "take", "take", "settle", "unfinished"]),
)


def view(take):
    """All that a take says, without the stream that it is of."""
    fields = asdict(take, recurse=False, filter=lambda field, _: field.name != "stream")
    return {**fields, "audio": take.audio.tolist()}


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENTS, max_size=40), st.data())
def test_a_take_made_ahead_is_the_one_that_would_be_made_at_the_last_moment(script, data):
    """Whatever comes between its making and its taking, in the running step or after it."""
    noise = np.random.default_rng(0).integers(-32_768, 32_767, 350 * 40).astype("<i2")
    pair = [Stream(StreamId(0, 1), Open("s", StreamOptions()), CHUNK) for _ in range(2)]
    ahead, plain = pair
    running = None
    for event in script:
        message = None
        if isinstance(event, int):
            start = plain.received
            message = Audio(start, noise[start : start + event].tobytes())
        elif event == "new":
            message = Configure(StreamOptions(pause=plain.received))
        elif event == "final" and not plain.urgent:
            at = data.draw(st.integers(plain.start.at, plain.received))
            message = Finalize(plain.segment, at)
        elif event == "prepare" and ahead.ready and ahead.next_input is None:
            prepare([ahead], SampleArray(data.draw(st.sampled_from([0, CHUNK, 10 * CHUNK]))))
        elif event == "take" and running is None and plain.ready:
            running = [stream.take() for stream in pair]
            assert view(running[0]) == view(running[1])
        elif event in ("settle", "unfinished") and running is not None:
            for take in running:
                position = take.upto if take.final_at is None else take.final_at
                outcome = Outcome((StepResult(position, (), (), position),), event == "unfinished")
                take.stream.settle(take, outcome)
            running = None
        for stream in pair if message is not None else ():
            stream.receive(message)
        assert ahead.ready == plain.ready
