"""A turn begins with a capital unless it goes on with the sentence of the turn before."""

import pytest

from ssasr.protocol.messages import Turn
from ssasr.protocol.recognition import Word
from ssasr.session.casing import first_word, lower_capitals, sentence_continues
from ssasr.session.transcript import Transcript
from tests.session.test_turns import SECOND, Script, ends, speak, turns

P = "speech_model=u3-rt-pro"
MULTILINGUAL = "speech_model=universal-streaming-multilingual"


@pytest.mark.parametrize(
    ("word", "capital"),
    [
        ("for", "For"),
        ("“for", "“For"),
        ("¿por", "¿Por"),
        ("она", "Она"),
        ("Mrs.", "Mrs."),
        ("iPhone", "iPhone"),
        ("d'Artagnan", "d'Artagnan"),
        ("23", "23"),
        ("20th", "20th"),
        ("今天", "今天"),
        ("ის", "ის"),  # Georgian sentences begin with ordinary letters
        ("ßig", "ßig"),
        ("***", "***"),
    ],
)
def test_the_first_word_of_a_sentence(word, capital):
    assert first_word(word, continues=False) == capital


@pytest.mark.parametrize(
    ("word", "small"),
    [("For", "for"), ("And,", "and,"), ("a", "a"), ("I", "I"), ("Mrs.", "Mrs."), ("THE", "THE"),
     ("Moses", "Moses"), ("town", "town")],
)  # fmt: skip
def test_the_first_word_after_half_a_sentence(word, small):
    assert first_word(word, continues=True) == small


def test_what_goes_on():
    assert sentence_continues("love", 800)
    assert sentence_continues("said...", 800)
    assert sentence_continues("said,", 800)
    assert not sentence_continues("love.", 800)
    assert not sentence_continues("love.”", 800)
    assert not sentence_continues("love", 3_000)
    assert not sentence_continues("", 0)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("CHAPTER 23", "chapter 23"),
        ("CHAPTER 23.", "chapter 23."),
        ("IT WAS THE BEST", "it was the best"),
        ("NASA", "NASA"),
        ("NASA AND ESA.", "NASA AND ESA."),
        ("UNESCO", "UNESCO"),
        ("23", "23"),
        ("Chapter 23", "Chapter 23"),
        ("第二章", "第二章"),
    ],
)
def test_a_turn_all_in_capitals(text, shown):
    assert " ".join(lower_capitals(text.split())) == shown


def said(query, *texts, gap=3 * SECOND):
    words, at = (), 8_000
    for text in texts:
        words += speak(text, start=at)
        at = words[-1].end + gap
    messages = turns(query, Script(words, at, confidence=0.9))
    return messages, [turn.transcript for turn in ends(messages)]


@pytest.mark.parametrize("query", [P, MULTILINGUAL, "format_turns=true"])
def test_turns_of_each_family_begin_alike(query):
    _, texts = said(query, "my dear love.", "for Mrs. Bennett,", gap=2 * SECOND)
    assert texts == ["My dear love.", "For Mrs. Bennett,"]
    _, texts = said(query, "she went to the", "The door. A town", gap=2 * SECOND)
    assert texts == ["She went to the", "the door. A town"]
    _, texts = said(query, "she went to the", "The door.", gap=4 * SECOND)
    assert texts == ["She went to the", "The door."]
    _, texts = said(query, "chapter 22", "CHAPTER 23", gap=4 * SECOND)
    assert texts[1] == "Chapter 23"


def test_plain_text_has_no_capitals():
    _, texts = said("", "my dear love.", "for Mrs. Bennett,")
    assert texts == ["my dear love", "for mrs bennett"]


@pytest.mark.parametrize("query", [P, MULTILINGUAL])
def test_a_beginning_is_the_same_in_every_message(query):
    messages, _ = said(query, "my dear love.", "for Mrs. Bennett who was there", gap=2 * SECOND)
    second = [m for m in messages if isinstance(m, Turn) and m.turn_order == 1 and m.words]
    assert {turn.words[0].text for turn in second} == {"For"}


def test_a_turn_without_words_changes_nothing():
    transcript = Transcript()
    transcript.update((Word("love", 0, 1_600, 0.9, True),))
    transcript.finish(formatted=True)
    transcript.next_segment(turn_ended=True)
    transcript.next_segment(turn_ended=False)
    transcript.update((Word("The", 8_000, 9_600, 0.9, True),))
    assert transcript.words(formatted=True, finality=True)[0].text == "the"
