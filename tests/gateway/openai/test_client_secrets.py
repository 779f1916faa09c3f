"""Client secrets: what is issued, what each opens, and what is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssasr.gateway.auth.access import Access, parse_keys
from ssasr.gateway.auth.tokens import TokenMint
from ssasr.gateway.openai.client_secrets import ClientSecret, ClientSecrets
from ssasr.gateway.openai.json_object import JsonObject, Refused
from ssasr.gateway.openai.models import ModelNames
from ssasr.gateway.openai.realtime_settings import RealtimeSettings
from ssasr.protocol.close_codes import CloseCode
from ssasr.protocol.faults import ClientFault
from ssasr.protocol.speech_models import EngineKind

KEY = "Bearer self-hosted"
SESSION = {
    "type": "transcription",
    "audio": {"input": {"turn_detection": None, "transcription": {"language": "en"}}},
}


@pytest.fixture
def endpoint():
    access = Access(parse_keys("self-hosted"), TokenMint(b"a secret for the tests"))
    return ClientSecrets(access, ModelNames((EngineKind.ENGLISH,)), lambda: 1_000.0)


def issue(endpoint, body, key=KEY):
    return endpoint.issue(key, JsonObject(body))


def test_a_secret_opens_one_session_with_its_settings(endpoint):
    answer = issue(endpoint, {"session": SESSION, "expires_after": {"seconds": 60}})
    assert answer["value"].startswith("ek_")
    assert answer["expires_at"] == 1_060
    assert answer["session"]["audio"]["input"]["turn_detection"] is None
    secret = ClientSecret.read(answer["value"])
    settings = secret.settings(RealtimeSettings())
    assert settings.detection is None
    assert settings.transcription.language == "en"
    with endpoint.access.open_session(secret.token, None, 1_059.0):
        pass
    with pytest.raises(ClientFault) as fault:
        endpoint.access.open_session(secret.token, None, 1_059.0)
    assert fault.value.code is CloseCode.UNAUTHORIZED


def test_a_secret_without_settings(endpoint):
    answer = issue(endpoint, {})
    assert answer["expires_at"] == 1_600
    assert ClientSecret.read(answer["value"]).session == {}


@pytest.mark.parametrize(
    "body",
    [
        {"expires_after": {"seconds": 9}},
        {"expires_after": {"seconds": 7_201}},
        {"expires_after": {"anchor": "first_use"}},
        {"session": {"type": "realtime"}},
        {"session": {"audio": {"input": {"transcription": {"language": "de"}}}}},
        {"session": {"audio": {"input": {"transcription": {"keywords": ["x" * 50] * 99}}}}},
        {"session": []},
    ],
)
def test_refusals(endpoint, body):
    with pytest.raises(Refused):
        issue(endpoint, body)


@pytest.mark.parametrize("key", [None, "Bearer wrong"])
def test_only_for_those_who_have_a_key(endpoint, key):
    with pytest.raises(ClientFault):
        issue(endpoint, {}, key)


def test_a_secret_is_no_key_for_another(endpoint):
    secret = ClientSecret.read(issue(endpoint, {})["value"])
    with pytest.raises(ClientFault):
        issue(endpoint, {}, secret.token)


@given(st.text(max_size=40) | st.text("ek_.t1aA-", max_size=40))
def test_any_text_is_a_secret_something_else_or_damaged(text):
    try:
        secret = ClientSecret.read(text)
    except Refused:
        return
    if secret is not None:
        json.dumps(secret.session)
        assert secret.token.count(".") == 2
