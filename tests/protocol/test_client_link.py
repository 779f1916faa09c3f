"""The session state machine: what is legal when, in both directions."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssasr.protocol import messages
from ssasr.protocol.client_link import (
    MESSAGE_LIMIT,
    TRANSITIONS,
    AudioReceived,
    ClientLink,
    ConfigurationUpdated,
    EndpointForced,
    KeptAlive,
    State,
    TerminateRequested,
)
from ssasr.protocol.close_codes import CloseCode, EndCause
from ssasr.protocol.codec import CLIENT_TYPES, SERVER_TYPES
from ssasr.protocol.faults import ClientFault, LocalProtocolError
from ssasr.protocol.messages import Error, SpeechStarted, Termination, Turn
from ssasr.protocol.parameters import parse_parameters

MS_50 = bytes(1_600)


def link(query="", *, begun=True):
    result = ClientLink(parse_parameters(query))
    if begun:
        result.begin("id", 1)
    return result


def turn(order=0, *, end=False):
    return Turn(order, False, end, "", "", 0.0, ())


def text(kind, **fields):
    return json.dumps({"type": kind, **fields})


def test_a_whole_session():
    session = link()
    assert session.receive(MS_50) == [AudioReceived(MS_50)]
    assert session.receive(text("KeepAlive")) == [KeptAlive()]
    assert session.receive(text("ForceEndpoint")) == [EndpointForced()]
    (updated,) = session.receive(text("UpdateConfiguration", max_turn_silence=700))
    assert isinstance(updated, ConfigurationUpdated)
    assert updated.parameters.max_turn_silence == session.parameters.max_turn_silence == 700
    session.send(turn())
    assert session.receive(text("Terminate")) == [TerminateRequested()]
    session.send(turn(end=True))
    session.send(Termination(1, 2))
    assert session.state is State.ENDED


def test_a_client_may_speak_before_begin():
    session = link(begun=False)
    assert session.receive(MS_50) == [AudioReceived(MS_50)]
    assert session.receive(text("Terminate")) == [TerminateRequested()]
    session.begin("id", 1)
    assert session.state is State.ENDING
    session.send(Termination(0, 0))


@pytest.mark.parametrize("begun", [True, False])
def test_what_comes_after_terminate_is_dropped_without_a_look(begun):
    session = link(begun=begun)
    session.receive(text("Terminate"))
    for frame in (MS_50, b"x" * (MESSAGE_LIMIT + 1), "{", text("Terminate"), text("Nonsense")):
        assert session.receive(frame) == []


def test_begin_comes_first_and_once():
    with pytest.raises(LocalProtocolError, match="Turn in state OPENING"):
        link(begun=False).send(turn())
    with pytest.raises(LocalProtocolError, match="Begin in state OPEN"):
        link().begin("id", 1)
    link(begun=False).send(Error("no", 1008))  # a refusal needs no Begin


@pytest.mark.parametrize("last", [Error("x", 3005), Termination(0, 0)])
def test_nothing_follows_the_last_message(last):
    session = link()
    session.send(last)
    for message in (turn(), Error("y", 3005), Termination(0, 0)):
        with pytest.raises(LocalProtocolError):
            session.send(message)


@pytest.mark.parametrize("order", [1, 2, -1])
def test_turns_count_from_zero(order):
    with pytest.raises(LocalProtocolError):
        link().send(turn(order))


def test_a_turn_ends_once():
    session = link()
    session.send(turn(0))
    session.send(turn(0, end=True))
    with pytest.raises(LocalProtocolError):
        session.send(turn(0, end=True))
    session.send(turn(1))
    with pytest.raises(LocalProtocolError):
        session.send(turn(2))


def test_speech_started_belongs_before_a_turn_of_family_p():
    with pytest.raises(LocalProtocolError, match="family P only"):
        link().send(SpeechStarted(0, 1.0))
    session = link("speech_model=u3-rt-pro")
    with pytest.raises(LocalProtocolError, match="no SpeechStarted"):
        session.send(turn())
    session.send(SpeechStarted(0, 1.0))
    session.send(SpeechStarted(900, 1.0))  # the first one came to nothing
    session.send(turn())
    with pytest.raises(LocalProtocolError, match="inside turn 0"):
        session.send(SpeechStarted(0, 1.0))
    session.send(turn(end=True))
    with pytest.raises(LocalProtocolError, match="no SpeechStarted"):
        session.send(turn(1))


def feed(session, *sizes):
    for size in sizes:
        session.receive(bytes(size))


def violation(session, *sizes):
    with pytest.raises(ClientFault) as caught:
        feed(session, *sizes)
    assert caught.value.code is CloseCode.INPUT_RATE
    assert caught.value.cause is EndCause.INPUT_DURATION
    return caught.value.text


def test_more_than_a_second_in_one_message():
    feed(link(), 32_000, 32_002)
    assert violation(link(), 40_000).endswith(
        "Input Duration Violation: 1250.0 ms. Expected between 50 and 1000 ms"
    )
    feed(link("encoding=pcm_mulaw&sample_rate=8000"), 8_000)
    violation(link("encoding=pcm_mulaw&sample_rate=8000"), 8_100)


def test_short_messages_are_a_fault_after_a_second_of_them():
    feed(link(), *[640] * 49)
    assert "20.0 ms" in violation(link(), *[640] * 50)
    feed(link(), *[*[640] * 49, 1_600] * 3)  # one of proper length starts the count again


def test_what_real_clients_send_is_tolerated():
    feed(link("sample_rate=22050"), *[2_204] * 1_000)  # 49.98 ms all the time
    feed(link("sample_rate=22050"), *[2_205] * 1_000)  # half a sample
    feed(link(), *[1_600] * 20, 3)  # whatever is left


def test_empty_messages_are_ignored_and_compressed_ones_not_measured():
    session = link()
    assert [session.receive(b"") for _ in range(1_000)] == [[]] * 1_000
    feed(link("encoding=ogg_opus"), 100_000, *[1] * 3_000)


@pytest.mark.parametrize("frame", [bytes(MESSAGE_LIMIT + 1), "é" * (MESSAGE_LIMIT // 2 + 1)])
def test_too_big(frame):
    with pytest.raises(ClientFault) as caught:
        link("encoding=aac").receive(frame)
    assert caught.value.code is CloseCode.MESSAGE_TOO_BIG
    link("encoding=aac").receive(bytes(MESSAGE_LIMIT))


def test_a_refused_update_changes_nothing():
    session = link()
    with pytest.raises(ClientFault, match="Invalid 'vad_threshold'"):
        session.receive(text("UpdateConfiguration", vad_threshold=2, max_turn_silence=5))
    assert session.parameters == parse_parameters("")


def test_the_table_names_every_state_and_message():
    assert set(TRANSITIONS) == set(State)
    named = {kind for row in TRANSITIONS.values() for kind in row}
    assert {*CLIENT_TYPES.values(), *SERVER_TYPES.values()} <= named


frames = st.one_of(
    st.binary(max_size=4_000),
    st.text(max_size=50),
    st.sampled_from([text(kind) for kind in CLIENT_TYPES]),
    st.builds(
        lambda fields: text("UpdateConfiguration", **fields),
        st.dictionaries(
            st.sampled_from(sorted(messages.UpdateConfiguration.__annotations__)),
            st.none() | st.integers() | st.text(max_size=3) | st.lists(st.text(max_size=3)),
            max_size=3,
        ),
    ),
)


@given(st.lists(frames, max_size=20), st.sampled_from(["", "encoding=opus", "sample_rate=8000"]))
def test_any_frames_give_events_or_a_fault_of_the_clients(received, query):
    session = link(query)
    for frame in received:
        try:
            session.receive(frame)
        except ClientFault as fault:
            session.send(Error(fault.text, fault.code))
            assert session.state is State.ENDED
            return
