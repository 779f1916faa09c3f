"""When a language is asked for, and what comes of the answers."""

import pytest

from ssasr.engine.whisper.language import ASK_AGAIN, SURE_AFTER, SURE_ANYHOW, SpokenLanguage

SECOND = SURE_AFTER


def _asked(language, seconds, answer):
    """Amounts of speech, in seconds, at which it is asked, with what is settled after each."""
    asked = []
    for spoken in range(0, seconds * SECOND, SECOND // 10):
        if language.due(spoken):
            language.found(*answer(spoken / SECOND), spoken)
            asked.append((spoken / SECOND, language.settled))
    return asked


def test_asked_until_sure_then_less_and_less_often():
    asked = _asked(SpokenLanguage(), 20, lambda at: ("de", 0.5 if at < 2 else 0.9))
    assert asked == [(1, None), (1.5, None), (2, "de"), (3, "de"), (4.5, "de")]
    assert ASK_AGAIN == SECOND // 2
    assert SURE_ANYHOW == 6 * SECOND


def test_one_that_is_as_sure_takes_the_place_of_the_settled_one():
    answers = {1: ("nl", 0.85), 1.5: ("de", 0.7), 2.3: ("de", 0.8), 3.5: ("nl", 0.79)}
    language, asked = SpokenLanguage(), []
    for at, answer in answers.items():
        assert language.due(int(at * SECOND))
        language.found(*answer, int(at * SECOND))
        asked.append((language.name, language.settled, language.confidence))
    assert asked == [("nl", "nl", 0.85), ("nl", "nl", 0.85), ("de", "de", 0.8), ("de", "de", 0.8)]


def test_in_the_end_the_likeliest_is_settled_and_none_is_asked_for_any_more():
    asked = _asked(SpokenLanguage(), 20, lambda at: ("sv", 0.3))
    assert asked[-1] == (6, "sv")
    assert all(settled is None for _, settled in asked[:-1])


def test_a_guess_counts_until_it_is_asked():
    language = SpokenLanguage()
    language.guessed("nl", 0.99)
    assert (language.name, language.settled) == ("nl", None)
    language.found("de", 0.6, SECOND)
    language.guessed("nl", 0.99)
    assert (language.name, language.settled) == ("de", None)


def test_little_speech_settles_nothing():
    language = SpokenLanguage()
    language.found("nl", 0.99, SECOND // 2)
    assert (language.name, language.settled) == ("nl", None)
    assert language.due(SECOND)


def test_after_a_rest_it_is_asked_for_again():
    language = SpokenLanguage("en")
    _asked(language, 20, lambda at: ("de", 0.9))
    language.begin_afresh()
    assert (language.before, language.settled) == ("de", "de")
    assert _asked(language, 20, lambda at: ("fr", 0.9))[0] == (1, "fr")


@pytest.mark.parametrize(("names", "settled"), [((), "de"), (("de", "en"), "de"), (("en",), None)])
def test_what_is_not_expected_any_more_does_not_stay(names, settled):
    language = SpokenLanguage()
    language.found("de", 0.9, SECOND)
    language.expect(names)
    assert language.settled == settled


def test_a_forced_language_is_none_that_was_found():
    language = SpokenLanguage()
    language.forced("ja")
    assert (language.name, language.confidence, language.settled) == ("ja", 1.0, None)
