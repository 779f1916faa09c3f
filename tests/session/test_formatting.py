"""Plain text of a word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssasr.protocol.text import ends_sentence
from ssasr.session.formatting import plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello,", "hello"),
        ("Don’t", "don't"),
        ("O'Neil's", "o'neil's"),
        ("“Well-known”", "well-known"),
        ("U.S.", "us"),
        ("a.m.", "am"),
        ("A.", "a"),
        ("3.5", "3.5"),
        ("-5", "-5"),
        ("$1,000.", "$1,000"),
        ("10:30", "10:30"),
        ("50%", "50%"),
        ("C++", "c++"),
        ("AT&T", "at&t"),
        ("example.com.", "example.com"),
        ("yes—no", "yes no"),
        ("wait...what", "wait what"),
        ("¿Qué?", "qué"),
        ("NAÏVE!", "naïve"),
        ("你好。", "你好"),
        ("—", ""),
        ("...", ""),
        ("♪", ""),
        ("", ""),
    ],
)
def test_plain(text, expected):
    assert plain(text) == expected


@given(st.text())
def test_plain_text_is_plain(text):
    once = plain(text)
    assert once == once.strip()
    assert not set(once) & set('!?;"()[]')
    assert once == once.lower() or any(c.upper() == c for c in once)


@pytest.mark.parametrize("text", ["done.", "Really?", "Stop!", 'said."', "好。", "it.)"])
def test_a_sentence_ends(text):
    assert ends_sentence(text)


@pytest.mark.parametrize("text", ["", "and", "well,", "wait...", "wait…", "3.5"])
def test_a_sentence_goes_on(text):
    assert not ends_sentence(text)
