"""A stream's options hold by position, whatever the engine's pace."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ssasr.engine.recognizer import Heard, Outcome
from ssasr.engine.streams import Stream, StreamId
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
    stream.settle(take, Outcome((Heard(at, (), (), at),)))


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
        at = data.draw(st.integers(stream.segment_start, stream.received))
        stream.receive(Finalize(stream.segment, at))
    while stream.ready:
        step(stream, used)
    for (_, end), options in used.items():
        held = [changed for position, changed in changes if position < end]
        assert options == (held[-1] if held else StreamOptions())


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
        before.append(take.language_before)
        last = Heard(take.final_at, (), words, take.final_at, 0.0, language, confidence)
        stream.settle(take, Outcome((last,)))
    assert before == ["en", "en", "de"]
    assert stream.language_before == "de"
