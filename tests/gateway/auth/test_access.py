"""Keys, tokens in their place, and limits."""

import math

import pytest

from ssasr.errors import StartRefused
from ssasr.gateway.auth.access import DEFAULT_KEYS, Access, QuotaBusy, parse_keys, read_key_file
from ssasr.gateway.auth.tokens import Redeemed, TokenMint, TokenRequest
from ssasr.protocol.close_codes import CloseCode
from ssasr.protocol.faults import ClientFault

NOW = 1_800_000_000.0
REQUEST = TokenRequest(60, 300)


def access(keys=DEFAULT_KEYS, **options):
    return Access(parse_keys(keys), TokenMint(b"s" * 16), **options)


def refused(rules, authorization=None, token=None, now=NOW):
    with pytest.raises(ClientFault) as caught:
        rules.open_session(authorization, token, now)
    return caught.value


@pytest.mark.parametrize("header", ["self-hosted", "Bearer self-hosted", " self-hosted "])
def test_the_default_key(header):
    assert access().open_session(header, None, NOW).max_duration == math.inf


@pytest.mark.parametrize("header", ["wrong", "Self-Hosted", "self-hosted2", "é", "\udcff"])
def test_a_wrong_key_is_refused_and_not_echoed(header):
    fault = refused(access(), header)
    assert fault.code is CloseCode.UNAUTHORIZED
    assert fault.text == "Unauthorized Connection: Invalid API key"


@pytest.mark.parametrize("header", [None, "", " ", "Bearer "])
def test_no_credentials(header):
    text = "Unauthorized Connection: Missing Authorization header"
    assert refused(access(), header).text == text
    assert refused(access("*"), header).text == text


def test_any_credential():
    rules = access("*")
    one, other = (rules.open_session(name, None, NOW) for name in ("x", "y"))
    assert one.key_id != other.key_id


def test_keys_are_read_from_lines_and_commas():
    rules = access("# ours\nalpha, beta 2\n\n gamma\n")
    for name in ("alpha", "beta", "gamma"):
        rules.open_session(name, None, NOW)
    refused(rules, "# ours")
    assert "alpha" not in repr(rules)


@pytest.mark.parametrize("text", ["", "#x\n", "a b", "a 1 2", "a,a", "a -1"])
def test_malformed_keys_refuse_the_start_without_quoting_them(text):
    with pytest.raises(StartRefused, match=r"API keys: [^`]*(`key|twice|none)"):
        parse_keys(text)


def test_limit_per_key():
    rules = access("free, paid 1")
    grant = rules.open_session("paid", None, NOW)
    fault = refused(rules, "paid")
    assert fault.code is CloseCode.TOO_MANY_SESSIONS
    rules.open_session("free", None, NOW)
    grant.release()
    grant.release()
    with rules.open_session("paid", None, NOW):
        refused(rules, "paid")
    assert list(rules.quota.open().values()) == [1]


@pytest.mark.parametrize("place", ["query", "header"])
def test_a_token_opens_one_session(place):
    rules = access()
    token = rules.issue_token("self-hosted", REQUEST, NOW)
    where = (None, token) if place == "query" else (token, None)
    grant = rules.open_session(*where, NOW)
    assert grant.max_duration == 300
    assert refused(rules, *where).text == "Unauthorized Connection: Token already used"
    assert len(rules.used) == 1


def test_a_token_counts_for_the_key_that_asked_for_it_and_survives_a_full_house():
    rules = access("paid 1")
    token = rules.issue_token("paid", REQUEST, NOW)
    with rules.open_session("paid", None, NOW):
        assert refused(rules, token=token).code is CloseCode.TOO_MANY_SESSIONS
    rules.open_session(None, token, NOW)


def test_a_token_of_a_withdrawn_key_is_refused():
    token = access("old").issue_token("old", REQUEST, NOW)
    assert refused(access("new"), token=token).text == "Unauthorized Connection: Invalid token"
    access("*").open_session(None, token, NOW)


def test_a_key_is_not_taken_from_the_query():
    assert refused(access(), token="self-hosted").code is CloseCode.UNAUTHORIZED


def test_the_query_goes_before_the_header():
    assert refused(access(), "self-hosted", "t1.x.y").text.endswith("Invalid token")


def test_who_may_ask_for_a_token():
    rules = access()
    token = rules.issue_token("Bearer self-hosted", REQUEST, NOW)
    for header in (None, "wrong", token):
        with pytest.raises(ClientFault) as caught:
            rules.issue_token(header, REQUEST, NOW)
        assert caught.value.code is CloseCode.UNAUTHORIZED
    with pytest.raises(ClientFault):
        access("*").issue_token(token, REQUEST, NOW)


def test_without_a_mint_there_are_no_tokens():
    rules = Access(parse_keys(DEFAULT_KEYS))
    with pytest.raises(ClientFault):
        rules.issue_token("self-hosted", REQUEST, NOW)
    assert refused(rules, token="t1.a.b").text.endswith("not in use")


def test_more_tokens_than_can_be_remembered_are_asked_to_come_again():
    rules = access(used=Redeemed(memory=1))
    tokens = [rules.issue_token("self-hosted", REQUEST, NOW) for _ in range(2)]
    rules.open_session(None, tokens[0], NOW)
    assert refused(rules, token=tokens[1]).code is CloseCode.TRY_AGAIN_LATER


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_key_file_with_or_without_a_byte_order_mark(tmp_path, mark):
    """Notepad writes one; the first key would silently be another than it looks like."""
    file = tmp_path / "keys"
    file.write_bytes(mark + b"first\nsecond 2\n")
    rules = access(read_key_file(file))
    for key in ("first", "second"):
        rules.open_session(key, None, NOW)


@pytest.mark.parametrize("content", ["first".encode("utf-16"), b"caf\xe9", None])
def test_a_key_file_that_cannot_be_read_refuses_the_start(tmp_path, content):
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StartRefused, match="key file"):
        read_key_file(file)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_key_outside_ascii(encoding):
    """A header's bytes reach us as Latin-1, whatever the client has encoded."""
    header = "schlüssel".encode(encoding).decode("latin-1")
    access("schlüssel").open_session(header, None, NOW)
    access("schlüssel").open_session("Bearer " + header, None, NOW)


@pytest.mark.parametrize("key", ["a\x07b", "a\u200bb", "\ufefffirst"])
def test_a_key_that_is_not_what_it_looks_like_refuses_the_start(key):
    with pytest.raises(StartRefused, match="API keys"):
        parse_keys(key)


def test_a_limit_for_any_key_holds_for_all_of_them_together():
    rules = access("* 2, ours")
    first = rules.open_session("made up", None, NOW)
    token = rules.issue_token("a third", REQUEST, NOW)
    second = rules.open_session("made up too", None, NOW)
    assert first.key_id != second.key_id
    for fault in (refused(rules, "another"), refused(rules, token=token)):
        assert fault.code is CloseCode.TOO_MANY_SESSIONS
    rules.open_session("ours", None, NOW)
    first.release()
    rules.open_session(None, token, NOW)


class Failing(Redeemed):
    def redeem(self, token, now):
        raise self.error


@pytest.mark.parametrize("error", [QuotaBusy("locked"), RuntimeError("a bug"), KeyboardInterrupt()])
def test_whatever_goes_wrong_with_a_token_the_place_is_given_back(error):
    used = Failing()
    used.error = error
    rules = access("paid 1", used=used)
    token = rules.issue_token("paid", REQUEST, NOW)
    with pytest.raises((ClientFault, RuntimeError, KeyboardInterrupt)):
        rules.open_session(None, token, NOW)
    assert rules.quota.open() == {}


def test_keys_are_replaced_for_whoever_comes_next():
    rules = access("old 1")
    held = rules.open_session("old", None, NOW)
    rules.replace_keys(parse_keys("new, old 2"))
    rules.open_session("new", None, NOW)
    rules.open_session("old", None, NOW)
    refused(rules, "old")
    held.release()
    rules.open_session("old", None, NOW)


def test_a_key_that_everybody_knows():
    assert access().is_open()
    assert access("* 3, ours").is_open()
    assert not access("ours").is_open()
