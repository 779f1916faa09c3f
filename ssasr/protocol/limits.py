"""The table of parameters: every name that is understood, its type and its limits.

One table serves the query string, ``UpdateConfiguration`` and the documents, so that a value is
refused for the same reason wherever it comes from.
"""

import enum
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from attrs import frozen

from ssasr.protocol.faults import invalid_value
from ssasr.protocol.modes import MODES


class Kind(enum.Enum):
    """What a value is; lists and objects are JSON text in a query."""

    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TEXT = "string"
    STRINGS = "list of strings"
    OBJECT = "object"
    ANYTHING = "anything"


@frozen
class Parameter:
    """``high`` bounds a number's value, a text's characters or a list's entries. ``live``: may be
    changed by ``UpdateConfiguration``. ``effect``: False when it is understood and does nothing."""

    name: str
    kind: Kind
    low: float = 0
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False
    effect: bool = True


SAMPLE_BYTES = MappingProxyType({"pcm_s16le": 2, "pcm_mulaw": 1, "pcm_alaw": 1})
ENCODINGS = (*SAMPLE_BYTES, "opus", "ogg_opus", "webm", "aac")
COMPRESSED = frozenset({"opus", "ogg_opus", "webm", "aac"})
VOICE_FOCUS = ("near-field", "far-field")
TEXT_LIMIT = 1750
"""Characters of ``prompt`` and ``agent_context``."""
KEYTERM_LIMIT = 50
"""Characters of one key term; a longer one is ignored."""
DAY_MS = 86_400_000
"""Nobody means a silence longer than this; it keeps integers small (our choice)."""
SHORTEST_SILENCE, LONGEST_SILENCE = 50, 10_000
"""Milliseconds that ``min_turn_silence`` is brought to when it is shorter or longer."""
LONGEST_P_TURN = 60
"""Seconds after which a turn of family P ends in any case."""


def _table(parameters: Iterable[Parameter]) -> Mapping[str, Parameter]:
    return MappingProxyType({parameter.name: parameter for parameter in parameters})


PARAMETERS: Mapping[str, Parameter] = _table(
    (
        Parameter("sample_rate", Kind.INTEGER, 8_000, 192_000),
        Parameter("encoding", Kind.TEXT, choices=ENCODINGS),
        Parameter("speech_model", Kind.TEXT),
        Parameter("language", Kind.TEXT),
        Parameter("language_code", Kind.TEXT),
        Parameter("language_codes", Kind.STRINGS, high=10, live=True),
        Parameter("language_detection", Kind.BOOLEAN),
        Parameter("format_turns", Kind.BOOLEAN, live=True),
        Parameter("end_of_turn_confidence_threshold", Kind.NUMBER, 0, 1, live=True),
        Parameter("min_turn_silence", Kind.INTEGER, 0, DAY_MS, live=True),
        Parameter("min_end_of_turn_silence_when_confident", Kind.INTEGER, 0, DAY_MS, live=True),
        Parameter("max_turn_silence", Kind.INTEGER, 0, DAY_MS, live=True),
        Parameter("max_turn_duration", Kind.NUMBER, 1, 10_800, live=True),
        Parameter("vad_threshold", Kind.NUMBER, 0, 1, live=True),
        Parameter("keyterms_prompt", Kind.STRINGS, high=100, live=True),
        Parameter("keyterms", Kind.STRINGS, high=100),
        Parameter("prompt", Kind.TEXT, high=TEXT_LIMIT, live=True),
        Parameter("agent_context", Kind.TEXT, high=TEXT_LIMIT, live=True),
        Parameter("previous_context_n_turns", Kind.INTEGER, 0, 100),
        Parameter("filter_profanity", Kind.BOOLEAN, live=True),
        Parameter("inactivity_timeout", Kind.INTEGER, 5, 3_600),
        Parameter("speaker_labels", Kind.BOOLEAN),
        Parameter("max_speakers", Kind.INTEGER, 1, 10),
        Parameter("speaker_labels_revision_interval_ms", Kind.INTEGER, 0, DAY_MS),
        Parameter("continuous_partials", Kind.BOOLEAN, live=True),
        Parameter("interruption_delay", Kind.INTEGER, 0, 1_000, live=True),
        Parameter("turn_left_pad_ms", Kind.INTEGER, 0, DAY_MS, live=True, effect=False),
        Parameter("mode", Kind.TEXT, choices=tuple(MODES), live=True),
        Parameter("voice_focus", Kind.TEXT, choices=VOICE_FOCUS, effect=False),
        Parameter("noise_suppression_model", Kind.TEXT, choices=VOICE_FOCUS, effect=False),
        Parameter("voice_focus_threshold", Kind.NUMBER, 0, 1, effect=False),
        Parameter("noise_suppression_threshold", Kind.NUMBER, 0, 1, effect=False),
        Parameter("domain", Kind.TEXT, choices=("medical-v1",), effect=False),
        Parameter("session_heartbeat", Kind.BOOLEAN, live=True),
        Parameter("acknowledge_silence", Kind.BOOLEAN, live=True),
        Parameter("include_partial_turns", Kind.BOOLEAN),
        Parameter("redact_pii", Kind.BOOLEAN),
        Parameter("redact_pii_policies", Kind.STRINGS),
        Parameter("redact_pii_sub", Kind.TEXT, choices=("hash", "entity_name")),
        Parameter("llm_gateway", Kind.OBJECT),
        Parameter("webhook_url", Kind.TEXT, high=2_048),
        Parameter("webhook_auth_header_name", Kind.TEXT, high=128),
        Parameter("webhook_auth_header_value", Kind.TEXT, high=2_048),
        Parameter("customer_support_audio_capture", Kind.ANYTHING, effect=False),
        Parameter("_customer_support_audio_capture", Kind.ANYTHING, effect=False),
        Parameter("formatted_finals", Kind.ANYTHING, effect=False),
        Parameter("word_finalization_max_wait_time", Kind.ANYTHING, effect=False),
        Parameter("token", Kind.TEXT),
    )
)


def check(name: str, value: object) -> None:
    """``ClientFault`` 3006 unless ``value``, of the right type already, is within the limits."""
    limits = PARAMETERS[name]
    if limits.choices and value not in limits.choices:
        raise invalid_value(name, f"expected one of {', '.join(limits.choices)}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        high = float("inf") if limits.high is None else limits.high
        if not limits.low <= value <= high:  # false for NaN too
            raise invalid_value(name, f"expected a value between {limits.low} and {high}")
    elif isinstance(value, str) and limits.high is not None and len(value) > limits.high:
        raise invalid_value(name, _too_long(name, limits.high, len(value)))
    elif isinstance(value, tuple) and limits.high is not None and len(value) > limits.high:
        raise invalid_value(name, f"too many entries: Max {limits.high} items")


def _too_long(name: str, high: float, length: int) -> str:
    """The hosted service's wording."""
    return f"{name} exceeds maximum length of {high} characters (got {length})"
