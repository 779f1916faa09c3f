"""What ``filter_profanity`` hides, and what it leaves alone."""

import pytest

from ssasr.protocol.messages import Turn
from ssasr.protocol.parameters import parse_parameters
from ssasr.protocol.settings import turn_settings
from ssasr.session.formatting import plain
from ssasr.session.profanity import hide, languages
from tests.session.test_turns import SECOND, Script, ends, session, speak, turns


def hidden(word, *languages):
    return hide(languages)(word)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Fuck!", "***!"),
        ("motherfuckers,", "***,"),
        ("“Bullshit”", "“***”"),
        ("mother-fucker", "***"),
        ("shit-show", "***"),
        ("fuckin'", "***'"),
        ("bitch's", "***'s"),
        ("and/or/shit", "and/or/***"),
    ],
)
def test_a_listed_word_is_hidden_and_its_punctuation_kept(text, shown):
    assert hidden(text, "en") == shown
    assert "*" in hidden(plain(text), "en")


INNOCENT = """
    Scunthorpe Matsushita shiitake class assassin Hitchcock cockpit Dickens analysis Essex Sussex
    therapist penistone cumulative title tit-for-tat password grape bass mishit bitcoin Whoriskey
    Tittensor shuttlecock puss-moth cockney niggling bassoon arsenal circumstance
"""


@pytest.mark.parametrize("text", INNOCENT.split())
def test_a_word_that_only_contains_one_is_left_alone(text):
    assert hidden(text, "en") == text


@pytest.mark.parametrize(
    ("code", "rude", "innocent"),
    [
        ("es", "jodidos", "ajo cono computa disputa negro caliente"),
        ("fr", "connards", "con conduire retard député reputé pédale"),
        ("it", "stronzate", "negro pene Troia figlio porco mero"),
        ("pt", "foderam", "computador cucu pica caminho deputado"),
        ("de", "verfickte", "Scheibe Marschall Barsch dick Mist knicken"),
        ("ru", "охуенно", "страхуй подстрахуй тебе себя небо учебу хлебать команда потребляют"),
    ],
)
def test_each_language_has_its_own(code, rude, innocent):
    assert hidden(rude, code) == "***"
    for word in innocent.split():
        assert hidden(word, code) == word
    assert hidden(rude, "en") == rude


def test_a_language_without_a_list_hides_nothing():
    assert languages() == {"en", "es", "fr", "it", "pt", "de", "ru"}
    assert hidden("fuck", "ja") == "fuck"
    assert hidden("fuck", "ja", "en") == "***"


RUDE = speak("This is bullshit, you know.")


@pytest.mark.parametrize(
    "query", ["", "format_turns=true", "speech_model=u3-rt-pro&min_turn_silence=100"]
)
def test_it_is_hidden_everywhere_and_the_times_stay(query):
    script = Script(RUDE, 5 * SECOND, confidence=0.5)
    shown, hidden = (turns(query + more, script) for more in ("", "&filter_profanity=true"))
    assert len(shown) == len(hidden)
    for before, after in zip(shown, hidden, strict=True):
        if isinstance(after, Turn):
            assert [(w.start, w.end) for w in before.words] == [
                (w.start, w.end) for w in after.words
            ]
            assert "bullshit" not in f"{after}".lower()
            expected = before.transcript.replace("bullshit", "***")
            assert after.transcript == expected
    assert "***" in ends(hidden)[-1].utterance + ends(hidden)[-1].transcript


def test_a_final_word_stays_as_it_was_sent_when_the_filter_comes_later():
    run = session("", Script(RUDE, 6 * SECOND, lag=1_600, confidence=0.0))
    changed = parse_parameters("filter_profanity=true")
    run.policy.configure(turn_settings(changed), at=3 * SECOND)
    (end,) = ends(run.run())
    assert end.transcript == "this is bullshit you know"
