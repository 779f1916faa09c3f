"""Words in the formats of OpenAI's endpoints."""

import json

from ssasr.gateway.openai import formats
from ssasr.gateway.openai.formats import Transcript
from ssasr.gateway.openai.transcription import Piece
from ssasr.protocol.recognition import SAMPLE_RATE, Word


def said(text, *, start=0.0, each=0.5):
    words = []
    for number, word in enumerate(text.split()):
        begin = start + number * each
        words.append(Word(word, int(begin * SAMPLE_RATE), int((begin + each) * SAMPLE_RATE), 0.9))
    return tuple(words)


def transcript(*pieces):
    made = Transcript()
    for words in pieces:
        made.add(Piece(0, words[-1].end if words else 0, words, "en"))
    return made


TWO = transcript(said("One two three four five. Six <seven>"), said("eight.", start=10.0), ())


def test_segments_end_with_sentences_pauses_and_when_they_are_long():
    texts = [each.text for each in TWO.segments]
    assert texts == ["One two three four five.", "Six <seven>", "Eight."]
    endless = formats.segments(said("word " * 60))
    assert all(each.end - each.start <= formats.LONGEST for each in endless)
    assert sum(len(each.words) for each in endless) == 60


def test_text_is_joined_as_its_script_is():
    assert TWO.text == "One two three four five. Six <seven> Eight."
    assert transcript(said("你好"), said("世界", start=3)).text == "你好世界"


def joined(*texts, sent=False):
    made, at = Transcript(sent=sent), 0.0
    for text in texts:
        words = said(text, start=at)
        at = words[-1].end / SAMPLE_RATE + 0.5
        made.add(Piece(0, words[-1].end, words, "en"))
    assert made.text == " ".join(word.text for word in made.words)
    return made.text


def test_a_sentence_that_goes_on_in_the_next_window_has_no_full_stop_in_the_middle():
    assert joined("It was asleep.", "for it was late.") == "It was asleep for it was late."
    assert joined("wood blocks,", "engraved in") == "wood blocks, engraved in"
    assert joined("liked best.", "You were") == "liked best. You were"
    assert joined("Who came?", "rejoined he.") == "Who came? Rejoined he."
    assert joined("the Stories", "The town") == "the Stories the town"


def test_what_has_been_sent_stands():
    sent = joined("It was asleep.", "for it was late.", sent=True)
    assert sent == "It was asleep. For it was late."


def test_subtitles():
    assert formats.srt(TWO).startswith(
        "1\n00:00:00,000 --> 00:00:02,500\nOne two three four five.\n\n2\n00:00:02,500 --> "
    )
    assert formats.vtt(TWO).startswith("WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nOne")
    assert "Six &lt;seven&gt;" in formats.vtt(TWO)
    assert (formats.srt(Transcript()), formats.vtt(Transcript())) == ("", "WEBVTT\n")


def test_verbose_has_what_was_asked_for():
    both = formats.verbose(TWO, "transcribe", ("word", "segment"))
    assert both["words"][1] == {"word": "two", "start": 0.5, "end": 1.0}
    assert [each["id"] for each in both["segments"]] == [0, 1, 2]
    assert both["language"] == "english"
    assert "words" not in formats.verbose(TWO, "transcribe", ("segment",))
    assert "segments" not in formats.verbose(TWO, "transcribe", ("word",))
    assert formats.verbose(Transcript(), "translate", ("segment",))["language"] == "english"


def test_an_event_is_one_line():
    event = formats.event("transcript.text.delta", delta="a\nb")
    assert event.count(b"\n") == 2
    assert json.loads(event.removeprefix(b"data: ")) == {
        "type": "transcript.text.delta", "delta": "a\nb"
    }  # fmt: skip
