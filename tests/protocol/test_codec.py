"""Messages to text and back, without coercion."""

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssasr.protocol import messages
from ssasr.protocol.close_codes import CLOSE_CODES, END_CAUSES, CloseCode, EndCause, close_reason
from ssasr.protocol.codec import (
    CLIENT_TYPES,
    SERVER_TYPES,
    TurnWriter,
    decode,
    decode_server,
    encode,
)
from ssasr.protocol.faults import ClientFault, inactivity
from ssasr.protocol.messages import (
    Begin,
    Error,
    RevisedTurn,
    Turn,
    TurnWord,
    UpdateConfiguration,
)

SCALARS = {
    bool: st.booleans(),
    int: st.integers(-(2**53), 2**53),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
}


def of_type(kind):
    """Values of an annotation as the messages use it."""
    if kind in SCALARS:
        return SCALARS[kind]
    if attrs.has(kind):
        return instances(kind)
    if kind == tuple[str, ...]:
        return st.lists(SCALARS[str], max_size=3).map(tuple)
    if kind == tuple[TurnWord, ...]:
        return st.lists(instances(TurnWord), max_size=3).map(tuple)
    if kind == dict[str, Any]:
        return st.dictionaries(SCALARS[str], st.one_of(list(SCALARS.values())), max_size=3)
    if kind == tuple[RevisedTurn, ...]:
        return st.lists(instances(RevisedTurn), max_size=2).map(tuple)
    present, nothing = kind.__args__
    assert nothing is type(None)
    return st.none() | of_type(present)


def instances(cls):
    return st.builds(cls, **{field.name: of_type(field.type) for field in attrs.fields(cls)})


any_server_message = st.one_of([instances(cls) for cls in SERVER_TYPES.values()])
any_client_message = st.one_of([instances(cls) for cls in CLIENT_TYPES.values()])


@given(any_server_message)
def test_server_messages_round_trip(message):
    assert decode_server(encode(message)) == message


@given(any_client_message)
def test_client_messages_round_trip(message):
    assert decode(encode(message)) == message


@given(st.lists(instances(Turn), max_size=4), st.data())
def test_the_fast_way_of_a_turn_equals_the_generic_one(turns, data):
    writer, words = TurnWriter(), ()
    for turn in turns:
        kept = words[: data.draw(st.integers(0, len(words)))]
        words = kept + turn.words
        grown = attrs.evolve(turn, words=words)
        assert writer.write(grown) == encode(grown)


@pytest.mark.parametrize(
    "fields",
    [
        {"end_of_turn_confidence": float("nan")},
        {"language_confidence": float("inf")},
        {"words": (TurnWord("a", 0, 1, float("nan"), False),)},
    ],
    ids=str,
)
def test_neither_way_of_a_turn_writes_what_json_cannot_hold(fields):
    turn = attrs.evolve(Turn(0, False, False, "", "", 0.0, ()), **fields)
    for write in (encode, TurnWriter().write):
        with pytest.raises(ValueError, match="not JSON"):
            write(turn)


def has_null(value):
    if isinstance(value, dict | list):
        return any(map(has_null, value.values() if isinstance(value, dict) else value))
    return value is None


def keys(value):
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


@given(any_server_message)
def test_no_null_and_no_error_key_outside_error(message):
    text = encode(message)
    fields = json.loads(text)
    assert not has_null(fields)
    assert ("error" in keys(fields)) == isinstance(message, Error)
    assert fields["type"] in SERVER_TYPES


def test_optional_fields_are_left_out():
    turn = Turn(0, False, False, "", "", 0.0, ())
    assert json.loads(encode(turn)) == {
        "turn_order": 0,
        "turn_is_formatted": False,
        "end_of_turn": False,
        "transcript": "",
        "utterance": "",
        "end_of_turn_confidence": 0.0,
        "words": [],
        "type": "Turn",
    }
    assert encode(Begin("id", 1)) == '{"id":"id","expires_at":1,"type":"Begin"}'
    configured = Begin("id", 1, messages.BeginConfiguration(model="m", speaker_labels=False))
    assert json.loads(encode(configured))["configuration"] == {
        "model": "m",
        "speaker_labels": False,
    }


def test_what_json_cannot_hold_is_our_bug_and_seen():
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode(messages.SpeechStarted(0, float("nan")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "Invalid JSON: "),
        ("{", "Invalid JSON: "),
        ('{"type":"Terminate"} x', "Invalid JSON: "),
        ('{"type":"UpdateConfiguration","vad_threshold":NaN}', "Invalid JSON: "),
        ("[" * 100_000, "Invalid JSON: "),
        ("1" * 5_000, "Invalid JSON: "),
        ("[]", "Invalid Message: "),
        ("null", "Invalid Message: "),
        ("{}", "Invalid Message: "),
        ('{"type":null}', "Invalid Message: "),
        ('{"type":["Terminate"]}', "Invalid Message: "),
        ('{"type":"terminate"}', "Invalid Message Type: terminate"),
        ('{"type":"Turn"}', "Invalid Message Type: Turn"),
        ('{"type":"\\ud800"}', "Invalid JSON: "),
    ],
)
def test_what_is_no_message(text, expected):
    with pytest.raises(ClientFault) as caught:
        decode(text)
    assert caught.value.code is CloseCode.INVALID_INPUT
    assert caught.value.text.startswith(expected)
    assert len(caught.value.reason.encode()) <= 123


WRONG = {
    bool: ["false", 0, 1, 1.0, [], {}],
    int: ["400", 400.9, 400.0, True, [], {}],
    float: ["0.5", True, [], {}],
    str: [1, True, 1.5, [], {}],
    tuple[str, ...]: ["abc", 1, True, {}, ["a", 1], ["a", None]],
}


@pytest.mark.parametrize("field", attrs.fields(UpdateConfiguration), ids=lambda field: field.name)
def test_nothing_is_coerced(field):
    for value in WRONG[field.type.__args__[0]]:
        with pytest.raises(ClientFault, match=f"Invalid '{field.name}': expected ") as caught:
            decode(json.dumps({"type": "UpdateConfiguration", field.name: value}))
        assert caught.value.code is CloseCode.INVALID_INPUT


def test_null_and_unknown_fields_change_nothing():
    text = '{"type":"UpdateConfiguration","prompt":null,"vad_threshold":null,"other":[1]}'
    assert decode(text) == UpdateConfiguration()


def test_a_number_may_be_an_integer():
    assert decode('{"type":"UpdateConfiguration","vad_threshold":1}').vad_threshold == 1


def test_the_path_of_a_nested_mistake():
    with pytest.raises(ClientFault, match=r"Invalid 'words\.start'"):
        decode_server(
            '{"type":"Turn","turn_order":0,"turn_is_formatted":true,"end_of_turn":true,'
            '"transcript":"","utterance":"","end_of_turn_confidence":0,"words":'
            '[{"text":"a","start":1.5,"end":2,"confidence":0,"word_is_final":true}]}'
        )


@given(st.text())
def test_any_text_is_a_message_or_a_fault(text):
    with pytest.raises(ClientFault):
        decode(text)


def decoded_or_refused(text):
    try:
        return decode(text)
    except ClientFault as fault:
        return fault


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    st.sampled_from(sorted(CLIENT_TYPES)),
    st.dictionaries(st.sampled_from(sorted(UpdateConfiguration.__annotations__)), json_values),
)
def test_any_object_is_a_message_or_a_fault(tag, fields):
    message = decoded_or_refused(json.dumps({**fields, "type": tag}))
    if isinstance(message, ClientFault):
        assert message.code is CloseCode.INVALID_INPUT
    else:
        assert type(message) is CLIENT_TYPES[tag]


def test_every_cause_has_a_code_and_every_code_an_entry():
    assert set(END_CAUSES) == set(EndCause)
    assert set(CLOSE_CODES) == set(CloseCode)
    assert 1011 not in [int(code) for code in CloseCode]


def test_a_close_reason_is_cut_between_characters():
    assert close_reason("é" * 100) == "é" * 61
    assert close_reason("short") == "short"


def test_faults_say_what_the_table_says_when_they_know_nothing_better():
    assert ClientFault(CloseCode.TOO_MANY_SESSIONS).text == (
        "Unauthorized Connection: Too many concurrent sessions"
    )
    assert inactivity(5).text.endswith("No messages received for 5 seconds")
    assert inactivity(5).cause is EndCause.INACTIVE
