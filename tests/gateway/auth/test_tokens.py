"""Temporary tokens."""

import contextlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssasr.gateway.auth.tokens import (
    Redeemed,
    TokenError,
    TokenMemoryFull,
    TokenMint,
    TokenRequest,
    TokenRequestError,
    looks_like_token,
    parse_token_request,
)

SECRET = b"0123456789abcdef"
NOW = 1_800_000_000.0
KEY = b"keykeyke"


def issue(seconds=60, cap=600):
    return TokenMint(SECRET).issue(TokenRequest(seconds, cap), KEY, NOW)


def test_a_token_says_what_it_was_given():
    token = TokenMint(SECRET).check(issue(), NOW + 59)
    assert (token.expires_at, token.max_session_duration, token.key_id) == (NOW + 60, 600, KEY)
    assert looks_like_token(issue())


def test_it_travels_in_a_url_and_in_a_header():
    assert all(c.isascii() and (c.isalnum() or c in "-_.") for c in issue())


def test_it_expires():
    with pytest.raises(TokenError, match="expired"):
        TokenMint(SECRET).check(issue(), NOW + 60)


def test_another_secret_does_not_know_it():
    with pytest.raises(TokenError, match="Invalid"):
        TokenMint(SECRET[::-1]).check(issue(), NOW)
    with pytest.raises(ValueError, match="16 bytes"):
        TokenMint(b"short")


def test_every_single_change_is_noticed():
    token = issue()
    for position in range(len(token)):
        for letter in "Ab-_.":
            changed = token[:position] + letter + token[position + 1 :]
            if changed != token:
                with pytest.raises(TokenError):
                    TokenMint(SECRET).check(changed, NOW)


def test_a_token_has_one_spelling():
    """The last letter of base64 may hold bits that decode to nothing."""
    version, payload, signature = issue().split(".")
    accepted = []
    for letter in string.ascii_letters + string.digits + "-_":
        with contextlib.suppress(TokenError):
            TokenMint(SECRET).check(f"{version}.{payload[:-1]}{letter}.{signature}", NOW)
            accepted.append(letter)
    assert accepted == [payload[-1]]


@given(st.text())
def test_any_text_is_refused(text):
    for candidate in (text, f"t1.{text}", f"t1.{text}.{text}"):
        with pytest.raises(TokenError):
            TokenMint(SECRET).check(candidate, NOW)


def test_single_use_and_bounded_memory():
    mint, redeemed = TokenMint(SECRET), Redeemed(memory=2)
    first, second, third = (mint.check(issue(seconds), NOW) for seconds in (10, 20, 30))
    redeemed.redeem(first, NOW)
    with pytest.raises(TokenError, match="already used"):
        redeemed.redeem(first, NOW)
    redeemed.redeem(second, NOW)
    with pytest.raises(TokenMemoryFull):
        redeemed.redeem(third, NOW)
    redeemed.redeem(third, NOW + 11)  # the first has expired and is forgotten
    assert len(redeemed) == 2


def test_the_request():
    assert parse_token_request("expires_in_seconds=60") == TokenRequest(60, 10_800)
    full = "?expires_in_seconds=600&max_session_duration_seconds=60"
    assert parse_token_request(full) == TokenRequest(600, 60)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "expires_in_seconds=",
        "expires_in_seconds=0",
        "expires_in_seconds=601",
        "expires_in_seconds=1.5",
        "expires_in_seconds=60&max_session_duration_seconds=59",
        "expires_in_seconds=60&max_session_duration_seconds=10801",
        "expires_in_seconds=٦٠",
        "expires_in_seconds=" + "9" * 10_000,
    ],
)
def test_an_unusable_request(query):
    with pytest.raises(TokenRequestError, match="_seconds"):
        parse_token_request(query)
