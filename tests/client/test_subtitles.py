"""Transcripts as files. The page's own writer is compared with this one in tests/page."""

import json

import attrs
import pytest

from ssasr.client.subtitles import FORMATS, revised, srt, text, to_json, vtt
from ssasr.client.transcribe import plain_lines, spoken
from ssasr.protocol.messages import RevisedTurn, SpeakerRevision, Turn, TurnWord


def turn(*words, order=0):
    """Words as (text, start, end)."""
    items = tuple(TurnWord(t, start, end, 0.5, True) for t, start, end in words)
    transcript = " ".join(t for t, _, _ in words)
    return Turn(order, True, True, transcript, transcript, 0.75, items)


HELLO = turn(("Hello", 500, 900), ("world.", 950, 1_200))
LATER = turn(("R&D", 3_661_005, 3_661_200), ("<ok>", 3_661_300, 3_661_400), order=1)


def test_text_is_a_line_a_turn():
    assert text([HELLO, LATER]) == "Hello world.\nR&D <ok>\n"


def test_srt():
    assert srt([HELLO, LATER]) == (
        "1\n00:00:00,500 --> 00:00:01,500\nHello world.\n\n"
        "2\n01:01:01,005 --> 01:01:02,005\nR&D <ok>\n"
    )


def test_vtt_escapes_markup():
    assert vtt([HELLO, LATER]) == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:01.500\nHello world.\n\n"
        "01:01:01.005 --> 01:01:02.005\nR&amp;D &lt;ok&gt;\n"
    )


def test_json_has_words_and_times():
    assert json.loads(to_json([HELLO])) == {
        "turns": [
            {
                "transcript": "Hello world.",
                "start": 500,
                "end": 1_200,
                "end_of_turn_confidence": 0.75,
                "words": [
                    {"text": "Hello", "start": 500, "end": 900, "confidence": 0.5},
                    {"text": "world.", "start": 950, "end": 1_200, "confidence": 0.5},
                ],
            }
        ]
    }


@pytest.mark.parametrize(("name", "nothing"), [("text", ""), ("srt", ""), ("vtt", "WEBVTT\n")])
def test_no_words(name, nothing):
    assert FORMATS[name]([]) == nothing


def test_speakers_have_lines_cues_and_voices_of_their_own():
    said = (("hi", "A"), ("there", "A"), ("yes", "B"))
    words = tuple(
        TurnWord(text, 400 * i, 400 * i + 300, 0.9, True, who) for i, (text, who) in enumerate(said)
    )
    turn = Turn(0, True, True, "hi there yes", "", 1.0, words, speaker_label="A")
    assert plain_lines(turn) == ["[turn 0] A: hi there", "[turn 0] B: yes"]
    assert spoken(turn).plain == "A hi there B yes "
    assert len({span.style for span in spoken(turn).spans}) == 2
    assert text([turn]) == "A: hi there\nB: yes\n"
    assert "A: hi there\n" in srt([turn])
    assert "<v B>yes\n" in vtt([turn])
    plain = json.loads(to_json([turn]))["turns"][0]
    assert plain["speaker"] == "A"
    assert [word["speaker"] for word in plain["words"]] == ["A", "A", "B"]
    changed = tuple(attrs.evolve(word, speaker="B") for word in words)
    revision = SpeakerRevision((RevisedTurn(0, "B", changed), RevisedTurn(7, "B", ())))
    assert text(revised([turn], revision)) == "B: hi there yes\n"
    assert plain_lines(revision)[0] == "[revised 0] B: hi there yes"


def chinese():
    return turn(*[("今天", i * 300, i * 300 + 300) for i in range(14)], ("好。", 4_200, 4_400))


def test_scripts_without_spaces_have_none_in_any_format():
    whole = "今天" * 14 + "好。"
    assert text([chinese()]) == whole + "\n"
    assert json.loads(to_json([chinese()]))["turns"][0]["transcript"] == whole
    for form in (srt, vtt):
        lines = [line for line in form([chinese()]).splitlines() if "今" in line]
        assert "".join(lines) == whole
        assert len(lines) == 2, "a Chinese character is as wide as two letters"
