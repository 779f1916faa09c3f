"""Text from outside that is no text, wherever JSON comes in."""

import json
from urllib.parse import quote

import pytest

from ssasr.protocol import strict_json
from ssasr.protocol.close_codes import CloseCode
from ssasr.protocol.codec import decode
from ssasr.protocol.engine_wire import decode as decode_link
from ssasr.protocol.faults import ClientFault, PeerFault
from ssasr.protocol.parameters import parse_parameters

HALF = '"\\ud83d"'


@pytest.mark.parametrize("text", [HALF, '["\\uDE00"]', '{"\\ud83d": 1}', '"\\ude00\\ud83d"', "NaN"])
def test_what_is_not_text_is_not_json(text):
    with pytest.raises(ValueError, match=r"surrogate|not JSON"):
        strict_json.read(text)


@pytest.mark.parametrize("value", ["😀", "\\ud83d", ["a", 1.5, None], {"ü": "é"}])
def test_everything_else_is_read(value):
    assert strict_json.read(json.dumps(value)) == value
    assert strict_json.read(json.dumps(value, ensure_ascii=False)) == value


@pytest.mark.parametrize(
    "message",
    [
        '{"type": "UpdateConfiguration", "keyterms_prompt": [%s]}',
        '{"type": "UpdateConfiguration", "prompt": %s}',
        '{"type": %s}',
        '{"type": "KeepAlive", %s: 1}',
        "[%s]",
    ],
)
def test_a_client_that_sends_half_a_character_is_at_fault(message):
    with pytest.raises(ClientFault) as fault:
        decode(message % HALF)
    assert fault.value.code is CloseCode.INVALID_INPUT
    fault.value.text.encode()


@pytest.mark.parametrize("name", ["keyterms_prompt", "keyterms", "language_codes"])
def test_so_is_one_whose_query_holds_it(name):
    with pytest.raises(ClientFault) as fault:
        parse_parameters(f"{name}={quote(f'[{HALF}]')}")
    assert fault.value.code is CloseCode.INVALID_INPUT
    fault.value.text.encode()


def test_a_gateway_that_sends_it_breaks_the_link():
    with pytest.raises(PeerFault):
        decode_link('{"t": "open", "session": %s}' % HALF)  # noqa: UP031
