"""The life of a turn, family by family, on a scripted engine."""

import itertools
from itertools import pairwise

import pytest
from attrs import evolve

from ssasr.protocol.client_link import ClientLink
from ssasr.protocol.messages import Silence, SpeechStarted, SpeechStopped, Turn
from ssasr.protocol.parameters import parse_parameters
from ssasr.protocol.recognition import VAD_FRAME, Final, Update, Word
from ssasr.protocol.settings import turn_settings
from ssasr.session.turns import Finalize, Send, TurnPolicy
from tests.harness.simulated_engine import Script, SimulatedSession

CHUNK = 2_560
SECOND = 16_000


def speak(text, start=8_000, length=4_800, gap=800):
    """One word after another; positions in samples."""
    words = []
    for part in text.split():
        words.append(Word(part, start, start + length, 0.8))
        start += length + gap
    return tuple(words)


def session(query, script, **options):
    policy = TurnPolicy(turn_settings(parse_parameters(query)), chunk=CHUNK)
    return SimulatedSession(policy, script, CHUNK, **options)


def turns(query, script, actions=(), **options):
    """The messages of a whole session, checked against the order rules of the wire."""
    messages = session(query, script, **options).run(actions)
    link = ClientLink(parse_parameters(query))
    link.begin("id", 1)
    for message in messages:
        link.send(message)
    return messages


def ends(messages):
    return [m for m in messages if isinstance(m, Turn) and m.end_of_turn]


HELLO = speak("Hello, world.")
TWICE = HELLO + speak("How's it going?", start=6 * SECOND)


def test_one_turn_of_family_u():
    messages = turns("", Script(HELLO, 5 * SECOND, confidence=0.9))
    assert [m.turn_order for m in messages] == [0] * len(messages)
    assert [m.end_of_turn for m in messages[-2:]] == [False, True]
    end = messages[-1]
    assert (end.transcript, end.utterance) == ("hello world", "hello world")
    assert not end.turn_is_formatted
    assert all(word.word_is_final for word in end.words)
    assert [(w.start, w.end) for w in end.words] == [(500, 800), (850, 1150)]
    assert end.end_of_turn_confidence == 0.9


def test_partials_show_the_whole_turn_and_the_transcript_only_what_is_final():
    messages = turns("", Script(HELLO, 5 * SECOND, confidence=0.0))
    first = messages[0]
    assert ([w.text for w in first.words], first.transcript) == (["hello"], "")
    assert any(m.transcript == "hello" and len(m.words) == 2 for m in messages[:-1])


def test_nothing_is_sent_twice():
    messages = turns("", Script(HELLO, 5 * SECOND, confidence=0.0))
    shown = [(m.end_of_turn, m.utterance, m.words) for m in messages]
    assert len(shown) == len(set(shown))


def test_semantic_end_comes_before_the_acoustic_one():
    def finalized(confidence, query=""):
        run = session(query, Script(HELLO, 5 * SECOND, confidence=confidence))
        run.run()
        return next(d.at for d in run.decisions if isinstance(d, Finalize))

    speech_end = HELLO[-1].end
    early, late = finalized(0.4), finalized(0.39)
    assert speech_end < early < speech_end + 0.6 * SECOND < late < speech_end + 1.5 * SECOND
    assert finalized(0.39, "end_of_turn_confidence_threshold=0") == early
    assert finalized(1.0, "end_of_turn_confidence_threshold=1") == late


def test_the_boundary_lies_inside_the_silence():
    run = session("min_turn_silence=100", Script(TWICE, 10 * SECOND, confidence=1.0))
    run.run()
    boundaries = [d.at for d in run.decisions if isinstance(d, Finalize)]
    assert len(boundaries) >= 3
    for at in boundaries:
        assert not any(word.start < at < word.end for word in TWICE)


def test_no_semantic_end_before_the_last_speech_is_decoded():
    policy = TurnPolicy(turn_settings(parse_parameters("")), chunk=8_192)
    words = (Word("so", 0, 4_000, 0.9),)
    quiet = (0.0,) * 16
    policy.update(Update(0, 8_192, (0.9,) * 16, words, 8_192, 1.0))
    policy.update(Update(0, 16_384, quiet[:3] + (0.9,) * 2 + quiet[5:], words, 8_192, 1.0))
    assert policy.update(Update(0, 24_576, quiet, words, 8_192, 1.0)) == []
    decided = policy.update(Update(0, 24_576, (), words, 24_576, 1.0))
    assert decided == [Finalize(0, 24_576 - 2_560)]


def test_speech_that_gave_no_words_yet_ends_acoustically_and_the_final_tells():
    script = Script(HELLO, 6 * SECOND, confidence=0.0, eager=False)
    (end,) = ends(turns("", script))
    assert end.transcript == "hello world"


def test_a_cough_ends_nothing():
    script = Script(HELLO, 14 * SECOND, noise=((5 * SECOND, 5 * SECOND + 6_000),), confidence=0.0)
    assert [end.turn_order for end in ends(turns("", script))] == [0]


def announced(script, query=""):
    """What is sent to a protocol that wants speech announced in family U."""
    settings = evolve(turn_settings(parse_parameters(query)), announce_speech=True)
    run = SimulatedSession(TurnPolicy(settings, chunk=CHUNK), script, CHUNK)
    return run.run()


def test_announced_speech_encloses_the_turn_in_family_u():
    messages = announced(Script(TWICE, 10 * SECOND, confidence=1.0))
    kinds = [type(m) for m in messages if not isinstance(m, Turn) or m.end_of_turn]
    assert kinds == [SpeechStarted, Turn, SpeechStopped] * len(ends(messages))
    assert len(ends(messages)) >= 2
    assert isinstance(messages[0], SpeechStarted), "before the first partial"
    starts = [m.timestamp for m in messages if isinstance(m, SpeechStarted)]
    stops = [m.timestamp for m in messages if isinstance(m, SpeechStopped)]
    assert all(start < stop for start, stop in zip(starts, stops, strict=True))


def test_an_announced_cough_is_over_after_the_silence():
    script = Script((), 8 * SECOND, noise=((2 * SECOND, 2 * SECOND + 8_000),), confidence=0.0)
    messages = announced(script, "max_turn_silence=500")
    assert [type(m) for m in messages] == [SpeechStarted, SpeechStopped]
    assert messages[1].timestamp < 3_300


def test_two_turns_count_and_never_go_back_in_time():
    messages = turns("", Script(TWICE, 10 * SECOND, confidence=0.9))
    assert [end.turn_order for end in ends(messages)] == [0, 1]
    assert ends(messages)[1].transcript == "how's it going"
    starts = [w.start for end in ends(messages) for w in end.words]
    assert starts == sorted(starts)


@pytest.mark.parametrize("position", [HELLO[0].end + 100, HELLO[1].start + 2_000, 3 * SECOND])
def test_force_ends_the_turn_without_waiting_for_audio(position):
    run = session("", Script(HELLO, position, confidence=0.0))
    run.run()
    assert ends(run.said)[-1].transcript in ("hello", "hello world")


def test_force_with_nothing_pending_says_nothing():
    messages = turns("", Script((), 3 * SECOND), [(SECOND, TurnPolicy.force)] * 3)
    assert messages == []


def test_force_after_a_silence_end_applies_to_what_follows():
    """The silence is decided at the last step before the forced end, whichever came first."""
    script = Script(HELLO, 5 * SECOND, confidence=0.9)
    run = session("", script)
    run.run()
    at = next(d.at for d in run.decisions if isinstance(d, Finalize))
    forced = turns("", script, [(at + 3_000, TurnPolicy.force)])
    assert forced == run.said


def test_utterance_at_a_pause_and_the_rest_at_the_end():
    words = speak("one two") + speak("three.", start=27_000)
    messages = turns("", Script(words, 5 * SECOND, confidence=0.0))
    utterances = [m.utterance for m in messages if m.utterance]
    assert utterances == ["one two", "three"]
    assert messages[-1].utterance == ""  # it came at the pause before the acoustic end


def test_format_turns_formats_the_end_and_nothing_else():
    messages = turns("format_turns=true", Script(HELLO, 5 * SECOND, confidence=0.9))
    assert [m.turn_is_formatted for m in messages] == [False] * (len(messages) - 1) + [True]
    assert messages[-1].transcript == messages[-1].utterance == "Hello, world."
    assert messages[-2].words[0].text == "hello"


def test_multilingual_is_formatted_as_it_comes():
    query = "speech_model=universal-streaming-multilingual&language_detection=true"
    messages = turns(query, Script(HELLO, 5 * SECOND, confidence=0.0))
    assert all(m.turn_is_formatted for m in messages)
    assert messages[-1].transcript == "Hello, world."
    shown = [(m.language_code, m.language_confidence) for m in messages]
    assert [bool(m.utterance) or m.end_of_turn for m in messages] == [
        c == ("en", 0.9) for c in shown
    ]


def test_language_is_not_sent_unasked():
    assert all(m.language_code is None for m in turns("", Script(HELLO, 5 * SECOND)))


def test_live_change_of_silence_holds_from_its_position_on():
    patient = turn_settings(parse_parameters("max_turn_silence=3000&format_turns=true"))

    def change(policy, at):
        policy.configure(patient, at)

    script = Script(HELLO, 6 * SECOND, confidence=0.0)
    run = session("", script)
    run.run([(HELLO[-1].end, change)])
    at = next(d.at for d in run.decisions if isinstance(d, Finalize))
    assert at > HELLO[-1].end + 2.5 * SECOND
    assert run.said[-1].turn_is_formatted


def test_family_p():
    query = "speech_model=u3-rt-pro"
    messages = turns(query, Script(TWICE, 10 * SECOND))
    assert [type(m) for m in messages].count(SpeechStarted) == 2
    assert messages[0] == SpeechStarted(480, 0.9)  # the frame in which the word begins
    first, second = ends(messages)
    assert (first.transcript, first.utterance) == ("Hello, world.", "Hello, world.")
    assert (first.turn_is_formatted, first.end_of_turn_confidence) == (True, 1.0)
    for partial in (m for m in messages if isinstance(m, Turn) and not m.end_of_turn):
        assert not any(w.word_is_final for w in partial.words)
        assert partial.transcript == " ".join(w.text for w in partial.words)
        assert (partial.utterance, partial.end_of_turn_confidence) == ("", 0.0)
        assert not partial.turn_is_formatted
    assert second.turn_order == 1


def test_family_p_ends_at_a_sentence_or_after_the_long_silence():
    def finalized(text, confidence=0.9):
        words = speak(text)
        script = Script(words, 6 * SECOND, confidence=confidence)
        run = session("speech_model=u3-rt-pro", script)
        run.run()
        return next(d.at for d in run.decisions if isinstance(d, Finalize)) - words[-1].end

    assert finalized("Good morning.") < 0.4 * SECOND < finalized("Good morning and")
    assert finalized("Well... ") > 0.4 * SECOND
    assert finalized("Good morning.", confidence=0.3) > 0.4 * SECOND


def test_family_p_partials_at_a_pause_and_while_somebody_speaks_on():
    words = speak(" ".join(["word"] * 40))
    script = Script(words, words[-1].end + 3 * SECOND)
    messages = turns("speech_model=u3-rt-pro", script)
    quiet = turns("speech_model=u3-rt-pro&continuous_partials=false", script)
    assert len(messages) > len(quiet) > 2
    ends = [m.words[-1].end for m in messages if isinstance(m, Turn) and not m.end_of_turn][1:]
    steps = [later - earlier for earlier, later in pairwise(ends)]
    assert 900 <= sum(steps) / len(steps) <= 1_200
    paused = Script(speak("one two") + speak("three", start=28_000), 5 * SECOND)
    partials = [m.transcript for m in turns("speech_model=u3-rt-pro", paused)[1:-1]]
    assert "One two" in partials


def test_speaker_labels_say_that_we_cannot_tell():
    messages = turns("speaker_labels=true", Script(HELLO, 5 * SECOND))
    assert {m.speaker_label for m in messages if m.end_of_turn} == {"UNKNOWN"}
    assert {m.speaker_label for m in messages if not m.end_of_turn} <= {None}


def test_without_partials_only_ends_are_sent():
    messages = turns("include_partial_turns=false", Script(TWICE, 10 * SECOND, confidence=0.9))
    assert [m.end_of_turn for m in messages] == [True, True]
    assert messages[0].utterance == "hello world"


def test_long_non_speech_lets_the_audio_go():
    run = session("", Script((), 35 * SECOND))
    run.run()
    finalized = [d.at for d in run.decisions if isinstance(d, Finalize)]
    starts = [0, *finalized]
    assert all(b - a <= 11 * SECOND for a, b in zip(starts, finalized, strict=False))
    assert run.said == []


def test_a_final_word_stays_whatever_the_engine_says():
    policy = TurnPolicy(turn_settings(parse_parameters("")), chunk=CHUNK)

    def words(position, *messages):
        decisions = policy.update(Update(0, position, (), messages, position))
        return [d.message.words for d in decisions if isinstance(d, Send)]

    ((sent,),) = words(2_560, Word("Hi", 100, 900, 0.5, True))
    assert words(5_120, Word("Ho", 50, 5_000, 0.9, True)) == []
    ((first, second),) = words(7_680, Word("Ha", 0, 10, 1.0, True), Word("you", 0, 100, 7.0))
    assert first == sent
    assert (second.start, second.end, second.confidence) == (first.start, first.end, 1.0)
    policy.force(7_680)
    (end,) = policy.final(Final(0, 7_680, ()))
    assert end.message.words == (sent,)


def test_words_that_were_only_punctuation_disappear():
    messages = turns("", Script(speak("— hi !"), 4 * SECOND))
    assert messages[-1].transcript == "hi"
    assert messages[-1].words[0].text == "hi"


def test_a_partial_that_came_to_nothing_uses_up_no_turn():
    query = "speech_model=u3-rt-pro&interruption_delay=0"
    policy = TurnPolicy(turn_settings(parse_parameters(query)), chunk=CHUNK)
    link = ClientLink(parse_parameters(query))
    link.begin("id", 1)
    loud = (0.9,) * 20
    decisions = policy.update(Update(0, 10_240, loud, (Word("uh", 0, 900, 0.5),), 10_240))
    decisions += policy.force(10_240) + policy.final(Final(0, 10_240, ()))
    word = Word("So.", 10_300, 12_000, 0.5)
    decisions += policy.update(Update(1, 20_480, loud, (word,), 20_480))
    decisions += policy.force(20_480) + policy.final(Final(1, 20_480, (word,)))
    messages = [d.message for d in decisions if isinstance(d, Send)]
    for message in messages:
        link.send(message)
    assert [type(m) for m in messages].count(SpeechStarted) == 1
    assert messages[-1].turn_order == 0


def test_updates_of_other_segments_and_old_updates_are_ignored():
    policy = TurnPolicy(turn_settings(parse_parameters("")), chunk=CHUNK)
    assert policy.final(Final(0, 100, (Word("a", 0, 1, 1.0),))) == []
    policy.update(Update(0, 5_120, (), (), 5_120))
    assert policy.update(Update(0, 2_560, (), (Word("a", 0, 1, 1.0),), 2_560)) == []
    assert policy.update(Update(3, 7_680, (), (Word("a", 0, 1, 1.0),), 7_680)) == []
    assert not policy.in_turn


def test_a_forced_end_waits_for_the_last_step_before_it():
    policy = TurnPolicy(turn_settings(parse_parameters("")), chunk=CHUNK)
    assert policy.settled(0)
    assert not policy.settled(1)
    policy.update(Update(0, 2_560, (0.9,) * 5, (), 2_560))
    assert policy.in_turn
    assert policy.force(5_120) == []
    assert policy.update(Update(0, 5_120, (0.9,) * 5, (), 5_120)) == [Finalize(0, 5_120)]
    policy.final(Final(0, 5_120, ()))
    assert policy.settled(5_120)
    assert not policy.in_turn


def test_voice_without_frames_falls_back_to_the_words():
    """An engine without a voice detector still ends turns."""
    policy = TurnPolicy(turn_settings(parse_parameters("")), chunk=CHUNK)
    words = (Word("hello", 1_000, 5_000, 0.9),)
    policy.update(Update(0, 8_000, (), words, 8_000))
    decided = policy.update(Update(0, 26_000, (), words, 26_000))
    assert Finalize(0, 26_000 - 2_560) in decided


def test_times_never_go_back_across_turns():
    """Whatever the engine says of the second turn."""
    policy = TurnPolicy(turn_settings(parse_parameters("")), chunk=CHUNK)
    policy.update(Update(0, 16_000, (), (), 16_000))
    policy.force(16_000)
    (first,) = policy.final(Final(0, 16_000, (Word("one", 1_600, 14_400, 0.5),)))
    policy.force(17_600)
    (second,) = policy.final(Final(1, 17_600, (Word("two", 0, 100, 0.5),)))
    (one,), (two,) = first.message.words, second.message.words
    assert (one.start, one.end) == (100, 900)
    assert (two.start, two.end) == (100, 900)


def test_silence_is_acknowledged_about_once_a_second_when_asked_for():
    script = Script(HELLO, 6 * SECOND, confidence=1.0)
    messages = turns("acknowledge_silence=true", script)
    silences = [m for m in messages if isinstance(m, Silence)]
    assert not any(isinstance(m, Silence) for m in turns("", script))
    assert {m.start_ms for m in silences} == {1_440}  # where the turn ended
    ends_at = [m.end_ms for m in silences]
    assert len(ends_at) == 4
    assert all(1_000 <= b - a < 1_200 for a, b in itertools.pairwise(ends_at))
    assert messages.index(silences[0]) > messages.index(ends(messages)[0])


def test_an_engine_that_skips_a_step_does_not_swallow_a_forced_end():
    policy = TurnPolicy(turn_settings(parse_parameters("")), chunk=CHUNK)
    assert policy.force(6_000) == []
    late = (Word("later", 7_000, 7_600, 0.9),)
    assert policy.update(Update(0, 7_680, (0.9,) * 15, late, 7_680)) == [Finalize(0, 6_000)]
    assert policy.final(Final(0, 6_000, ())) == []
    assert policy.settled(6_000)


@pytest.mark.parametrize(("gap_at", "expected"), [(None, 330), (200, 330), (310, 310)])
def test_a_turn_without_a_pause_is_ended_in_a_gap_or_at_last_without(gap_at, expected):
    """``gap_at``: the second in which there are 160 ms without speech."""
    policy = TurnPolicy(turn_settings(parse_parameters("max_turn_silence=400")), chunk=2_048)
    words = (Word("la", 0, 1_600, 0.9),)
    for position in range(2_048, 340 * SECOND, 2_048):
        gap = gap_at is not None and gap_at * SECOND <= position < gap_at * SECOND + 4_096
        update = Update(0, position, (0.0 if gap else 0.9,) * 4, words, position, 0.0)
        cut = [d.at for d in policy.update(update) if isinstance(d, Finalize)]
        if cut:
            assert abs(cut[0] - expected * SECOND) <= 4_096
            return
    pytest.fail("the turn went on")


def monologue(gap):
    return speak("word " * 40, length=4_800, gap=gap)


@pytest.mark.parametrize(
    "query", ["max_turn_duration=4", "max_turn_duration=4&speech_model=u3-pro"]
)
def test_a_turn_ends_at_its_longest_duration(query):
    """Ten seconds without a gap; no word is lost or said twice."""
    script = Script(monologue(0), 15 * SECOND, confidence=0.0)
    run = session(query, script)
    messages = ends(run.run())
    first = next(d.at for d in run.decisions if isinstance(d, Finalize))
    assert 4 * SECOND <= first - script.words[0].start // VAD_FRAME * VAD_FRAME < 4 * SECOND + CHUNK
    assert len(messages) == 3
    assert sum(len(turn.words) for turn in messages) == 40


def test_it_ends_at_a_gap_shortly_before_if_there_is_one():
    script = Script(monologue(4_000), 25 * SECOND, confidence=0.0)
    run = session("max_turn_duration=4", script)
    run.run()
    first = next(d.at for d in run.decisions if isinstance(d, Finalize))
    assert first > 8_000 + 3.5 * SECOND - CHUNK
    assert first < 8_000 + 4 * SECOND
    assert not any(word.start < first < word.end for word in script.words)


def test_a_turn_of_family_p_ends_after_a_minute():
    script = Script(speak("word " * 250, length=4_800, gap=0), 80 * SECOND, confidence=0.0)
    first, second = ends(turns("speech_model=u3-rt-pro", script))
    assert first.words[-1].end - first.words[0].start == pytest.approx(60_000, abs=500)
    assert len(first.words) + len(second.words) == 250
