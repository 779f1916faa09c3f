"""Both ends of the engine link, joined by nothing but frames."""

import json
import struct
from contextlib import suppress

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from ssasr.protocol import engine_wire
from ssasr.protocol.engine_link import ALLOWED_SENDERS, TRANSITIONS, EngineLink, Role, State
from ssasr.protocol.engine_wire import decode, encode
from ssasr.protocol.faults import LocalProtocolError, PeerFault
from ssasr.protocol.recognition import (
    Audio,
    Configure,
    Draining,
    Final,
    Finalize,
    Open,
    Opened,
    StreamOptions,
    Update,
    Word,
)

quick = settings(deadline=None, max_examples=60)
OPENING = Open("session", StreamOptions())
HELLO = Word("Hello", 100, 700, 0.9, True)


class Pair:
    """A gateway's end and an engine's; what one says the other hears at once."""

    def __init__(self, opening=OPENING, opened=True):
        self.gateway = EngineLink(Role.GATEWAY)
        self.engine = EngineLink(Role.ENGINE)
        if opened:
            self.ask(opening)
            self.answer(Opened("model", 1_600, "engine"))

    def ask(self, message):
        return self.engine.receive(self.gateway.send(message))

    def answer(self, message):
        return self.gateway.receive(self.engine.send(message))

    @property
    def position(self):
        assert self.gateway.position == self.engine.position
        return self.gateway.position


def update(segment, position, words=()):
    return Update(segment, position, (), words, position)


def test_a_stream_from_open_to_the_next_segment():
    pair = Pair()
    assert pair.ask(Audio(0, bytes(3_200))) == Audio(0, bytes(3_200))
    assert pair.ask(Configure(StreamOptions(("en", "de"), 800, ("a b",)))).options.keyterms == (
        "a b",
    )
    assert pair.answer(update(0, 1_600, (HELLO,))).words == (HELLO,)
    assert pair.position.unacknowledged == 0
    pair.ask(Audio(1_600, bytes(320)))
    assert pair.position.unacknowledged == 160
    pair.ask(Finalize(0, 1_700))
    assert pair.position.finalize
    assert pair.answer(Final(0, 1_700, (HELLO,), 0.5, "en", 0.9)).language == "en"
    assert not pair.position.finalize
    assert pair.position.segment == 1
    assert pair.answer(Draining()) == Draining()
    pair.ask(Audio(1_760, bytes(320)))
    pair.answer(update(1, 1_800))


def test_updates_that_crossed_a_finalize_are_legal():
    pair = Pair()
    pair.ask(Audio(0, bytes(32_000)))
    early, late = (pair.engine.send(update(0, at)) for at in (1_600, 3_200))
    pair.gateway.receive(early)
    finalize = pair.gateway.send(Finalize(0, 1_000))
    pair.gateway.receive(late)
    pair.engine.receive(finalize)
    pair.answer(Final(0, 1_000, ()))
    pair.answer(update(1, 2_600))


def test_a_replayed_stream_opens_in_the_middle():
    pair = Pair(Open("session", StreamOptions(("fr",)), 7, 16_000, (HELLO,)))
    assert pair.position.unacknowledged == 0
    pair.ask(Audio(16_000, bytes(3_200)))
    pair.answer(update(7, 17_600, (HELLO,)))


GATEWAYS_BREACHES = [
    Audio(1, bytes(2)),
    Audio(0, bytes(3)),
    Finalize(1, 0),
    Finalize(0, 100),
    OPENING,
]
ENGINES_BREACHES = [
    update(1, 0),
    update(0, 1),
    Final(0, 0, ()),
    Opened("model", 1_600),
]


@pytest.mark.parametrize("message", GATEWAYS_BREACHES + ENGINES_BREACHES, ids=str)
def test_a_breach_is_ours_where_we_speak_and_theirs_where_we_hear(message):
    pair = Pair()
    speaker, hearer = pair.gateway, pair.engine
    if ALLOWED_SENDERS[type(message)] is Role.ENGINE:
        speaker, hearer = hearer, speaker
    before = evolve(pair.position)
    with pytest.raises(LocalProtocolError):
        speaker.send(message)
    assert pair.position == before
    liar = EngineLink(speaker.role)
    liar._advance = lambda message: None
    with pytest.raises(PeerFault):
        hearer.receive(liar.send(message))
    assert pair.position == before


def test_one_finalize_at_a_time():
    pair = Pair()
    pair.ask(Finalize(0, 0))
    with pytest.raises(LocalProtocolError):
        pair.gateway.send(Finalize(0, 0))
    with pytest.raises(LocalProtocolError):
        pair.engine.send(Final(0, 1, ()))


def test_nobody_speaks_for_the_other():
    pair = Pair()
    with pytest.raises(LocalProtocolError):
        pair.engine.send(Audio(0, b""))
    with pytest.raises(LocalProtocolError):
        pair.gateway.send(Draining())
    with pytest.raises(PeerFault, match="not the peer's"):
        pair.gateway.receive(pair.gateway.send(Finalize(0, 0)))
    with pytest.raises(PeerFault):
        pair.gateway.receive(pair.gateway.send(Audio(0, b"")))


def test_every_state_allows_what_the_table_says_and_nothing_else():
    pair = Pair(opened=False)
    messages = [OPENING, Opened("m", 1), Audio(0, b""), Configure(StreamOptions()), Finalize(0, 0),
                update(0, 0), Draining()]  # fmt: skip
    reached = [State.CONNECTED]
    for step in (OPENING, Opened("m", 1), Draining(), None):
        for message in messages:
            other = Pair(opened=False)
            for before in (OPENING, Opened("m", 1), Draining())[: len(reached) - 1]:
                (other.ask if before is OPENING else other.answer)(before)
            say = other.ask if ALLOWED_SENDERS[type(message)] is Role.GATEWAY else other.answer
            if type(message) in TRANSITIONS[reached[-1]]:
                say(message)
            else:
                with pytest.raises(LocalProtocolError):
                    say(message)
        if step is not None:
            (pair.ask if step is OPENING else pair.answer)(step)
            reached.append(pair.gateway.state)
    assert set(reached) == set(State)


texts = st.text(max_size=12)
positions = st.integers(0, 2**40)
probabilities = st.floats(0, 1)


@st.composite
def words(draw, final=None):
    start = draw(st.integers(0, 10**9))
    end = start + draw(st.integers(0, 10**5))
    is_final = draw(st.booleans()) if final is None else final
    return Word(draw(texts), start, end, draw(probabilities), is_final)


@st.composite
def segments(draw):
    """What an engine says of one segment: final words grow, the rest is anything."""
    finals = draw(st.lists(words(final=True), max_size=6))
    count, said = 0, []
    for _ in range(draw(st.integers(0, 6))):
        count = draw(st.integers(count, len(finals)))
        tail = draw(st.lists(words(final=False), max_size=3))
        said.append((*finals[:count], *tail))
    return said, tuple(finals)


@quick
@given(st.lists(segments(), min_size=1, max_size=4), st.data())
def test_words_arrive_whole_however_little_is_sent(stretches, data):
    pair = Pair()
    pair.ask(Audio(0, bytes(2_000)))
    for segment, (said, finals) in enumerate(stretches):
        for spoken in said:
            message = Update(
                segment, 1_000, tuple(data.draw(st.lists(st.sampled_from([0.0, 0.2, 1.0])))),
                spoken, data.draw(st.integers(0, 1_000)), data.draw(probabilities),
                data.draw(st.none() | texts), data.draw(probabilities),
            )  # fmt: skip
            assert pair.answer(message) == message
        pair.ask(Finalize(segment, 1_000))
        # A final may go back behind what was processed: fewer words, or the last one cut short.
        kept = finals[: data.draw(st.integers(0, len(finals)))]
        if kept and data.draw(st.booleans()):
            last = kept[-1]
            kept = (*kept[:-1], Word(last.text, last.start, last.start, 0.5, True))
        final = Final(segment, 1_000, kept)
        assert pair.answer(final) == final


@quick
@given(positions, st.binary(max_size=50).map(lambda pcm: pcm[: len(pcm) // 2 * 2]))
def test_audio_is_its_position_and_its_samples(start, pcm):
    pair = Pair(Open("s", StreamOptions(), 0, start))
    frame = pair.gateway.send(Audio(start, pcm))
    assert frame == struct.pack("<q", start) + pcm
    assert pair.engine.receive(frame) == Audio(start, pcm)


HOSTILE = [
    '{"t":"u","k":0,"p":0,"s":"00"}',
    b"", b"1234567", struct.pack("<q", -1), struct.pack("<q", 0) + b"x",
    "", "[]", "null", "{}", "NaN", "{", '{"t":1}', '{"t":"x"}', '{"t":["u"]}', "[" * 100_000,
    '{"t":"z","k":0}', '{"t":"z","k":true,"a":0}', '{"t":"z","k":0,"a":-1}',
    '{"t":"z","k":0,"a":1.0}', '{"t":"configure"}', '{"t":"configure","options":[]}',
    '{"t":"configure","options":{"language":1,"pause":1,"keyterms":[]}}',
    '{"t":"configure","options":{"language":null,"pause":"1","keyterms":[]}}',
    '{"t":"configure","options":{"language":null,"pause":1,"keyterms":"ab"}}',
    '{"t":"configure","options":{"language":null,"pause":1,"keyterms":[1]}}',
]  # fmt: skip


@pytest.mark.parametrize("frame", HOSTILE, ids=lambda frame: repr(frame)[:40])
def test_an_engine_takes_nothing_that_is_malformed(frame):
    with pytest.raises(PeerFault):
        Pair().engine.receive(frame)


@quick
@given(st.text() | st.binary(), st.booleans())
def test_anything_at_all_is_a_message_or_a_fault(frame, at_the_gateway):
    pair = Pair()
    with suppress(PeerFault):
        (pair.gateway if at_the_gateway else pair.engine).receive(frame)


def test_files_and_translations_cross_the_link():
    opening = Open("s", StreamOptions(offline=True, translate=True, prompt="as before"))
    assert decode(encode(opening)) == opening
    opened = Opened("m", 1_600, translates=True)
    assert decode(encode(opened)) == opened
    plain = encode(OPENING) + encode(Opened("m", 1_600))
    assert not any(name in plain for name in ("offline", "translate", "prompt"))


@pytest.mark.parametrize("tentative", [False, True])
def test_whether_words_are_tentative_reaches_the_engine(tentative):
    options = StreamOptions(tentative=tentative)
    assert Pair(OPENING).ask(Configure(options)).options == options


def test_the_mode_reaches_the_engine_and_another_breaks_the_link():
    options = StreamOptions(mode="min_latency")
    assert Pair(OPENING).ask(Configure(options)).options == options
    with pytest.raises(PeerFault, match="mode is one of"):
        decode(encode(Configure(StreamOptions(mode="hasty"))))


def test_names_cross_the_link_where_there_are_any():
    options = StreamOptions(names=("Anna", "New York"))
    assert Pair(OPENING).ask(Configure(options)).options == options
    assert "names" not in encode(OPENING)


@pytest.mark.parametrize("threshold", [0, 0.25, 1])
def test_the_speech_threshold_reaches_the_engine(threshold):
    options = StreamOptions(vad_threshold=threshold)
    assert Pair(OPENING).ask(Configure(options)).options == options


@pytest.mark.parametrize("threshold", ["0.5", True, -0.1, 1.1, None])
def test_a_threshold_that_is_none_breaks_the_link(threshold):
    frame = json.dumps({"t": "configure", "options": {"languages": [], "pause": 1, "keyterms": [],
                                                      "vad_threshold": threshold}})  # fmt: skip
    with pytest.raises(PeerFault, match="vad_threshold"):
        engine_wire.decode(frame)
