"""Transcripts of scripts without spaces, as clients are shown them."""

import pytest

from ssasr.protocol.recognition import Word
from ssasr.session.transcript import Transcript


def words(*texts, final=True):
    return tuple(Word(t, i * 1_600, i * 1_600 + 1_600, 0.9, final) for i, t in enumerate(texts))


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        (("今天", "天气", "很好。"), "今天天气很好。"),
        (("いい", "天気", "です。"), "いい天気です。"),
        (("สวัสดี", "ครับ"), "สวัสดีครับ"),
        (("Nice", "weather."), "Nice weather."),
    ],
)
def test_words_are_joined_as_their_script_is_written(texts, joined):
    transcript = Transcript()
    transcript.update(words(*texts))
    transcript.words(formatted=True, finality=True)
    assert transcript.final_text == joined
    assert transcript.new_utterance(formatted=True) == joined
