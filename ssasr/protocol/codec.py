"""Messages to JSON text and back: the one strict converter.

cattrs coerces by default (``"false"`` becomes True, 400.9 becomes 400, ``"abc"`` a list of three);
every hook here refuses instead. Unknown fields are ignored, as the protocol says; an unknown
``type`` is not. Nearly every message to a client is a Turn: ``TurnWriter`` writes those, and says
what ``encode`` would say, byte for byte.
"""

import functools
import json
import types
from collections.abc import Callable, Mapping
from math import isfinite
from types import MappingProxyType
from typing import TypeVar

import cattrs
from attrs import define, field
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn

from ssasr.protocol import messages, strict_json
from ssasr.protocol.close_codes import CloseCode
from ssasr.protocol.faults import ClientFault, invalid_value
from ssasr.protocol.messages import ClientMessage, ServerMessage, Turn, TurnWord

M = TypeVar("M")

CLIENT_TYPES: Mapping[str, type[ClientMessage]] = MappingProxyType(
    {
        "UpdateConfiguration": messages.UpdateConfiguration,
        "ForceEndpoint": messages.ForceEndpoint,
        "KeepAlive": messages.KeepAlive,
        "Terminate": messages.Terminate,
    }
)
SERVER_TYPES: Mapping[str, type[ServerMessage]] = MappingProxyType(
    {
        "Begin": messages.Begin,
        "SpeechStarted": messages.SpeechStarted,
        "Turn": messages.Turn,
        "SpeakerRevision": messages.SpeakerRevision,
        "Termination": messages.Termination,
        "Error": messages.Error,
        "Warning": messages.WarningMessage,
        "Heartbeat": messages.Heartbeat,
        "Silence": messages.Silence,
        "LLMGatewayResponse": messages.LLMGatewayResponse,
    }
)
_TAGS: Mapping[type, str] = MappingProxyType(
    {cls: tag for tag, cls in (*CLIENT_TYPES.items(), *SERVER_TYPES.items())}
)

# json.dumps with arguments builds an encoder for every call; these two are immutable. Messages are
# trees, so nothing is lost by not looking for circles.
_write = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode


class Mistyped(ValueError):
    """A value is of the wrong JSON type; ``str()`` says what was expected."""


def _strict(expected: str, *accepted: type) -> Callable[[object, object], object]:
    def structure(value: object, _: object) -> object:
        if type(value) not in accepted:  # not isinstance: a bool is an int
            raise Mistyped(expected)
        return value

    return structure


@functools.cache
def converter() -> cattrs.Converter:
    """The converter; immutable once built."""
    result = cattrs.Converter(detailed_validation=True)
    result.register_structure_hook(bool, _strict("expected a boolean", bool))
    result.register_structure_hook(int, _strict("expected an integer", int))
    result.register_structure_hook(float, _strict("expected a number", int, float))
    result.register_structure_hook(str, _strict("expected a string", str))
    _register_sequence(result, str, "expected an array of strings")
    _register_sequence(result, TurnWord, "expected an array of words")
    _register_sequence(result, messages.RevisedTurn, "expected an array of turns")
    nested = (TurnWord, messages.BeginConfiguration, messages.RevisedTurn)
    for cls in (*nested, *_TAGS):
        result.register_structure_hook(cls, make_dict_structure_fn(cls, result))
        # Only fields whose default is None have one, so this is "leave out what is not there".
        result.register_unstructure_hook(
            cls, make_dict_unstructure_fn(cls, result, _cattrs_omit_if_default=True)
        )
    return result


def _register_sequence(owner: cattrs.Converter, item: type, expected: str) -> None:
    def structure(value: object, _: object) -> tuple[object, ...]:
        if not isinstance(value, list):
            raise Mistyped(expected)
        return tuple(owner.structure(each, item) for each in value)

    wanted = types.GenericAlias(tuple, (item, ...))
    owner.register_structure_hook_func(lambda annotation: bool(annotation == wanted), structure)


# -- out -------------------------------------------------------------------------------------------


def unstructure(message: ServerMessage | ClientMessage) -> dict[str, object]:
    """The message as JSON types, ``type`` last as on the hosted service."""
    fields: dict[str, object] = converter().unstructure(message)
    fields["type"] = _TAGS[type(message)]
    return fields


def encode(message: ServerMessage | ClientMessage) -> str:
    """One frame's text. ValueError for a number that JSON cannot hold: a bug of ours."""
    return _write(unstructure(message))


@define
class TurnWriter:
    """The Turns of one session. Each repeats the words of the one before: those that are the same
    objects keep their text."""

    _words: tuple[TurnWord, ...] = ()
    _texts: list[str] = field(factory=list)

    def write(self, turn: Turn) -> str:
        """As ``encode``."""
        same = 0
        for mine, theirs in zip(self._words, turn.words, strict=False):
            if mine is not theirs:
                break
            same += 1
        texts = self._texts[:same] + [_word(word) for word in turn.words[same:]]
        self._words, self._texts = turn.words, texts
        rest = ""
        if turn.language_code is not None:
            rest += f',"language_code":{_quote(turn.language_code)}'
        if turn.language_confidence is not None:
            rest += f',"language_confidence":{_number(turn.language_confidence)}'
        if turn.speaker_label is not None:
            rest += f',"speaker_label":{_quote(turn.speaker_label)}'
        return (
            f'{{"turn_order":{turn.turn_order},'
            f'"turn_is_formatted":{_BOOLEAN[turn.turn_is_formatted]},'
            f'"end_of_turn":{_BOOLEAN[turn.end_of_turn]},'
            f'"transcript":{_quote(turn.transcript)},"utterance":{_quote(turn.utterance)},'
            f'"end_of_turn_confidence":{_number(turn.end_of_turn_confidence)},'
            f'"words":[{",".join(texts)}]{rest},"type":"Turn"}}'
        )


_BOOLEAN = ("false", "true")
_quote = json.encoder.encode_basestring


def _number(value: float) -> str:
    if not isfinite(value):
        raise ValueError(f"{value} is not JSON")
    return repr(value)


def _word(word: TurnWord) -> str:
    speaker = "" if word.speaker is None else f',"speaker":{_quote(word.speaker)}'
    if word.speaker_confidence is not None:
        speaker += f',"speaker_confidence":{_number(word.speaker_confidence)}'
    return (
        f'{{"text":{_quote(word.text)},"start":{word.start},"end":{word.end},'
        f'"confidence":{_number(word.confidence)},'
        f'"word_is_final":{_BOOLEAN[word.word_is_final]}{speaker}}}'
    )


# -- in --------------------------------------------------------------------------------------------


def decode(text: str) -> ClientMessage:
    """The client's message in a text frame, or ``ClientFault`` 3006 saying what is wrong."""
    return _decode(text, CLIENT_TYPES)


def decode_server(text: str) -> ServerMessage:
    """What a client of ours reads. Raises as ``decode`` does."""
    return _decode(text, SERVER_TYPES)


def _decode(text: str, types: Mapping[str, type[M]]) -> M:
    fields, tag = _json_object(text)
    cls = types.get(tag)
    if cls is None:
        raise ClientFault(CloseCode.INVALID_INPUT, f"Invalid Message Type: {_shown(tag)}")
    return _structured(fields, cls)


def _json_object(text: str) -> tuple[dict[str, object], str]:
    try:
        fields = strict_json.read(text)
    except (ValueError, RecursionError) as error:
        raise ClientFault(CloseCode.INVALID_INPUT, f"Invalid JSON: {_shown(str(error))}") from None
    tag = fields.pop("type", None) if isinstance(fields, dict) else None
    if not isinstance(fields, dict) or not isinstance(tag, str):
        raise ClientFault(
            CloseCode.INVALID_INPUT, "Invalid Message: expected an object with a string 'type'"
        )
    return fields, tag


def _structured(fields: dict[str, object], cls: type[M]) -> M:
    try:
        return converter().structure(fields, cls)
    except cattrs.BaseValidationError as group:
        path, problem = _first_problem(group)
        raise invalid_value(path or cls.__name__, problem) from None


def _first_problem(error: BaseException) -> tuple[str, str]:
    """Where the first thing went wrong, as a dotted path, and what."""
    path = ""
    while isinstance(error, cattrs.BaseValidationError):
        inner = error.exceptions[0]
        for note in getattr(inner, "__notes__", ()):
            if isinstance(note, cattrs.AttributeValidationNote):
                path = f"{path}.{note.name}" if path else note.name
        error = inner
    return path, str(error) if isinstance(error, Mistyped) else "missing or not an object"


def _shown(text: str) -> str:
    """The client's own text, short enough to give back."""
    return text if len(text) <= 80 else text[:80] + "…"
