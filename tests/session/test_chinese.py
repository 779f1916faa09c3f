"""Simplified or Traditional, as the client's language code asks, and nothing where none asks."""

import sys
from types import SimpleNamespace

import pytest

from ssasr.protocol.chinese import HONG_KONG, SIMPLIFIED, TAIWAN, TRADITIONAL, written_chinese
from ssasr.protocol.messages import Turn, UpdateConfiguration
from ssasr.protocol.parameters import parse_parameters
from ssasr.protocol.settings import turn_settings
from ssasr.session import chinese
from tests.session.test_turns import SECOND, Script, ends, session, speak

MIXED = "發現 头发 台灣"
MULTILINGUAL = "speech_model=universal-streaming-multilingual"


def said(query, language="zh"):
    messages = session(
        query, Script(speak(MIXED), 4 * SECOND, confidence=1.0, language=language)
    ).run()
    assert any(isinstance(message, Turn) for message in messages)
    return [turn.transcript for turn in ends(messages)]


@pytest.mark.parametrize(
    ("codes", "written"),
    [
        (["zh"], SIMPLIFIED),
        (["zh-CN"], SIMPLIFIED),
        (["en", "zh-Hans"], SIMPLIFIED),
        (["zh-TW"], TAIWAN),
        (["zh_hk"], HONG_KONG),
        (["zh-Hant"], TRADITIONAL),
        (["zh-Hant-HK"], HONG_KONG),
        (["yue"], HONG_KONG),
        (["en", "ja"], None),
        (["multi"], None),
        ([], None),
    ],
)
def test_which_characters_a_code_asks_for(codes, written):
    assert written_chinese(codes) == written


@pytest.mark.parametrize(
    "query", ["language_code=zh-TW", "language=zh-TW", "language_codes=[%22zh-TW%22]"]
)
def test_every_name_of_the_parameter_asks(query):
    parameters = parse_parameters(f"{MULTILINGUAL}&{query}")
    assert parameters.chinese == TAIWAN
    assert "zh" in parameters.languages
    changed = parameters.updated(UpdateConfiguration(language_codes=("zh",)))
    assert turn_settings(changed).chinese == SIMPLIFIED


@pytest.mark.parametrize(
    ("code", "text"),
    [("zh", "发现头发台湾"), ("zh-TW", "發現頭髮臺灣"), ("zh-Hant", "發現頭髮臺灣")],
)
def test_all_of_a_session_is_written_in_one_way(code, text):
    pytest.importorskip("opencc")
    query = f"{MULTILINGUAL}&language_codes=[%22{code}%22]"
    assert said(query) == [text]


@pytest.mark.parametrize("model", ["universal-streaming-multilingual", "u3-rt-pro"])
def test_a_character_may_depend_on_the_words_beside_it(model):
    pytest.importorskip("opencc")
    query = f"speech_model={model}&language_codes=[%22zh-TW%22]"
    script = Script(speak("头 发 很 发 现 ok"), 6 * SECOND, confidence=1.0, language="zh")
    messages = [m for m in session(query, script).run() if isinstance(m, Turn)]
    assert [word.text for word in messages[-1].words] == ["頭", "髮", "很", "發", "現", "ok"]
    final: dict[int, str] = {}
    for turn in messages:
        for number, word in enumerate(turn.words):
            if word.word_is_final:
                assert final.setdefault(number, word.text) == word.text


class Doubling:
    """A converter with phrases of another length."""

    def __init__(self, configuration):
        pass

    def convert(self, text):
        return text if len(text) == 1 else 2 * text


def test_a_phrase_of_another_length_is_converted_word_by_word(monkeypatch):
    chinese.convert_to.cache_clear()
    monkeypatch.setitem(sys.modules, "opencc", SimpleNamespace(OpenCC=Doubling))
    convert = chinese.convert_to(TAIWAN)
    assert convert(["头", "发"]) == ["头", "发"]
    assert convert(["only", "ASCII"]) == ["only", "ASCII"]
    chinese.convert_to.cache_clear()


def test_where_nothing_asks_the_text_is_the_models():
    assert said(MULTILINGUAL) == [MIXED.replace(" ", "")]


def test_without_the_extra_the_text_is_the_models(monkeypatch):
    chinese.convert_to.cache_clear()
    monkeypatch.setitem(sys.modules, "opencc", None)
    assert chinese.convert_to(TAIWAN) is None
    chinese.convert_to.cache_clear()


def test_japanese_keeps_its_own_characters():
    query = f"{MULTILINGUAL}&language_codes=[%22zh%22,%22ja%22]"
    assert said(query, "ja") == [MIXED.replace(" ", "")]
