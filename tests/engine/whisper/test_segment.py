"""The policy of one segment, with hypotheses written down by hand."""

import numpy as np
import pytest
from attrs import evolve

from ssasr.engine.whisper import excerpts
from ssasr.engine.whisper import segment as policy
from ssasr.engine.whisper.end_of_turn import evidence, likelihood
from ssasr.engine.whisper.hypothesis_alignment import without_squeezed
from ssasr.engine.whisper.placement import LEAD
from ssasr.engine.whisper.segment import CHUNK, STEP, Due, Kind
from ssasr.protocol.recognition import SAMPLE_RATE, Word
from tests.engine.whisper.segments import (
    SILENCE,
    SPEECH,
    advance,
    asking,
    feed,
    new_segment,
    receive,
    say,
)


def _decoded(segment, at, *words, kind=Kind.PARTIAL, reliable=True, unsure=()):
    """The committed words after a decode of the audio up to ``at`` seconds."""
    segment.due = Due(kind, segment.origin, int(at * SAMPLE_RATE))
    segment.apply(say(*words, unsure=unsure), reliable=reliable)
    return [word.text for word in segment.committed]


def _listening(mode):
    """A segment with four seconds of speech behind it."""
    segment = new_segment(mode=mode)
    receive(segment, 4, SPEECH)
    segment.speech_buffer.advance(segment.speech_buffer.received)
    return segment


def _result(*runs):
    """A segment that has received (seconds, probability), with nothing decoded."""
    segment = new_segment()
    for seconds, probability in runs:
        receive(segment, seconds, probability)
    segment.speech_buffer.advance(segment.speech_buffer.received)
    return segment


def test_silence_is_never_decoded_and_is_forgotten():
    segment = new_segment()
    assert feed(segment, 60, SILENCE) == []
    assert segment.advance(segment.position)[-1].words == ()
    assert len(segment.speech_buffer.recent(10**9)) <= LEAD


def test_speech_is_decoded_on_the_grid_and_once_when_it_stops():
    segment = new_segment(start=777)
    due = feed(segment, 3, SPEECH)
    assert [one.kind for one in due] == [Kind.PARTIAL] * len(due)
    assert [(one.end - 777) % policy.STEP for one in due] == [0] * len(due)
    assert np.diff([one.end for one in due]).tolist() == [policy.STEP] * (len(due) - 1)
    stopped = segment.speech_buffer.speech_end
    quiet = feed(segment, 3, SILENCE)
    assert [(one.kind, one.end) for one in quiet] == [(Kind.SETTLED, stopped + policy.RINGING)]


def test_a_longer_partial_interval_leaves_out_tentative_words_only():
    segment = new_segment()
    due = feed(segment, 6, SPEECH, interval=4)
    assert np.diff([one.end for one in due]).tolist() == [4 * policy.STEP] * (len(due) - 1)
    assert [one.kind for one in feed(segment, 1, SILENCE, interval=4)] == [Kind.SETTLED]


def test_a_click_is_not_a_word():
    segment = new_segment()
    segment.speech_buffer.receive(np.zeros(CHUNK, np.float32), [SILENCE, SPEECH, SILENCE])
    assert feed(segment, 12, SILENCE) == []
    assert len(segment.speech_buffer.recent(10**9)) <= LEAD + CHUNK


def test_every_chunk_has_one_answer_with_its_speech():
    segment = new_segment(start=5)
    receive(segment, 2, SPEECH)
    receive(segment, 2, SILENCE)
    _, answers = advance(segment)
    assert [one.position for one in answers] == list(range(5 + CHUNK, segment.position + 1, CHUNK))
    assert {len(one.speech) for one in answers} == {3}


def test_an_answer_waits_for_the_decode_that_it_tells_of():
    segment = new_segment()
    receive(segment, 1, SPEECH)
    before = segment.advance(None)
    assert segment.due is not None
    assert before[-1].position < segment.position
    segment.apply(say(("now", 0.1, 0.5)), reliable=True)
    answer = segment.advance(None)[0]
    assert [word.text for word in answer.words] == ["now"]
    assert answer.decoded == answer.position


def test_words_are_final_when_hypotheses_agree_and_audio_has_gone_on():
    segment = _result((3, SPEECH))
    said = ("one", 0.1, 0.4), ("two", 0.5, 0.8), ("three", 0.9, 1.2)
    assert _decoded(segment, 1.5, *said[:2]) == []
    # "one" and "two" agreed twice and lie far enough back; "three" was said once.
    assert _decoded(segment, 1.9, *said) == ["one", "two"]
    # Agreed upon, but too near the end.
    assert _decoded(segment, 2.05, *said) == ["one", "two"]
    assert _decoded(segment, 2.6, *said) == ["one", "two", "three"]
    assert all(word.final for word in segment.committed)


def test_casing_and_punctuation_are_no_disagreement_but_a_word_is():
    segment = _result((3, SPEECH))
    _decoded(segment, 2.0, ("so", 0.1, 0.3), ("long", 0.3, 0.5))
    assert _decoded(segment, 2.5, ("So,", 0.1, 0.3), ("wrong", 0.3, 0.5)) == ["So,"]


def test_a_hypothesis_that_was_cut_makes_nothing_final():
    segment = _result((3, SPEECH))
    for at in (1.5, 2.0, 2.5):
        assert _decoded(segment, at, ("so", 0.1, 0.3), reliable=False) == []


def test_a_rest_makes_everything_final_and_forgets_the_audio():
    segment = new_segment()
    feed(segment, 1, SPEECH)
    feed(segment, 12, SILENCE, decode=lambda due: say(("hello.", 0.2, 0.9)))
    assert [(word.text, word.final) for word in segment.words()] == [("hello.", True)]
    assert len(segment.speech_buffer.recent(10**9)) <= LEAD + CHUNK


def test_the_end_of_turn_is_judged_once_in_a_pause_when_its_words_are_there():
    segment = new_segment()
    feed(segment, 1, SPEECH)
    receive(segment, 1, SILENCE)
    judged = []
    for _ in range(9):
        segment.advance(None)
        if segment.end_of_turn_due:
            assert segment._settled()
            judged.append(segment.speech_buffer.silence)
            segment.set_evidence(0.7)
        elif segment.due is not None:
            segment.apply([], reliable=True)
    assert len(judged) == 1
    assert 0 <= judged[0] - segment.options.pause < CHUNK
    assert segment.evidence == 0.7
    feed(segment, 0.2, SPEECH)
    assert segment.evidence is None


def test_the_end_of_turn_is_the_likelier_the_longer_the_silence_is():
    segment = new_segment()
    feed(segment, 1, SPEECH)
    receive(segment, 1.5, SILENCE)
    _, answers = advance(segment)
    said = [one.end_of_turn_confidence for one in answers if one.end_of_turn_confidence]
    assert said == sorted(said)
    pause = segment.options.pause / SAMPLE_RATE
    assert likelihood(0.5, pause) <= said[0] <= likelihood(0.5, pause + 0.1)
    assert said[-1] == pytest.approx(likelihood(0.5, 1.5), abs=0.01)
    assert feed(segment, 0.3, SPEECH) == []
    assert advance(segment)[1] == []
    assert segment.evidence is None


def test_the_full_stop_and_the_sound_make_an_end_likelier():
    order = [(0.05, None), (0.05, -0.6), (0.05, -0.1), (0.95, -0.1)]
    odds = [evidence(sound, closing) for sound, closing in order]
    assert odds == sorted(odds)
    assert likelihood(odds[-1], 0.4) < 0.4 < likelihood(odds[-1], 0.7)
    assert likelihood(odds[0], 1.0) < 0.4 < likelihood(odds[0], 1.5)
    assert evidence(0.5, -9.0) == evidence(0.5, None)


def test_what_closes_a_text_is_the_mark_at_its_end():
    segment = new_segment()
    feed(segment, 1, SPEECH)
    assert segment.closing is None
    words = [evolve(one, closing=-0.3) for one in say(("well", 0.2, 0.5), ("yes.", 0.6, 0.9))]
    feed(segment, 0.3, SILENCE, decode=lambda due: words)
    assert segment.closing == -0.3
    segment.pending = say(("yes,", 0.2, 0.9))
    assert segment.closing is None


def test_the_end_takes_the_words_of_a_decode_that_covers_all_speech():
    segment = new_segment()
    feed(segment, 1, SPEECH)
    feed(segment, 0.5, SILENCE, decode=lambda due: say(("yes", 0.2, 0.9)))
    dues, answers = advance(segment, final_at=segment.position)
    assert dues == []
    assert [(word.text, word.final) for word in answers[-1].words] == [("yes", True)]


def test_the_end_decodes_speech_that_nothing_covered():
    segment = new_segment()
    feed(segment, 1, SPEECH)
    at = segment.position
    dues, answers = advance(segment, lambda due: say(("yes", 0.2, 0.9)), final_at=at)
    assert dues == [Due(Kind.FINAL, segment.origin, at)]
    assert [(word.text, word.final) for word in answers[-1].words] == [("yes", True)]


def test_words_at_the_end_lie_before_it():
    segment = new_segment()
    feed(segment, 2, SPEECH)
    hypothesis = say(("in", 0.2, 0.5), ("out", 1.5, 1.8))
    _, answers = advance(segment, lambda due: hypothesis, final_at=SAMPLE_RATE)
    assert [(word.text, word.final) for word in answers[-1].words] == [("in", True)]


@pytest.mark.parametrize(
    ("mode", "final"), [(None, 2), ("min_latency", 2), ("balanced", 2), ("max_accuracy", 3)]
)
def test_the_mode_says_how_often_a_word_must_be_found(mode, final):
    segment = _listening(mode)
    counts = [_decoded(segment, 3 + number / 4, ("ja", 0.5, 0.9)) for number in range(4)]
    assert counts.index(["ja"]) + 1 == final


@pytest.mark.parametrize(
    ("mode", "margin"), [("min_latency", 0.6), ("balanced", 0.9), ("max_accuracy", 1.2)]
)
def test_the_mode_says_how_far_from_the_end_of_speech_a_word_is_final(mode, margin):
    segment = _listening(mode)
    early, late = ("so", 1.2, 2.95 - margin), ("so", 1.2, 3.05 - margin)
    assert [_decoded(segment, 3, late) for _ in range(4)] == [[]] * 4
    assert _decoded(segment, 3, early) == ["so"]


def test_a_word_that_the_model_is_not_sure_of_is_soon_final_where_that_was_asked_for():
    for mode, final in (("min_latency", 2), ("balanced", 3), ("max_accuracy", 4)):
        segment, counts = _listening(mode), []
        for number in range(4):
            said = _decoded(segment, 3 + number / 2, ("ja", 0.5, 0.9), unsure=["ja"])
            counts.append(len(said))
        assert counts.index(1) + 1 == final


def test_the_first_word_of_a_turn_waits_for_more_speech_if_it_is_a_guess():
    for mode, final in (("min_latency", 1.5), ("balanced", 3.0)):
        segment, words = _listening(mode), (("like", 0.3, 0.6), ("your", 0.6, 0.9))
        for at in (1.0, 1.5, 2.0, 2.5, 3.0):
            if said := _decoded(segment, at, *words, unsure=["like"]):
                break
        assert at == final
        assert said == ["like", "your"]
        for at in (4.0, 4.5, 5.0):
            said = _decoded(segment, at, ("can", 2.5, 2.9), unsure=["can"])
        assert said == ["like", "your", "can"]


def test_a_mode_that_changes_holds_from_there_on():
    segment = _listening("max_accuracy")
    assert not _decoded(segment, 3, ("ja", 0.5, 0.9)) + _decoded(segment, 3.2, ("ja", 0.5, 0.9))
    segment.configure(evolve(segment.options, mode="min_latency"))
    assert _decoded(segment, 3.4, ("ja", 0.5, 0.9)) == ["ja"]


def test_words_that_the_client_has_stay_and_need_no_partials_again():
    said = [Word("so", 3_000, 8_000, 0.9, final=True), Word("far", 40_000, 64_000, 0.9, final=True)]
    segment = new_segment(committed=said, taken_over=9 * policy.STEP)
    dues = feed(segment, 6, SPEECH)
    assert dues[0].end == (9 - 2) * policy.STEP
    at = segment.position
    hypothesis = say(("So", 0.2, 0.5), ("far,", 2.5, 4.0), ("on", 5.0, 5.5))
    _, answers = advance(segment, lambda due: hypothesis, final_at=at)
    assert [word.text for word in answers[-1].words] == ["so", "far", "on"]


def test_a_language_is_asked_for_by_the_amount_of_speech():
    segment = new_segment(multilingual=True)
    asked, decode = asking(segment, lambda due: ("de", 0.9 if due.end > 2 * SAMPLE_RATE else 0.6))
    feed(segment, 8, SPEECH, decode=decode)
    assert {kind for kind, _ in asked} == {Kind.LANGUAGE}
    assert [round(end / SAMPLE_RATE, 1) for _, end in asked] == [1.1, 1.6, 2.2, 3.4, 5.1]
    assert segment.language.settled == "de"


def test_a_pause_settles_a_language_too():
    segment = new_segment(multilingual=True)
    asked, decode = asking(segment, lambda due: ("de", 0.9 if due.kind is Kind.SETTLED else 0.5))
    feed(segment, 1.1, SPEECH, decode=decode)
    assert not segment.language.settled
    feed(segment, 0.5, SILENCE, decode=decode)
    assert [kind for kind, _ in asked] == [Kind.LANGUAGE, Kind.SETTLED]
    assert segment.language.settled


def test_no_word_is_final_before_the_language_is_known():
    """Two hypotheses can agree on a word in the spelling of another language."""
    segment = new_segment(multilingual=True)
    hypothesis = say(("seguida", 0.2, 0.6))
    _, decode = asking(segment, lambda due: ("pt", 0.4), lambda due: hypothesis)
    feed(segment, 4, SPEECH, decode=decode)
    assert [(word.text, word.final) for word in segment.words()] == [("seguida", False)]
    _, decode = asking(segment, lambda due: ("es", 0.9), lambda due: hypothesis)
    feed(segment, 1, SPEECH, decode=decode)
    assert [(word.text, word.final) for word in segment.words()] == [("seguida", True)]


@pytest.mark.parametrize("multilingual", [False, True])
def test_a_word_that_the_model_is_not_sure_of_is_final_when_it_was_said_three_times(multilingual):
    said = [("ja", 0.1, 0.4), ("doch", 0.5, 0.8), ("nein", 0.9, 1.2)]
    segment = new_segment(multilingual=multilingual, languages=("de",))
    receive(segment, 4, SPEECH)
    segment.speech_buffer.advance(segment.speech_buffer.received)
    committed = []
    for at in (2.5, 3.0, 3.5):
        segment.due = Due(Kind.PARTIAL, 0, int(at * SAMPLE_RATE))
        segment.apply(say(*said, unsure=["doch"]), reliable=True)
        committed.append([word.text for word in segment.committed])
    assert committed == [[], ["ja"], ["ja", "doch", "nein"]]


def test_a_rest_does_not_wait_for_the_language():
    segment = new_segment(multilingual=True)
    said = say(("sì", 0.2, 0.6))
    _, decode = asking(segment, lambda due: ("it", 0.4), lambda due: said)
    feed(segment, 0.8, SPEECH, decode=decode)
    feed(segment, 2, SILENCE, decode=decode)
    assert [(word.text, word.final) for word in segment.words()] == [("sì", True)]
    assert not segment.language.settled
    asked, decode = asking(segment, lambda due: ("it", 0.9))
    feed(segment, 1.3, SPEECH, decode=decode)
    assert [kind for kind, _ in asked] == [Kind.LANGUAGE]


def test_words_in_the_making_settle_no_language():
    """A slower pace would settle another one."""
    segment = new_segment(multilingual=True)

    def decode(due):
        if due.kind is Kind.PARTIAL:
            segment.detected("nl", 0.99)
        return []

    feed(segment, 0.9, SPEECH, decode=decode)
    assert segment.language.name == "nl"
    assert not segment.language.settled


def test_a_long_excerpt_is_cut_in_its_last_silence():
    segment = new_segment()
    feed(segment, 4, SPEECH)
    feed(segment, 0.5, SILENCE)
    feed(segment, 5, SPEECH)
    assert segment.origin == 0
    said = say(("a", 3.0, 4.03), ("b", 4.52, 5.0), ("c", 6.0, 6.5))
    feed(segment, 0.3, SILENCE, decode=lambda due: said)
    assert 4.03 <= segment.origin / SAMPLE_RATE <= 4.52
    assert [(word.text, word.final) for word in segment.words()] == [
        ("a", True), ("b", False), ("c", False),
    ]  # fmt: skip


def test_a_crowded_excerpt_is_cut_before_a_word():
    segment = new_segment()
    words = [(f"w{n}", n + 0.1, n + 0.9) for n in range(12)]
    crowded = []

    def decode(due):
        if due.kind is Kind.CROWDED:
            crowded.append(due)
            return say(*words)
        return []

    feed(segment, 12.5, SPEECH, decode=decode)
    assert len(crowded) == 1
    cut = segment.origin / SAMPLE_RATE
    assert cut == pytest.approx(9.1)
    assert [word.text for word in segment.committed] == [f"w{n}" for n in range(9)]


@pytest.mark.parametrize("tentative", [False, True])
def test_audio_is_bounded_whatever_the_decoder_says(tentative):
    segment = new_segment(tentative=tentative)
    longest = (excerpts.TENTATIVE if tentative else excerpts.LIVE).crowded
    for _ in range(120):
        for due in feed(segment, 1, SPEECH):
            assert due.end - due.begin < longest + CHUNK
    kept = len(segment.speech_buffer.recent(10**9))
    assert kept < longest + max(policy.BACK, longest // 2) + CHUNK


def test_tentative_words_may_all_change_when_the_turn_ends():
    """What it ends with is one decode of all of it; words in the making come every 1.2 s."""
    segment = new_segment(tentative=True)
    before = say(("Gwen", 0.2, 0.6), ("of", 0.7, 0.9), ("Er", 1.0, 1.3))
    dues = feed(segment, 14, SPEECH, decode=lambda due: before)
    assert {due.kind for due in dues} == {Kind.PARTIAL}
    assert {due.begin for due in dues} == {0}
    assert {due.end % (2 * STEP) for due in dues} == {0}
    assert [(word.text, word.final) for word in segment.words()] == [
        ("Gwen", False), ("of", False), ("Er", False),
    ]  # fmt: skip
    after = say(("Gweniverr", 0.2, 1.3), ("called", 1.4, 2.0))
    receive(segment, 0.5, SILENCE)
    (settled,), _ = advance(segment, decode=lambda due: after)
    assert (settled.kind, settled.begin) == (Kind.SETTLED, 0)
    dues, answers = advance(segment, final_at=round(14.4 * SAMPLE_RATE))
    assert not dues
    assert [word.text for word in answers[-1].words] == ["Gweniverr", "called"]
    assert all(word.final for word in answers[-1].words)


CHAPTER = (("Chapter", 0.1, 0.6), ("34.", 0.6, 2.2))
"""Of "Chapter 34. Uncle Billy": the decoder takes the pause for the end."""
UNCLE = (("Uncle", 2.0, 2.6), ("Billy.", 2.6, 4.4))


def _ends_early(due):
    return say(*CHAPTER) if due.begin < 1.5 * SAMPLE_RATE else say(*UNCLE)


def test_what_a_decoder_leaves_out_after_a_pause_is_decoded_next():
    """Else all of it would be lost: each decode ends where the first did."""
    segment = _result((1.5, SPEECH), (0.5, SILENCE))
    receive(segment, 2.5, SPEECH)
    receive(segment, 0.3, SILENCE)
    dues, _ = advance(segment, _ends_early)
    settled, rest = dues[-2:]
    assert (settled.begin, rest) == (0, evolve(settled, begin=rest.begin, continues=True))
    assert 1.5 * SAMPLE_RATE <= rest.begin <= 2.0 * SAMPLE_RATE
    assert [word.text for word in segment.words()] == ["Chapter", "34.", "Uncle", "Billy."]
    assert segment.draft(settled) == (0, 1, 0, 1)


def test_what_a_decoder_leaves_out_is_not_lost_at_the_end():
    segment = _result((1.5, SPEECH), (0.5, SILENCE))
    receive(segment, 2.5, SPEECH)
    _, answers = advance(segment, _ends_early, final_at=segment.speech_buffer.received)
    assert [word.text for word in answers[-1].words] == ["Chapter", "34.", "Uncle", "Billy."]
    assert all(word.final for word in answers[-1].words)


def test_nothing_is_decoded_twice_for_a_word_or_for_noise_that_a_decoder_finds_no_words_in():
    segment = _result((1.5, SPEECH), (0.5, SILENCE), (0.8, SPEECH), (0.3, SILENCE))
    assert [due.continues for due in advance(segment, _ends_early)[0]] == [False]
    segment = _result((1.5, SPEECH), (0.5, SILENCE), (3, SPEECH), (0.3, SILENCE))
    assert [due.continues for due in advance(segment)[0]] == [False]


def test_words_without_audio_are_dropped_in_runs_only():
    said = say(
        ("and", 0.0, 0.3), ("the", 0.3, 0.32), ("gut", 0.32, 0.8), ("and", 0.8, 0.8001),
        ("the", 0.8001, 0.82), ("gut", 0.82, 0.8201), ("being", 0.83, 1.2),
    )  # fmt: skip
    kept = [spoken.word.text for spoken in without_squeezed(said)]
    assert kept == ["and", "the", "gut", "being"]


def test_borders_move_out_of_silence_and_words_stay_in_order():
    segment = _result((1, SPEECH), (1, SILENCE), (1, SPEECH))
    _decoded(segment, 3.0, ("before", 0.5, 1.9), ("after", 1.95, 2.6))
    before, later = segment.words()
    assert before.end <= 1.2 * SAMPLE_RATE
    assert later.start >= 1.8 * SAMPLE_RATE
    assert before.end <= later.start


def test_a_word_aligned_across_a_pause_keeps_the_side_with_most_speech():
    segment = _result((1, SPEECH), (1, SILENCE), (1, SPEECH))
    _decoded(segment, 3.0, ("early", 0.1, 0.9), ("late", 0.9, 2.6))
    early, late = segment.words()
    assert early.end == int(0.9 * SAMPLE_RATE)
    assert late.start >= 1.9 * SAMPLE_RATE
