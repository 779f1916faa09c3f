"""Words from tokens: the tokenizer's own text, final words that stay, times that run forward."""

from itertools import pairwise

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from ssasr.engine.fastconformer.config import FRAME, load_config
from ssasr.engine.fastconformer.detokenizer import PieceTable, Token, Transcript
from ssasr.protocol.recognition import Word
from tests.engine.fastconformer import reference

TOKENIZER = reference.tokenizer()
COUNT = len(TOKENIZER) - 1  # without the blank


@pytest.fixture(scope="module")
def pieces(english):
    return PieceTable.load(english[1], load_config(english[1]))


def token(text, place=0, confidence=0.5):
    return Token(TOKENIZER.convert_tokens_to_ids(text), place, confidence)


def said(transcript, **options):
    return [word.text for word in transcript.words(**options)]


@st.composite
def emissions(draw):
    """Tokens as a decoder emits them: frames never fall."""
    steps = draw(st.lists(st.tuples(st.integers(0, COUNT - 1), st.integers(0, 2)), max_size=30))
    place, tokens = 0, []
    for number, step in steps:
        place += step
        tokens.append(Token(number, place, 0.25 + 0.5 * (number % 2)))
    return tokens


def has_tags_or_bytes(tokens):
    return any("<" in TOKENIZER.convert_ids_to_tokens(t.token) for t in tokens)


@given(tokens=emissions())
@settings(deadline=None)
def test_text_is_the_tokenizer_s(pieces, tokens):
    transcript = Transcript(pieces, 0)
    transcript.extend(tokens)
    kept = [t for t in tokens if not has_tags_or_bytes([t])]
    if kept != tokens:
        transcript = Transcript(pieces, 0)
        transcript.extend(kept)
    expected = TOKENIZER.decode([t.token for t in kept], group_tokens=False)
    assert " ".join(said(transcript)) == " ".join(expected.split())


@given(tokens=emissions(), cut=st.integers(0, 30), end=st.integers(0, 70 * FRAME))
@settings(deadline=None)
def test_final_words_never_change_and_times_run_forward(pieces, tokens, cut, end):
    transcript = Transcript(pieces, 1_000)
    transcript.extend(tokens[:cut])
    early = [word for word in transcript.words() if word.final]
    transcript.extend(tokens[cut:])
    words = transcript.words()
    assert list(words[: len(early)]) == early
    assert all(word.final for word in words[:-1])
    for first, second in pairwise(words):
        assert 1_000 <= first.start < first.end <= second.start < second.end
    assert all(0.25 <= word.confidence <= 0.75 for word in words)
    end = max(end, words[-1].start - 900) if words else end
    final = transcript.words(end=end)
    assert [word.text for word in final] == [word.text for word in words]
    assert all(word.final for word in final)
    for first, second in pairwise(final):
        assert first.start < first.end <= second.start < second.end


@given(tokens=emissions(), frame=st.integers(0, 60))
@settings(deadline=None)
def test_taking_back_equals_never_having_emitted(pieces, tokens, frame):
    transcript, fresh = Transcript(pieces, 0), Transcript(pieces, 0)
    transcript.extend(tokens)
    transcript.go_back(frame, 0)
    fresh.extend([t for t in tokens if t.place < frame])
    assert transcript.words() == fresh.words()
    assert transcript.language == fresh.language


@given(tokens=emissions(), frame=st.integers(0, 60), at=st.integers(1, 60 * FRAME))
@settings(deadline=None)
def test_going_back_keeps_words_delivered_as_final(pieces, tokens, frame, at):
    transcript = Transcript(pieces, 0)
    transcript.extend(tokens)
    delivered = [word for word in transcript.words() if word.final and word.end <= at]
    transcript.go_back(frame, at)
    assert list(transcript.words(end=at)[: len(delivered)]) == delivered


CONVERTED = reference.converted_tokenizer(
    [("<unk>", 2), ("<s>", 3), ("</s>", 3), ("<pt-BR>", 4), ("<de>", 4)]
    + [(piece, 1) for piece in ("▁", "▁cat", "s", "▁a", "of", ".", "3", "é", "▁猫", "'")]
    + [("<0xC3>", 1), ("<0xA9>", 1), ("<pad>", 3)]
)


@pytest.fixture(scope="module")
def converted(english, tmp_path_factory):
    directory = tmp_path_factory.mktemp("converted")
    CONVERTED.save_pretrained(directory)
    blank = CONVERTED.convert_tokens_to_ids("<blank>")
    assert blank == len(CONVERTED) - 1
    config = evolve(load_config(english[1]), vocab_size=blank + 1, blank_token_id=blank)
    return PieceTable.load(directory, config)


@given(tokens=st.lists(st.integers(0, len(CONVERTED) - 1), max_size=20))
@settings(deadline=None)
def test_a_converted_tokenizer_is_read_as_the_library_reads_it(converted, tokens):
    """But for bytes, of which its decoder makes no characters, and for language tags."""
    names = CONVERTED.convert_ids_to_tokens(tokens)
    tokens = [t for t, name in zip(tokens, names, strict=True) if not name.startswith("<0x")]
    expected = CONVERTED.decode(tokens, group_tokens=False, skip_special_tokens=True)
    expected = expected.replace("<pt-BR>", "").replace("<de>", "")
    transcript = Transcript(converted, 0)
    transcript.extend([Token(token, place, 0.5) for place, token in enumerate(tokens)])
    assert " ".join(said(transcript, end=99 * FRAME)) == " ".join(expected.split())
    tags = [name[1:3] for name in names if name in ("<pt-BR>", "<de>")]
    assert transcript.language == (tags[-1] if tags else None)


def test_what_is_unknown_or_padding_is_no_language(converted):
    transcript = Transcript(converted, 0)
    names = ["▁cat", "<0xC3>", "<0xA9>", "<de>", "<unk>", "▁cat", "<pad>", "s", "</s>"]
    ids = CONVERTED.convert_tokens_to_ids(names)
    transcript.extend([Token(token, place, 0.5) for place, token in enumerate(ids)])
    assert said(transcript) == ["caté", "cats"]
    assert transcript.language == "de"


def test_a_character_of_several_bytes_waits_for_all_of_them(pieces):
    transcript = Transcript(pieces, 0)
    transcript.extend([token("▁cat"), token("<0xC3>", 1)])
    assert said(transcript) == ["cat"]
    transcript.extend([token("<0xA9>", 1)])
    assert said(transcript) == ["caté"]


def test_a_language_tag_is_no_word(pieces):
    transcript = Transcript(pieces, 0)
    transcript.extend([token("▁cat"), token("."), token("<en-US>", 3, 0.875)])
    assert said(transcript) == ["cat."]
    assert (transcript.language, transcript.language_confidence) == ("en", 0.875)
    transcript.extend([token("<de-DE>", 9)])
    assert transcript.language == "de"


def test_committed_words_replace_their_own_stretch(pieces):
    committed = (Word("CAT", 100, 100 + 2 * FRAME, 1.0, final=True),)
    transcript = Transcript(pieces, 100, committed)
    transcript.extend([token("▁cat"), token("s", 1), token("▁sat", 2), token("▁on", 4)])
    assert said(transcript) == ["CAT", "sat", "on"]


def test_end_of_turn_confidence_grows_with_silence_and_punctuation(pieces):
    transcript = Transcript(pieces, 0)
    assert transcript.end_of_turn_confidence(50) == 0.0
    transcript.extend([token("▁cat", 3)])
    plain = [transcript.end_of_turn_confidence(frames) for frames in (4, 8, 40)]
    assert plain == sorted(plain)
    assert plain[0] == 0.0
    assert plain[-1] < 0.5
    transcript.extend([token(".", 4), token("<en-US>", 4)])
    marked = [transcript.end_of_turn_confidence(frames) for frames in (5, 8, 40)]
    assert marked == sorted(marked)
    assert 0.5 <= marked[0] < marked[-1] <= 1.0
    transcript.extend([token("▁and", 6)])
    assert transcript.end_of_turn_confidence(8) < 0.5
