"""The query string: every name, every default, every refusal."""

import json
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssasr.protocol.close_codes import CloseCode
from ssasr.protocol.faults import ClientFault
from ssasr.protocol.limits import PARAMETERS, Kind
from ssasr.protocol.messages import BeginConfiguration, UpdateConfiguration
from ssasr.protocol.parameters import EngineKind, Family, Redaction, parse_parameters
from ssasr.protocol.recognition import SPEECH_THRESHOLD
from ssasr.protocol.settings import (
    begin_configuration,
    begin_warnings,
    stream_options,
    turn_settings,
)
from ssasr.protocol.speech_models import SPEECH_MODELS


def refusal(query):
    with pytest.raises(ClientFault) as caught:
        parse_parameters(query)
    assert caught.value.code is CloseCode.INVALID_INPUT
    return caught.value.text


def test_defaults_of_family_u():
    parameters = parse_parameters("")
    assert parameters.speech_model == "universal-streaming-english"
    assert (parameters.family, parameters.engine) == (Family.U, EngineKind.ENGLISH)
    assert (parameters.encoding, parameters.sample_rate) == ("pcm_s16le", 16_000)
    assert (parameters.min_turn_silence, parameters.max_turn_silence) == (400, 1280)
    assert parameters.end_of_turn_confidence_threshold == 0.4
    assert parameters.vad_threshold == 0.4
    assert (parameters.inactivity_timeout, parameters.mode) == (None, None)
    assert not parameters.format_turns


def test_defaults_of_family_p():
    parameters = parse_parameters("speech_model=universal-3-6-pro")
    assert (parameters.family, parameters.engine) == (Family.P, EngineKind.MULTILINGUAL)
    assert (parameters.min_turn_silence, parameters.max_turn_silence) == (100, 1000)
    assert (parameters.vad_threshold, parameters.mode) == (0.3, "balanced")
    assert (parameters.continuous_partials, parameters.interruption_delay) == (True, 500)


LIVEKIT = "&min_turn_silence=100&max_turn_silence=100&language_detection=true"
PIPECAT = (
    "&formatted_finals=true&min_turn_silence=100&max_turn_silence=100&format_turns=true"
    "&continuous_partials=true"
)


# What real clients put into the URL by default.
@pytest.mark.parametrize(
    ("query", "model"),
    [
        ("sample_rate=16000&format_turns=true", "universal-streaming-english"),
        ("sample_rate=16000&format_turns=True", "universal-streaming-english"),
        ("sample_rate=16000&language=en", "universal-streaming-english"),
        ("sample_rate=16000&language=multi", "universal-streaming-multilingual"),
        (
            "sample_rate=16000&encoding=pcm_s16le&speech_model=universal-3-6-pro" + LIVEKIT,
            "universal-3-6-pro",
        ),
        (
            "sample_rate=16000&encoding=pcm_s16le&speech_model=universal-3-6-pro" + PIPECAT,
            "universal-3-6-pro",
        ),
        ("encoding=ogg_opus&language_code=de&speech_model=whisper-rt", "whisper-rt"),
    ],
)
def test_urls_of_real_clients(query, model):
    assert parse_parameters(query).speech_model == model


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "1"])
def test_booleans_are_tolerant(text):
    assert parse_parameters(f"format_turns={text}").format_turns


def test_last_one_wins_and_unknown_names_are_ignored():
    parameters = parse_parameters("sample_rate=8000&sample_rate=44100&smaple_rate=nonsense&x")
    assert parameters.sample_rate == 44_100


@pytest.mark.parametrize(
    "query",
    [
        "sample_rate=7999",
        "sample_rate=192001",
        "sample_rate=16000.5",
        "sample_rate=1_6000",
        "sample_rate=",
        "sample_rate=١٦٠٠٠",
        "encoding=mp3",
        "format_turns=yes",
        "end_of_turn_confidence_threshold=1.01",
        "end_of_turn_confidence_threshold=nan",
        "end_of_turn_confidence_threshold=-0.1",
        "min_turn_silence=-1",
        "inactivity_timeout=4",
        "inactivity_timeout=3601",
        "keyterms_prompt=abc",
        'keyterms_prompt={"a":1}',
        "keyterms_prompt=[1]",
        "keyterms_prompt=" + "[" * 100_000,
        'language_codes=["en","multi"]',
        'language_codes=["klingon"]',
        "language_code=e",
        "mode=fast",
        "max_speakers=11",
        "interruption_delay=1001",
        "speech_model=",
        "redact_pii=maybe",
        "redact_pii_policies=[1]",
        "redact_pii_sub=stars",
    ],
)
def test_an_unusable_value_names_the_parameter(query):
    name = query.partition("=")[0]
    assert refusal(query).startswith(f"User Input Validation Error: Invalid '{name}': ")


def test_an_unknown_model_is_answered_with_the_known_ones():
    text = refusal("speech_model=nova-3")
    assert all(name in text for name in SPEECH_MODELS)


@pytest.mark.parametrize(
    ("query", "policies", "substitution"),
    [
        ("redact_pii=true", (), "hash"),
        ("redact_pii=true&redact_pii_policies=date,%20time&redact_pii_sub=entity_name",
         ("date", "time"), "entity_name"),
        ("redact_pii_policies=%5B%22date%22%5D", ("date",), "hash"),
    ],
)  # fmt: skip
def test_redaction(query, policies, substitution):
    parameters = parse_parameters(query)
    assert parameters.redaction == Redaction(policies, substitution)
    assert not parameters.include_partial_turns
    assert parse_parameters(query + "&include_partial_turns=true").include_partial_turns


def test_no_redaction():
    query = "redact_pii=false&redact_pii_policies=%5B%22date%22%5D&redact_pii_sub=hash"
    parameters = parse_parameters(query)
    assert parameters.redaction is None
    assert parameters.include_partial_turns


def test_the_language_stays_where_something_is_redacted():
    parameters = parse_parameters("redact_pii=true")
    with pytest.raises(ClientFault, match="language_codes"):
        parameters.updated(UpdateConfiguration(language_codes=("fr",)))


@pytest.mark.parametrize(
    "name",
    ["assemblyai-stt-3-7-realtime-agent", "assemblyai-stt-3-9", "u3-rt-max", "universal-3-8"],
)
def test_the_vendors_next_name_is_one_of_family_p(name):
    parameters = parse_parameters(f"speech_model={name}")
    assert (parameters.speech_model, parameters.family) == (name, Family.P)


@pytest.mark.parametrize(
    "name", ["universal-2", "u2-pro", "assemblyai", "u3-%00", "u3-" + "x" * 60]
)
def test_a_name_that_is_nobodys_is_refused(name):
    assert "expected one of" in refusal(f"speech_model={name}")


def test_an_operators_name_stands_for_a_model():
    aliases = {"support": "universal-streaming-english", "u3-pro": "whisper-rt"}
    parameters = parse_parameters("speech_model=support", aliases)
    assert parameters.speech_model == "universal-streaming-english"
    assert parse_parameters("speech_model=u3-pro", aliases).family is Family.U


def test_a_threshold_of_a_focus_that_is_not_asked_for():
    for name in ("voice_focus_threshold", "noise_suppression_threshold"):
        assert f"Invalid '{name}'" in refusal(f"{name}=0.5")
        parameters = parse_parameters(f"{name}=0.5&voice_focus=near-field")
        configuration = begin_configuration(parameters, "m")
        assert configuration.voice_focus == "near-field"
        assert configuration.voice_focus_threshold == 0.5


def test_a_domain_is_echoed_and_warned_of():
    parameters = parse_parameters("domain=medical-v1")
    assert begin_configuration(parameters, "m").domain == "medical-v1"
    (warning,) = begin_warnings(parameters)
    assert "medical-v1" in warning.warning
    assert begin_warnings(parse_parameters("")) == ()


def test_keyterms():
    def terms(**values):
        return parse_parameters(urlencode({k: json.dumps(v) for k, v in values.items()})).keyterms

    assert terms(keyterms=["a"]) == ("a",)
    assert terms(keyterms=["a"], keyterms_prompt=["b", "x" * 51, " "]) == ("b",)
    assert len(terms(keyterms_prompt=["a"] * 100)) == 100
    assert "keyterms_prompt" in refusal(urlencode({"keyterms_prompt": json.dumps(["a"] * 101)}))


def test_old_name_of_min_turn_silence():
    assert parse_parameters("min_end_of_turn_silence_when_confident=160").min_turn_silence == 160
    both = "min_turn_silence=200&min_end_of_turn_silence_when_confident=160"
    assert parse_parameters(both).min_turn_silence == 200


@pytest.mark.parametrize(
    ("query", "languages"),
    [
        ("", ()),
        ("language=de", ("de",)),
        ("language=en", ()),  # the English engine needs no telling
        ("speech_model=whisper-rt&language=en", ("en",)),
        ("speech_model=whisper-rt&language=multi", ()),
        ('speech_model=u3-rt-pro&language_codes=["pt-BR"]', ("pt",)),
        ('speech_model=u3-rt-pro&language_codes=["pt-BR","pt-PT"]', ("pt",)),
        ('speech_model=u3-rt-pro&language_codes=["pt","en"]', ("pt", "en")),
        ('speech_model=u3-rt-pro&language_codes=["multi"]', ()),
        ("speech_model=u3-rt-pro&language_code=es", ("es",)),
        ('speech_model=u3-rt-pro&language_code=es&language_codes=["fr"]', ("fr",)),
        ("speech_model=u3-rt-pro&language_code=es&language_codes=[]", ()),
    ],
)
def test_expected_languages(query, languages):
    assert parse_parameters(query).languages == languages


def test_what_has_no_effect_is_named_for_the_log():
    query = "turn_left_pad_ms=1&domain=medical-v1&format_turns=true&unheard_of=1"
    assert set(parse_parameters(query).ignored) == {"turn_left_pad_ms", "domain"}


def test_secrets_and_text_stay_out_of_the_representation():
    query = 'token=hush&prompt=hush&agent_context=hush&keyterms_prompt=["hush"]'
    query += "&webhook_url=https://hush/&webhook_auth_header_name=X-A"
    query += "&webhook_auth_header_value=hush"
    asked = {
        "model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "hush {{turn}}"}]
    }  # fmt: skip
    assert "hush" not in repr(parse_parameters(f"{query}&llm_gateway={json.dumps(asked)}"))


def test_update_replaces_what_it_gives_and_nothing_else():
    before = parse_parameters('keyterms_prompt=["a"]&min_turn_silence=300')
    after = before.updated(UpdateConfiguration(max_turn_silence=900, keyterms_prompt=()))
    assert (after.min_turn_silence, after.max_turn_silence, after.keyterms) == (300, 900, ())
    assert before.updated(UpdateConfiguration()) == before
    old = before.updated(UpdateConfiguration(min_end_of_turn_silence_when_confident=70))
    assert old.min_turn_silence == 70


def test_every_field_of_an_update_is_a_live_parameter_and_takes_effect_or_says_it_has_none():
    live = {name for name, known in PARAMETERS.items() if known.live}
    assert set(UpdateConfiguration.__annotations__) == live
    values = {
        Kind.INTEGER: 77,
        Kind.NUMBER: 1.0,
        Kind.BOOLEAN: True,
        Kind.TEXT: "de",
        Kind.STRINGS: ("de",),
    }
    before = parse_parameters("speech_model=whisper-rt&continuous_partials=false")
    for name in live - {"turn_left_pad_ms"}:
        value = "max_accuracy" if name == "mode" else values[PARAMETERS[name].kind]
        update = UpdateConfiguration(**{name: value})
        assert before.updated(update) != before, name


def silences(parameters):
    return (
        parameters.min_turn_silence, parameters.max_turn_silence, parameters.interruption_delay
    )  # fmt: skip


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("mode=min_latency", (128, 640, 0)),
        ("mode=balanced&speech_model=u3-rt-pro", (128, 1_280, 500)),
        ("mode=max_accuracy", (512, 2_560, 500)),
        ("mode=max_accuracy&max_turn_silence=900&interruption_delay=7", (512, 900, 7)),
        ("mode=min_latency&min_end_of_turn_silence_when_confident=300", (300, 640, 0)),
    ],
)
def test_a_mode_is_patience_and_what_the_client_gives_itself_wins(query, expected):
    assert silences(parse_parameters(query)) == expected


def test_a_live_change_of_mode_spares_what_the_client_gave_itself_then_or_before():
    parameters = parse_parameters("max_turn_silence=900&mode=min_latency")
    slow = UpdateConfiguration(mode="max_accuracy")
    assert silences(parameters.updated(slow)) == (512, 900, 500)
    own = UpdateConfiguration(min_end_of_turn_silence_when_confident=77, mode="balanced")
    assert silences(parameters.updated(own).updated(slow)) == (77, 900, 500)
    assert begin_configuration(parameters.updated(slow), "m").mode == "max_accuracy"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("mode=min_latency", 0.2),
        ("mode=min_latency&end_of_turn_confidence_threshold=0.7", 0.7),
        ("speech_model=u3-rt-pro", 0.4),
        ("speech_model=u3-rt-pro&end_of_turn_confidence_threshold=1", 0.4),
        ("speech_model=u3-rt-pro&end_of_turn_confidence_threshold=1&mode=max_accuracy", 0.6),
    ],
)
def test_family_p_has_the_threshold_of_its_mode(query, expected):
    parameters = parse_parameters(query)
    assert parameters.end_of_turn_confidence_threshold == expected
    given = UpdateConfiguration(end_of_turn_confidence_threshold=0.0)
    own = parameters.family is Family.U
    assert parameters.updated(given).end_of_turn_confidence_threshold == (0 if own else expected)
    later = parameters.updated(UpdateConfiguration(mode="max_accuracy"))
    by_mode = expected if "&end_of" in query and own else 0.6
    assert later.end_of_turn_confidence_threshold == by_mode


@pytest.mark.parametrize(("given", "taken"), [(0, 50), (49, 50), (51, 51), (20_000, 10_000)])
def test_min_turn_silence_is_brought_within_reason(given, taken):
    assert parse_parameters(f"min_turn_silence={given}").min_turn_silence == taken
    update = UpdateConfiguration(min_turn_silence=given)
    assert parse_parameters("").updated(update).min_turn_silence == taken


def test_the_longest_turn_is_the_clients_and_on_family_p_a_minute_at_most():
    def longest(query):
        return turn_settings(parse_parameters(query)).max_turn_duration

    assert (longest(""), longest("max_turn_duration=2.5")) == (None, 40_000)
    p = "speech_model=u3-rt-pro"
    given = [longest(f"{p}&max_turn_duration={seconds}") for seconds in (90, 10)]
    assert [longest(p), *given] == [960_000, 960_000, 160_000]


def test_too_long_is_said_in_the_hosted_services_words():
    assert "prompt exceeds maximum length of 1750 characters (got 1751)" in refusal(
        "prompt=" + "x" * 1_751
    )
    assert refusal("keyterms_prompt=" + json.dumps(["a"] * 101)).endswith("Max 100 items")


def test_begin_says_what_is_there_and_what_is_not():
    asked = parse_parameters("speaker_labels=true&filter_profanity=true&mode=min_latency")
    assert begin_configuration(asked, "m") == BeginConfiguration(
        model="m", mode="min_latency", speaker_labels=False, filter_profanity=True
    )
    assert begin_configuration(parse_parameters(""), "m") == BeginConfiguration(model="m")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vad_threshold", 1.5),
        ("min_turn_silence", -1),
        ("agent_context", "x" * 1751),
        ("prompt", "x" * 1751),
        ("keyterms_prompt", ("a",) * 101),
        ("language_codes", ("en",) * 11),
        ("language_codes", ("multi", "en")),
        ("interruption_delay", 2000),
    ],
)
def test_update_out_of_range(field, value):
    with pytest.raises(ClientFault, match=f"Invalid '{field}'") as caught:
        parse_parameters("").updated(UpdateConfiguration(**{field: value}))
    assert caught.value.code is CloseCode.INVALID_INPUT


def test_settings_count_samples():
    parameters = parse_parameters("min_turn_silence=160&max_turn_silence=2400&format_turns=1")
    settings = turn_settings(parameters)
    assert (settings.min_turn_silence, settings.max_turn_silence) == (2_560, 38_400)
    assert settings.format_turns
    assert not settings.always_formatted
    assert stream_options(parameters).pause == 2_560


def test_a_pause_is_never_shorter_than_three_frames_of_the_voice_detector():
    parameters = parse_parameters("min_turn_silence=0")
    assert stream_options(parameters).pause == turn_settings(parameters).min_turn_silence == 1_536


def test_the_engine_judges_at_the_earlier_silence():
    assert stream_options(parse_parameters("max_turn_silence=200")).pause == 3_200


def parsed_or_refused(query):
    try:
        return parse_parameters(query)
    except ClientFault as fault:
        return fault


@given(
    st.dictionaries(
        st.sampled_from(sorted(PARAMETERS)),
        st.one_of(
            st.text(),
            st.integers().map(str),
            st.floats().map(str),
            st.booleans().map(str),
            st.lists(st.text(max_size=5), max_size=3).map(json.dumps),
            st.sampled_from([*SPEECH_MODELS, "opus", "balanced", "multi", "en"]),
        ),
    )
)
def test_any_query_is_parsed_or_refused_with_a_code(values):
    parameters = parsed_or_refused(urlencode(values, errors="replace"))
    if isinstance(parameters, ClientFault):
        assert parameters.code is CloseCode.INVALID_INPUT
        assert len(parameters.reason.encode()) <= 123
    else:
        turn_settings(parameters)
        stream_options(parameters)


@given(st.text())
def test_any_text_is_a_query(text):
    if isinstance(parsed_or_refused(text), ClientFault):
        assert dict(parse_qsl(text, keep_blank_values=True)).keys() & PARAMETERS.keys()


@pytest.mark.parametrize("query", ["", "speech_model=u3-rt-pro"])
def test_the_recogniser_keeps_its_own_threshold_unless_the_client_gives_one(query):
    assert stream_options(parse_parameters(query)).vad_threshold == SPEECH_THRESHOLD


@pytest.mark.parametrize(
    ("model", "tentative"), [("u3-rt-pro", True), ("universal-streaming-english", False)]
)
def test_only_family_p_lets_every_word_change_until_its_turn_ends(model, tentative):
    parameters = parse_parameters(f"speech_model={model}")
    assert stream_options(parameters).tentative is tentative


def test_the_mode_decides_what_is_final_in_family_u_and_may_change():
    parameters = parse_parameters("mode=min_latency")
    assert stream_options(parameters).mode == "min_latency"
    changed = parameters.updated(UpdateConfiguration(mode="max_accuracy"))
    assert stream_options(changed).mode == "max_accuracy"
    assert stream_options(parse_parameters("")).mode is None
    assert stream_options(parse_parameters("mode=min_latency&speech_model=u3-rt-pro")).mode is None


def test_the_engine_gets_the_client_s_speech_threshold():
    assert stream_options(parse_parameters("vad_threshold=0.25")).vad_threshold == 0.25
    assert stream_options(parse_parameters("vad_threshold=0")).vad_threshold > 0
    changed = parse_parameters("").updated(UpdateConfiguration(vad_threshold=0.7))
    assert stream_options(changed).vad_threshold == 0.7
