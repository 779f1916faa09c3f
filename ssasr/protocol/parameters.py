"""What a session was asked for: the query string, its defaults, and live changes.

Values are checked against ``limits.PARAMETERS``. A known name with an unusable value refuses the
session (``ClientFault`` 3006); an unknown name is ignored. What follows for turns and engines is in
``settings``.
"""

import re
from types import MappingProxyType
from typing import TypeVar

import attrs
from attrs import field, frozen

from ssasr.protocol.chinese import written_chinese
from ssasr.protocol.faults import invalid_value
from ssasr.protocol.integrations import LlmRequest, Webhook, read_llm, read_webhook
from ssasr.protocol.limits import (
    COMPRESSED,
    KEYTERM_LIMIT,
    LONGEST_SILENCE,
    PARAMETERS,
    SHORTEST_SILENCE,
    check,
)
from ssasr.protocol.messages import UpdateConfiguration
from ssasr.protocol.modes import (
    MODES,
    SPEAKERS_P,
    SPEAKERS_P_TURN,
    SPEAKERS_P_VAD,
    WITHOUT_P,
    WITHOUT_U,
    Patience,
)
from ssasr.protocol.query import Query
from ssasr.protocol.recognition import (
    SAMPLE_RATE,
)
from ssasr.protocol.speech_models import (
    DEFAULT_SPEECH_MODEL,
    SPEECH_MODELS,
    Aliases,
    EngineKind,
    Family,
    SpeechModel,
    find_speech_model,
)

SHORTEST_REVISION_MS, LONGEST_REVISION_MS = 120_000, 300_000
"""What an interval between two revisions of the speakers is brought within."""
THRESHOLD = "end_of_turn_confidence_threshold"
T = TypeVar("T")
_NO_ALIASES: Aliases = MappingProxyType({})
_LANGUAGE = re.compile(r"([a-z]{2,3})([-_][a-z0-9]{1,8})*")


@frozen
class Redaction:
    """What is to be hidden (``redact_pii``): ``policies`` as given, none: all there are;
    ``substitution``: ``hash`` or ``entity_name``."""

    policies: tuple[str, ...]
    substitution: str


@frozen
class SessionParameters:
    """One session's parameters, defaults filled in; silences in milliseconds as on the wire."""

    speech_model: str
    family: Family
    engine: EngineKind
    always_formatted: bool
    encoding: str
    sample_rate: int
    """Of PCM; compressed encodings carry their own."""
    language: str | None
    """As given, or None; see ``languages``."""
    language_codes: tuple[str, ...]
    chinese: str | None
    """How Chinese is to be written (``chinese``), or None: as the model does."""
    language_detection: bool
    format_turns: bool
    end_of_turn_confidence_threshold: float
    min_turn_silence: int
    max_turn_silence: int
    max_turn_duration: float | None
    """Seconds, or None: as long as the family allows."""
    vad_threshold: float
    recognition_threshold: float | None
    """The client's own ``vad_threshold``, which the recogniser goes by as well, or None: the
    recogniser keeps the threshold that it was tuned with."""
    keyterms: tuple[str, ...] = field(repr=False)  # text of the customer's: never in a log
    prompt: str | None = field(repr=False)
    agent_context: str | None = field(repr=False)
    previous_context_n_turns: int
    said_by_agent: tuple[str, ...] = field(repr=False)
    """The last values of ``agent_context``, no more than so many."""
    filter_profanity: bool
    inactivity_timeout: int | None
    """Seconds, or None: never."""
    speaker_labels: bool
    max_speakers: int | None
    revision_interval: int
    """Milliseconds between two revisions of the speakers; 0: only at the end."""
    continuous_partials: bool
    interruption_delay: int
    mode: str | None
    voice_focus: str | None
    voice_focus_threshold: float | None
    domain: str | None
    session_heartbeat: bool
    acknowledge_silence: bool
    include_partial_turns: bool
    redaction: Redaction | None
    token: str | None = field(repr=False)
    own: frozenset[str]
    """Of what ``mode`` decides: the names that the client has given itself."""
    ignored: tuple[str, ...]
    """Names that were given, are understood, and have no effect here: for the session's log."""
    webhook: Webhook | None = field(default=None, repr=False)
    llm: LlmRequest | None = field(default=None, repr=False)
    announce_speech: bool = False
    """``SpeechStarted`` in family U as well, and ``SpeechStopped``: for other protocols."""

    @property
    def compressed(self) -> bool:
        """Whether the duration of a message is unknown until it is decoded."""
        return self.encoding in COMPRESSED

    @property
    def languages(self) -> tuple[str, ...]:
        """What the engine is to expect; none: whatever its model knows."""
        if self.engine is EngineKind.ENGLISH:
            return ()
        given = self.language_codes or ((self.language,) if self.language else ())
        return () if given == ("multi",) else given

    @property
    def context(self) -> tuple[str, ...]:
        """What is known of what is talked about, the oldest first."""
        return (self.prompt or "", *self.said_by_agent)

    def updated(self, update: UpdateConfiguration) -> "SessionParameters":
        """With the update's values in place of ours. ``ClientFault`` 3006 for an unusable one."""
        given = attrs.asdict(update, filter=lambda _, value: value is not None, recurse=False)
        for name, value in given.items():
            check(name, value)
        given.pop("turn_left_pad_ms", None)
        old_name = given.pop("min_end_of_turn_silence_when_confident", None)
        if old_name is not None:
            given.setdefault("min_turn_silence", old_name)
        if self.family is Family.P:
            given.pop(THRESHOLD, None)
        given |= self._patience(given)
        if update.vad_threshold is not None:
            given["recognition_threshold"] = update.vad_threshold
        if update.keyterms_prompt is not None:
            given["keyterms"] = _usable_keyterms(given.pop("keyterms_prompt"))
        if update.agent_context is not None:
            said = self.said_by_agent, update.agent_context, self.previous_context_n_turns
            given["said_by_agent"] = _history(*said)
        if update.language_codes is not None:
            if self.redaction is not None:  # what is detected depends on the language
                raise invalid_value("language_codes", "cannot be changed with redact_pii")
            given["language_codes"] = _languages("language_codes", update.language_codes)
            given["chinese"] = written_chinese(update.language_codes)
        return attrs.evolve(self, **given)

    def _patience(self, given: dict[str, object]) -> dict[str, object]:
        """What follows from an update's values for those that ``mode`` decides."""
        own = self.own | (given.keys() & WITHOUT_U.values().keys())
        changed: dict[str, object] = {"own": own}
        fixed = self.family is Family.P and self.speaker_labels
        if given.get("mode") is not None and not fixed:
            values = MODES[str(given["mode"])].values()
            changed |= {name: value for name, value in values.items() if name not in own}
        if "min_turn_silence" in given:
            changed["min_turn_silence"] = _within_reason(int(str(given["min_turn_silence"])))
        return changed


def parse_parameters(query: str, aliases: Aliases = _NO_ALIASES) -> SessionParameters:
    """The parameters in a URL's query string (percent-encoded, with or without ``?``)."""
    values = Query(query)
    redaction = _redaction(values)
    language = _language(values)
    model = _speech_model(values.text("speech_model"), language, aliases)
    p = model.family is Family.P
    mode = values.text("mode")
    labels = _or(values.boolean("speaker_labels"), False)
    patience = _patience(mode, model.family, labels=labels)
    silence = _min_turn_silence(values)
    usual_vad = (SPEAKERS_P_VAD if labels else 0.3) if p else 0.4
    turns = _or(values.integer("previous_context_n_turns"), 5)
    return SessionParameters(
        speech_model=model.name,
        family=model.family,
        engine=model.engine,
        always_formatted=model.always_formatted,
        encoding=values.text("encoding") or "pcm_s16le",
        sample_rate=_or(values.integer("sample_rate"), SAMPLE_RATE),
        language=language,
        language_codes=_language_codes(values),
        chinese=written_chinese(_codes_as_given(values)),
        language_detection=_or(values.boolean("language_detection"), False),
        format_turns=_or(values.boolean("format_turns"), False),
        end_of_turn_confidence_threshold=_threshold(values, patience, model.family),
        min_turn_silence=_or(silence, patience.min_turn_silence),
        max_turn_silence=_or(values.integer("max_turn_silence"), patience.max_turn_silence),
        max_turn_duration=_or(
            values.number("max_turn_duration"), SPEAKERS_P_TURN if p and labels else None
        ),
        vad_threshold=_or(vad := values.number("vad_threshold"), usual_vad),
        recognition_threshold=vad,
        keyterms=_keyterms(values),
        prompt=values.text("prompt"),
        agent_context=values.text("agent_context"),
        previous_context_n_turns=turns,
        said_by_agent=_history((), values.text("agent_context"), turns),
        filter_profanity=_or(values.boolean("filter_profanity"), False),
        inactivity_timeout=values.integer("inactivity_timeout"),
        speaker_labels=labels,
        max_speakers=values.integer("max_speakers"),
        revision_interval=_revision_interval(values),
        continuous_partials=_or(values.boolean("continuous_partials"), True),
        interruption_delay=_or(values.integer("interruption_delay"), patience.interruption_delay),
        mode="balanced" if mode is None and p else mode,
        voice_focus=_voice_focus(values),
        voice_focus_threshold=_voice_focus_threshold(values),
        domain=values.text("domain"),
        session_heartbeat=_or(values.boolean("session_heartbeat"), False),
        acknowledge_silence=_or(values.boolean("acknowledge_silence"), False),
        include_partial_turns=_or(values.boolean("include_partial_turns"), redaction is None),
        redaction=redaction,
        token=values.text("token"),
        own=_own(values, silence, model.family),
        ignored=_without_effect(values),
        webhook=read_webhook(values),
        llm=read_llm(values),
    )


def _patience(mode: str | None, family: Family, *, labels: bool) -> Patience:
    """The defaults of what decides when a turn ends."""
    if family is Family.P and labels:
        return SPEAKERS_P
    return MODES[mode] if mode else WITHOUT_P if family is Family.P else WITHOUT_U


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def _redaction(values: Query) -> Redaction | None:
    """Policies without ``redact_pii`` are a wish all the same: to ignore it would leak."""
    asked = values.boolean("redact_pii")
    policies = values.names_in("redact_pii_policies") or ()
    substitution = values.text("redact_pii_sub") or "hash"
    return Redaction(policies, substitution) if _or(asked, bool(policies)) else None


def _speech_model(name: str | None, language: str | None, aliases: Aliases) -> SpeechModel:
    """``language`` decides only where no model is named: English, or anything else."""
    if name is None:
        multilingual = language not in (None, "en")
        name = "universal-streaming-multilingual" if multilingual else DEFAULT_SPEECH_MODEL
    model = find_speech_model(name, aliases)
    if model is None:
        raise invalid_value(
            "speech_model", f"expected one of {', '.join([*SPEECH_MODELS, *aliases])}"
        )
    return model


def _language(values: Query) -> str | None:
    text = values.text("language")
    return None if text is None else _languages("language", (text,))[0]


def _language_codes(values: Query) -> tuple[str, ...]:
    codes = values.strings("language_codes")
    alias = values.text("language_code")
    alias_codes = () if alias is None else _languages("language_code", (alias,))
    return alias_codes if codes is None else _languages("language_codes", codes)


def _codes_as_given(values: Query) -> tuple[str, ...]:
    """With their regions."""
    codes = values.strings("language_codes")
    if codes is not None:
        return codes
    alias = values.text("language_code") or values.text("language")
    return (alias,) if alias else ()


def _languages(name: str, codes: tuple[str, ...]) -> tuple[str, ...]:
    """Lower case, without a region; ``multi`` stands for itself and stands alone."""
    if "multi" in codes and len(codes) > 1:
        raise invalid_value(name, "'multi' cannot be combined with other codes")
    if codes == ("multi",):
        return codes
    matches = [_LANGUAGE.fullmatch(code.lower()) for code in codes]
    if None in matches:
        raise invalid_value(name, "expected ISO 639 language codes")
    return tuple(dict.fromkeys(match[1] for match in matches if match))


def _min_turn_silence(values: Query) -> int | None:
    new = values.integer("min_turn_silence")
    old = values.integer("min_end_of_turn_silence_when_confident")
    given = _or(new, old)
    return None if given is None else _within_reason(given)


def _within_reason(silence: int) -> int:
    return min(max(silence, SHORTEST_SILENCE), LONGEST_SILENCE)


def _threshold(values: Query, patience: Patience, family: Family) -> float:
    """Family P has none that a client may choose."""
    given, usual = values.number(THRESHOLD), patience.end_of_turn_confidence_threshold
    return usual if family is Family.P else _or(given, usual)


def _own(values: Query, min_turn_silence: int | None, family: Family) -> frozenset[str]:
    """Under either name."""
    own = values.names() & WITHOUT_U.values().keys()
    if family is Family.P:
        own -= {THRESHOLD}
    return frozenset(own if min_turn_silence is None else own | {"min_turn_silence"})


def _keyterms(values: Query) -> tuple[str, ...]:
    new = values.strings("keyterms_prompt")
    old = values.strings("keyterms")
    return _usable_keyterms(_or(new, _or(old, ())))


def _usable_keyterms(terms: tuple[str, ...]) -> tuple[str, ...]:
    stripped = (term.strip() for term in terms)
    return tuple(term for term in stripped if 0 < len(term) <= KEYTERM_LIMIT)


def _history(before: tuple[str, ...], text: str | None, turns: int) -> tuple[str, ...]:
    return (*before, *([text] if text else ()))[-turns:] if turns else ()


def _voice_focus(values: Query) -> str | None:
    old = values.text("noise_suppression_model")
    return _or(values.text("voice_focus"), old)


def _revision_interval(values: Query) -> int:
    asked = _or(values.integer("speaker_labels_revision_interval_ms"), 0)
    return min(max(asked, SHORTEST_REVISION_MS), LONGEST_REVISION_MS) if asked else 0


def _voice_focus_threshold(values: Query) -> float | None:
    names = ("voice_focus_threshold", "noise_suppression_threshold")
    new, old = [values.number(name) for name in names]
    if _voice_focus(values) is None and (new, old) != (None, None):
        raise invalid_value(names[new is None], "it needs voice_focus")
    return _or(new, old)


def _without_effect(values: Query) -> tuple[str, ...]:
    """Checks what nothing else reads, and names everything that has no effect."""
    values.integer("turn_left_pad_ms")
    given = values.names()
    return tuple(name for name, known in PARAMETERS.items() if name in given and not known.effect)
