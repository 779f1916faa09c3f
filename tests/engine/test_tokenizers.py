"""Whole characters, words with their punctuation, special tokens by name, three file layouts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssasr.engine.tokenizers import WhisperTokenizer, _byte_of_stand_in
from ssasr.errors import WeightsError

SPECIAL = ("endoftext", "startoftranscript", "en", "yue", "transcribe", "startofprev", "nospeech")


def _tokens():
    """All 256 bytes, a few merges, the special tokens."""
    stand_ins = {byte: character for character, byte in _byte_of_stand_in().items()}
    tokens = [stand_ins[byte] for byte in range(256)]
    tokens += ["Ġh", "Ġhe", "lo", "..", 'Ġ"']
    return dict(enumerate([*tokens, *(f"<|{n}|>" for n in (*SPECIAL, "notimestamps"))]))


@pytest.fixture(scope="module")
def tokenizer():
    return WhisperTokenizer(_tokens())


@given(st.text(max_size=30))
def test_bytes_round_trip(text):
    tokenizer = WhisperTokenizer(_tokens())
    assert tokenizer.decode(list(text.encode())) == text


@given(st.text(min_size=1, max_size=12))
def test_no_character_is_ever_split(text):
    """However many of the tokens are there, the text shown is a prefix in whole characters."""
    tokenizer = WhisperTokenizer(_tokens())
    tokens = list(text.encode())
    for count in range(len(tokens) + 1):
        groups = tokenizer.characters(tokens[:count])
        shown = "".join(tokenizer.decode(group) for group in groups)
        assert text.startswith(shown)
        assert "\ufffd" not in shown or "\ufffd" in text


def _words(tokenizer, text, language="en"):
    return [tokenizer.text(word) for word in tokenizer.words(list(text.encode()), language)]


def test_punctuation_stays_with_its_word(tokenizer):
    assert _words(tokenizer, ' Hello, "my friend" ... (no) well-known don\'t') == [
        "Hello,", '"my', 'friend"...', "(no)", "well-known", "don't",
    ]  # fmt: skip


def test_languages_without_spaces_have_a_word_a_character(tokenizer):
    assert _words(tokenizer, "你好,世界。", "zh") == ["你", "好,", "世", "界。"]


def test_special_tokens_say_nothing_and_have_names(tokenizer):
    end = 261
    assert tokenizer.end == end
    assert tokenizer.decode([104, end, 105]) == "hi"
    assert tokenizer.languages == {"en": end + 2, "yue": end + 3}


def test_encode_merges(tokenizer):
    assert tokenizer.decode(tokenizer.encode(" hello..")) == " hello.."
    assert tokenizer.encode(" he") == [257]


def test_a_vocabulary_without_a_special_token_is_refused():
    tokens = {n: text for n, text in _tokens().items() if text != "<|transcribe|>"}
    with pytest.raises(WeightsError, match="transcribe"):
        WhisperTokenizer(tokens)


def test_the_file_layouts_agree(tmp_path):
    tokens = _tokens()
    plain = {text: n for n, text in tokens.items() if not text.startswith("<|")}
    added = {text: n for n, text in tokens.items() if text.startswith("<|")}
    contents = {
        "tokenizer.json": json.dumps(
            {
                "model": {"vocab": plain},
                "added_tokens": [{"id": n, "content": text} for text, n in added.items()],
            }
        ),
        "vocabulary.json": json.dumps(list(tokens.values())),
        "vocabulary.txt": "\n".join(tokens.values()) + "\n",
        "vocab.json": json.dumps(plain),
    }
    whole = WhisperTokenizer(tokens)
    for name, content in contents.items():
        directory = tmp_path / name
        directory.mkdir()
        (directory / name).write_text(content, "utf-8")
        if name == "vocab.json":
            (directory / "added_tokens.json").write_text(json.dumps(added), "utf-8")
        loaded = WhisperTokenizer.load(directory)
        assert loaded.languages == whole.languages
        assert loaded.decode(range(261)) == whole.decode(range(261))


def test_a_directory_without_a_vocabulary_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="no vocabulary"):
        WhisperTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"tokenizer\.json"):
        WhisperTokenizer.load(tmp_path)
