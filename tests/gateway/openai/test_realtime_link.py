"""OpenAI's realtime protocol as a machine: what each event means, and that any order of them ends
in a documented answer."""

import base64
import json

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from ssasr.gateway.openai.json_object import Refused
from ssasr.gateway.openai.models import ModelNames
from ssasr.gateway.openai.realtime_link import HANDLERS, MOST_UNSENT, RealtimeLink
from ssasr.protocol.client_link import (
    MESSAGE_LIMIT,
    AudioReceived,
    ConfigurationUpdated,
    EndpointForced,
)
from ssasr.protocol.close_codes import CloseCode
from ssasr.protocol.faults import ClientFault
from ssasr.protocol.limits import DAY_MS
from ssasr.protocol.messages import (
    Answered,
    Begin,
    EndpointReached,
    Error,
    Silence,
    SpeechStarted,
    SpeechStopped,
    Termination,
    Turn,
    TurnWord,
)
from ssasr.protocol.speech_models import EngineKind

BOTH = ModelNames((EngineKind.ENGLISH, EngineKind.MULTILINGUAL), {"ours": "whisper-rt"})
TRANSCRIPTION = "conversation.item.input_audio_transcription"


def begun(settings=None, models=BOTH):
    """A link whose session has begun."""
    link = RealtimeLink("an-id", 1_700_000_000, models)
    if settings is not None:
        answer = json.loads(link.configure(update(**settings)))
        assert answer["type"] == "session.updated", answer
    link.settle()
    return link


def update(**audio_input):
    session = {"type": "transcription", "audio": {"input": audio_input}}
    return json.dumps({"type": "session.update", "session": session})


def event(kind, **fields):
    return json.dumps({"type": f"input_audio_buffer.{kind}", **fields})


def append(seconds):
    audio = bytes(int(48_000 * seconds))
    return event("append", audio=base64.b64encode(audio).decode())


def said(link, *messages):
    return [json.loads(frame) for message in messages for frame in link.frames(message)]


def answers(link, frame):
    """What the client is answered, and what else follows."""
    found, rest = [], []
    for each in link.receive(frame):
        (found.extend(said(link, each)) if isinstance(each, Answered) else rest.append(each))
    return found, rest


def turn(*texts, final=None, end=False, order=0, language=None):
    final = len(texts) if final is None else final
    words = tuple(
        TurnWord(text, 100 * index, 100 * index + 90, 0.5, index < final)
        for index, text in enumerate(texts)
    )
    transcript = " ".join(texts[:final])
    return Turn(order, True, end, transcript, "", 0.0, words, language)


def test_created_says_what_the_session_is():
    created = json.loads(RealtimeLink("an-id", 1_700_000_000, BOTH).created())
    session = created["session"]
    assert created["type"] == "session.created"
    assert (session["type"], session["expires_at"]) == ("transcription", 1_700_000_000)
    assert session["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24_000}
    assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"


def test_a_turn_that_the_server_commits():
    link = begun()
    events = said(
        link,
        Begin("an-id", 1),
        SpeechStarted(1_000, 0.9),
        turn("so", "we"),
        turn("so", "we", "went", final=2),
        turn("so", "we", "went.", end=True, language="en"),
        SpeechStopped(2_500),
        Termination(2, 2),
    )
    assert [each["type"] for each in events] == [
        "input_audio_buffer.speech_started",
        f"{TRANSCRIPTION}.delta",
        f"{TRANSCRIPTION}.delta",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        f"{TRANSCRIPTION}.completed",
    ]
    assert len({each["event_id"] for each in events}) == len(events)
    assert len({each["item_id"] for each in events}) == 1
    assert events[0]["audio_start_ms"] == 700, "the padding is part of it"
    assert events[1]["delta"] + events[2]["delta"] == "so we went." == events[5]["transcript"]
    assert events[5]["usage"] == {"type": "duration", "seconds": 1.5}
    assert events[5]["languages"] == [{"code": "en"}]


def test_speech_without_words_is_completed_too():
    events = said(begun(), SpeechStarted(0, 0.9), SpeechStopped(900))
    assert [each["type"].rpartition(".")[2] for each in events] == [
        "speech_started", "speech_stopped", "committed", "completed",
    ]  # fmt: skip
    assert events[-1]["transcript"] == ""


def test_items_follow_each_other():
    link = begun()
    first = said(link, SpeechStarted(0, 0.9), turn("a", end=True), SpeechStopped(900))
    second = said(link, SpeechStarted(2_000, 0.9), turn("b", end=True), SpeechStopped(2_900))
    commits = [each for each in first + second if each["type"].endswith("committed")]
    assert commits[0]["previous_item_id"] is None
    assert commits[1]["previous_item_id"] == commits[0]["item_id"] != commits[1]["item_id"]


def test_a_commit_of_the_clients_is_answered_at_once_and_completed_when_all_is_said():
    link = begun({"turn_detection": None})
    link.receive(append(0.5))
    said_before = said(link, turn("one", "two", final=1))
    answered, rest = answers(link, event("commit"))
    assert rest == [EndpointForced(acknowledged=True)]
    assert [each["type"] for each in answered] == ["input_audio_buffer.committed"]
    link.receive(append(0.25))
    answered_next, _ = answers(link, event("commit"))
    events = said(link, turn("one", "two", end=True), EndpointReached(), EndpointReached())
    assert [each.get("delta") for each in said_before + events] == ["one", " two", None, None]
    assert events[1]["transcript"] == "one two"
    assert events[1]["item_id"] == answered[0]["item_id"] == said_before[0]["item_id"]
    assert events[1]["usage"]["seconds"] == 0.5
    assert events[2]["transcript"] == "", "every commit has an end"
    assert events[2]["item_id"] == answered_next[0]["item_id"]


def test_an_item_of_several_turns_is_one_transcript():
    link = begun({"turn_detection": None})
    link.receive(append(1))
    events = said(link, turn("one.", end=True), turn("two.", end=True, order=1))
    link.receive(event("commit"))
    (completed,) = said(link, EndpointReached())
    assert "".join(each["delta"] for each in events) == "one. two." == completed["transcript"]


def test_what_was_cleared_is_not_said():
    link = begun({"turn_detection": None})
    assert answers(link, event("clear"))[1] == [], "there is nothing to end"
    link.receive(append(1))
    answered, rest = answers(link, event("clear"))
    assert [each["type"] for each in answered] == ["input_audio_buffer.cleared"]
    assert rest == [EndpointForced(acknowledged=True)]
    assert said(link, turn("one", end=True), EndpointReached()) == []


def test_a_commit_of_next_to_nothing_is_a_mistake():
    link = begun({"turn_detection": None})
    link.receive(append(0.099))
    (answer,), rest = answers(link, event("commit", event_id="mine"))
    assert rest == []
    assert answer["error"]["code"] == "input_audio_buffer_commit_empty"
    assert answer["error"]["event_id"] == "mine"


def test_words_and_logprobs_where_they_are_asked_for():
    link = RealtimeLink("an-id", 1, BOTH)
    include = [f"item.input_audio_transcription.{name}" for name in ("logprobs", "words")]
    session = {"type": "transcription", "include": include}
    link.configure(json.dumps({"type": "session.update", "session": session}))
    link.settle()
    events = said(
        link, SpeechStarted(0, 0.9), turn("so"), turn("so", "it", end=True), SpeechStopped(9)
    )
    deltas = [each for each in events if each["type"].endswith("delta")]
    completed = events[-1]
    assert [len(each["logprobs"]) for each in deltas] == [1, 1]
    assert completed["logprobs"] == deltas[0]["logprobs"] + deltas[1]["logprobs"]
    assert completed["logprobs"][1] == {"token": "it", "bytes": [105, 116], "logprob": -0.6931}
    assert completed["words"][1] == {"word": "it", "start": 0.1, "end": 0.19}


def test_silence_of_the_length_asked_for_is_an_item():
    detection = {"type": "server_vad", "idle_timeout_ms": 6_000}
    link = begun({"turn_detection": detection})
    assert link.settings.parameters(link.engine).acknowledge_silence
    assert said(link, Silence(0, 5_000)) == []
    over, committed, completed = said(link, Silence(0, 6_000))
    assert over["type"] == "input_audio_buffer.timeout_triggered"
    assert (over["audio_start_ms"], over["audio_end_ms"]) == (0, 6_000)
    assert over["item_id"] == committed["item_id"] == completed["item_id"]
    assert (completed["transcript"], completed["usage"]["seconds"]) == ("", 6)
    assert said(link, Silence(0, 12_000)) == [], "once"
    said(link, SpeechStarted(12_500, 0.9), turn("a", end=True), SpeechStopped(14_000))
    assert len(said(link, Silence(14_000, 21_000))) == 3


def test_silence_is_not_reported_to_who_does_not_ask():
    link = begun()
    assert not link.settings.parameters(link.engine).acknowledge_silence
    assert said(link, Silence(0, 60_000)) == []


def test_segments_say_who_speaks_where_the_model_promises_it():
    link = begun({"transcription": {"model": "gpt-4o-transcribe-diarize"}})
    assert link.settings.parameters(link.engine).speaker_labels
    spoken = [("so", "A"), ("it", "A"), ("is", "B")]
    words = tuple(
        TurnWord(text, 100 * at, 100 * at + 90, 0.9, True, speaker)
        for at, (text, speaker) in enumerate(spoken)
    )
    ended = evolve(turn("so", "it", "is", end=True), words=words)
    events = said(link, SpeechStarted(0, 0.9), ended)
    segments = [each for each in events if each["type"] == f"{TRANSCRIPTION}.segment"]
    assert [(each["text"], each["speaker"]) for each in segments] == [("so it", "A"), ("is", "B")]
    assert [(each["start"], each["end"]) for each in segments] == [(0, 0.19), (0.2, 0.29)]
    assert len({each["id"] for each in segments}) == 2
    assert not [each for each in said(begun(), turn("a", end=True)) if "segment" in each["type"]]


@pytest.mark.parametrize(
    ("transcription", "engine", "languages"),
    [
        ({}, EngineKind.MULTILINGUAL, ()),
        ({"model": "gpt-4o-transcribe", "language": "en"}, EngineKind.ENGLISH, ()),
        ({"model": "whisper-1", "language": "de"}, EngineKind.MULTILINGUAL, ("de",)),
        ({"model": "gpt-transcribe", "languages": ["en", "es"]}, EngineKind.MULTILINGUAL,
         ("en", "es")),
        ({"model": "universal-streaming-english"}, EngineKind.ENGLISH, ()),
        ({"model": "ours"}, EngineKind.MULTILINGUAL, ()),
    ],
)  # fmt: skip
def test_the_model_and_the_language_choose_the_engine(transcription, engine, languages):
    link = RealtimeLink("an-id", 1, BOTH)
    link.configure(update(transcription=transcription))
    parameters = link.settle()
    assert (link.engine, parameters.languages) == (engine, languages)


def test_one_engine_serves_what_names_no_language():
    english = ModelNames((EngineKind.ENGLISH,))
    assert begun(models=english).engine is EngineKind.ENGLISH
    link = RealtimeLink("an-id", 1, english)
    answer = json.loads(link.configure(update(transcription={"language": "de"})))
    assert answer["error"]["code"] == "invalid_value"
    assert answer["error"]["param"].endswith(".transcription.language")


def settled(**audio_input):
    link = RealtimeLink("an-id", 1, BOTH)
    assert json.loads(link.configure(update(**audio_input)))["type"] == "session.updated"
    return link.settle()


def test_turn_detection_becomes_silences():
    by_silence = settled(turn_detection={"type": "server_vad", "silence_duration_ms": 350})
    assert (by_silence.min_turn_silence, by_silence.max_turn_silence) == (350, 350)
    assert by_silence.end_of_turn_confidence_threshold == 1
    by_meaning = settled(turn_detection={"type": "semantic_vad", "eagerness": "high"})
    assert (by_meaning.min_turn_silence, by_meaning.max_turn_silence) == (160, 2_000)
    assert by_meaning.end_of_turn_confidence_threshold == 0.2
    by_client = settled(turn_detection=None)
    assert by_client.max_turn_silence == DAY_MS
    assert (by_silence.announce_speech, by_client.announce_speech) == (True, False)


def test_models_whose_clients_commit_are_not_ended_by_silence():
    assert not settled(transcription={"model": "gpt-realtime-whisper"}).announce_speech
    detection = {"type": "server_vad"}
    both = {"transcription": {"model": "gpt-realtime-whisper"}, "turn_detection": detection}
    assert settled(**both).announce_speech


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("audio/pcm", "pcm_s16le"), ("audio/pcmu", "pcm_mulaw"), ("audio/pcma", "pcm_alaw")],
)
def test_formats(name, encoding):
    parameters = settled(format={"type": name})
    assert parameters.encoding == encoding
    assert parameters.sample_rate == (24_000 if encoding == "pcm_s16le" else 8_000)


@pytest.mark.parametrize(
    ("audio_input", "param"),
    [
        ({"format": {"type": "audio/mp3"}}, "session.audio.input.format.type"),
        ({"format": {"type": "audio/pcm", "rate": 16_000}}, "session.audio.input.format.rate"),
        ({"format": "pcm16"}, "session.audio.input.format"),
        ({"turn_detection": {"type": "none"}}, "session.audio.input.turn_detection.type"),
        ({"turn_detection": {"type": "server_vad", "threshold": 2}},
         "session.audio.input.turn_detection.threshold"),
        ({"turn_detection": {"type": "server_vad", "silence_duration_ms": True}},
         "session.audio.input.turn_detection.silence_duration_ms"),
        ({"noise_reduction": {"type": "quiet"}}, "session.audio.input.noise_reduction.type"),
        ({"transcription": {"model": "nobodys"}}, "session.audio.input.transcription.model"),
        ({"transcription": {"language": "??"}}, "session.audio.input.transcription"),
        ({"transcription": {"keywords": [1]}}, "session.audio.input.transcription.keywords"),
        ({"transcription": {"keywords": ["x"] * 101}}, "session.audio.input.transcription"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named_and_changes_nothing(audio_input, param):
    link = begun({"turn_detection": None})
    before = link.settings
    (answer,), rest = answers(link, update(**audio_input))
    assert (answer["type"], answer["error"]["param"]) == ("error", param)
    assert rest == []
    assert link.settings == before


def test_a_change_while_it_runs():
    link = begun({"transcription": {"language": "de"}})
    (answer,), (changed,) = answers(link, update(transcription={"language": "fr"}))
    assert answer["session"]["audio"]["input"]["transcription"]["language"] == "fr"
    assert isinstance(changed, ConfigurationUpdated)
    assert changed.parameters.languages == ("fr",)
    (answer,), rest = answers(link, update(format={"type": "audio/pcmu"}))
    assert answer["error"]["param"] == "session.audio.input.format"
    assert rest == []


def test_an_english_session_stays_one():
    link = begun({"transcription": {"language": "en"}})
    assert len(answers(link, update(transcription={"prompt": "names"}))[1]) == 1
    (answer,), rest = answers(link, update(transcription={"language": "de"}))
    assert answer["error"]["param"] == "session.audio.input.transcription"
    assert rest == []


def test_long_audio_goes_on_in_pieces():
    events = begun().receive(append(2.5))
    assert [len(each.data) for each in events] == [48_000, 48_000, 24_000]


def test_a_frame_beyond_the_limit_ends_the_session():
    with pytest.raises(ClientFault) as fault:
        begun().receive("x" * (MESSAGE_LIMIT + 1))
    assert fault.value.code is CloseCode.MESSAGE_TOO_BIG


def test_a_client_that_does_not_read_its_answers_is_given_up():
    link = begun()
    with pytest.raises(ClientFault):
        for _ in range(MOST_UNSENT + 1):
            link.receive("{")


def test_the_end_by_a_fault_names_what_will_not_be_transcribed():
    link = begun({"turn_detection": None})
    link.receive(append(1))
    link.receive(event("commit"))
    failed, error = said(link, Error("Session Cancelled", 3005))
    assert (failed["type"], error["type"]) == (f"{TRANSCRIPTION}.failed", "error")
    assert error["error"]["type"] == "server_error"
    assert link.receive(append(1)) == []


# -- any order -------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers(-10, 10**6) | st.text(max_size=8)
NAMES = st.sampled_from(
    [
        "type", "format", "rate", "turn_detection", "threshold", "eagerness", "transcription",
        "model", "language", "languages", "keywords", "prompt", "noise_reduction", "audio",
        "input", "include", "session", "silence_duration_ms", "event_id",
    ]
)  # fmt: skip
VALUES = SCALARS | st.sampled_from(
    ["server_vad", "semantic_vad", "audio/pcm", "audio/pcmu", "whisper-1", "en", "transcription"]
)
JSON = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)
SESSIONS = st.fixed_dictionaries(
    {}, optional={"type": VALUES, "audio": st.fixed_dictionaries({"input": JSON}), "include": JSON}
)
CLIENT = st.one_of(
    st.sampled_from([append(0.02), append(1), append(2.2), event("commit"), event("clear")]),
    st.builds(lambda s: json.dumps({"type": "session.update", "session": s}), SESSIONS | JSON),
    st.builds(lambda kind, x: json.dumps({"type": kind, "audio": x}), st.sampled_from(
        [*HANDLERS, "response.create", "", "nobody's"]), JSON),
    st.builds(json.dumps, JSON),
    st.text(max_size=20),
    st.binary(max_size=20),
)  # fmt: skip
WORDS = st.lists(st.sampled_from(["so", "it", "was.", "你好", "10 000"]), min_size=1, max_size=4)


@given(
    st.lists(CLIENT | st.sampled_from(["turn", "speech", "reach", "silence"]), max_size=25),
    st.data(),
)
def test_any_order_of_events_ends_in_a_documented_answer(steps, data):
    link = RealtimeLink("an-id", 1, BOTH)
    json.loads(link.created())
    link.configure(update(turn_detection={"type": "server_vad", "idle_timeout_ms": 2_000}))
    link.settle()
    order, speaking, forced = 0, False, 0
    events = []
    for step in steps:
        if step == "turn":
            texts = data.draw(WORDS)
            events += said(link, turn(*texts[:-1], order=order)) if texts[:-1] else []
            events += said(link, turn(*texts, order=order, end=True))
            order += 1
        elif step == "speech":
            events += said(link, SpeechStopped(9) if speaking else SpeechStarted(1, 0.5))
            speaking = not speaking
        elif step == "silence":
            start = data.draw(st.integers(0, 3)) * 1_000
            events += said(link, Silence(start, start + data.draw(st.integers(1, 9_000))))
        elif step == "reach":
            events += said(link, EndpointReached()) if forced else []
            forced = max(forced - 1, 0)
        else:
            answered, rest = answers(link, step)
            events += answered
            forced += sum(isinstance(each, EndpointForced) for each in rest)
            allowed = (AudioReceived, ConfigurationUpdated, EndpointForced)
            assert all(isinstance(each, allowed) for each in rest)
            assert answered or rest or step == event("append", audio=""), "nothing is passed over"
    events += said(link, *[EndpointReached()] * forced)
    kinds = [each["type"] for each in events]
    assert set(kinds) <= SAID
    commits = [each["item_id"] for each in events if each["type"].endswith(".committed")]
    completed = [each["item_id"] for each in events if each["type"].endswith(".completed")]
    assert sorted(commits) == sorted(completed), "every commit has one end, and nothing else has"
    for item in completed:
        mine = [each for each in events if each.get("item_id") == item]
        whole = "".join(each.get("delta", "") for each in mine)
        assert [each["transcript"] for each in mine if "transcript" in each] == [whole]


SAID = {
    "session.updated", "error",
    "input_audio_buffer.committed", "input_audio_buffer.cleared",
    "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped",
    "input_audio_buffer.timeout_triggered",
    f"{TRANSCRIPTION}.delta", f"{TRANSCRIPTION}.completed",
}  # fmt: skip


@given(JSON)
def test_any_settings_are_taken_or_refused(session):
    link = RealtimeLink("an-id", 1, BOTH)
    frame = json.dumps({"type": "session.update", "session": session})
    answer = json.loads(link.configure(frame))
    assert answer["type"] in {"session.updated", "error"}
    try:
        link.settle()
    except Refused as refused:
        pytest.fail(f"what was taken does not work: {refused}")
