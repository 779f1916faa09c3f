"""Plain text: what an unformatted transcript shows of a word that the model wrote with casing and
punctuation. Deterministic, word by word, so that a word's plain form never depends on its
neighbours."""

import re
import unicodedata

_APOSTROPHES = dict.fromkeys(map(ord, "’ʼ`´"), "'")
_HYPHENS = dict.fromkeys(map(ord, "‐‑"), "-")
_STRAIGHT = _APOSTROPHES | _HYPHENS
_JOINERS = "'-.,:/@_&"
"""Kept between two letters or digits: don't, well-known, 3.5, 10:30, and/or, example.com."""
_MEANINGFUL = "%&@#+=°§\u200c\u200d"
"""Symbols that are spoken, unlike punctuation; and the joiners inside words of some scripts."""
_ABBREVIATION = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]?\.?")


def plain(text: str) -> str:
    """Lower case without punctuation; "" if nothing is left, and then the word disappears."""
    text = text.lower().translate(_STRAIGHT)
    if text.isalnum():
        return text
    if _ABBREVIATION.fullmatch(text):  # u.s. and a.m.: letters, said one by one
        return text.replace(".", "")
    kept = [_plain_character(text, index) for index in range(len(text))]
    return " ".join("".join(kept).split())


def _plain_character(text: str, index: int) -> str:
    """What stands for this character: itself, or a space (which joins what it separated)."""
    character = text[index]
    if _carries_meaning(character):
        return character
    if character == "-" and index == 0 and text[1:2].isdigit():  # minus
        return character
    if character in _JOINERS and 0 < index < len(text) - 1:
        before, after = text[index - 1], text[index + 1]
        if character in ",:":
            joins = before.isdigit() and after.isdigit()
        else:
            joins = before.isalnum() and after.isalnum()
        if joins:
            return character
    return " "


def _carries_meaning(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] in "LMN" or category == "Sc" or character in _MEANINGFUL
