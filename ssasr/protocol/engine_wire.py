"""The engine link's messages as WebSocket frames, and strictly back.

Audio is a binary frame: the stream position of its first sample as 8 little-endian bytes, then the
PCM as it is. Everything else is a JSON object in a text frame, its type under ``t``. Updates come
ten times a second and more for every session, so their keys are one letter long, defaults are left
out, speech probabilities are two hexadecimal digits each (steps of 1/255, finer than any
threshold), and words that are final and have been sent are not sent again: ``f`` is the number of
leading words that the reader has already, ``w`` the words after those. What a message means is none
the less a function of the messages before it in the same segment, never of time.

Writing and reading are stateful for that reason only (``WordWriter``, ``WordReader``). Everything
of the wrong type or out of range is a ``PeerFault``; keys that are not known are ignored, because
an engine may be newer than its gateway.
"""

import json
import struct
from typing import NoReturn

from attrs import define

from ssasr.protocol.faults import LocalProtocolError, PeerFault
from ssasr.protocol.recognition import (
    Audio,
    Configure,
    Draining,
    Final,
    Finalize,
    FromEngine,
    Open,
    Opened,
    StreamOptions,
    ToEngine,
    Update,
    Word,
)

Message = Open | ToEngine | Opened | FromEngine
Words = tuple[Word, ...]

_POSITION = struct.Struct("<q")
_SPEECH = tuple(step / 255 for step in range(256))

# json.dumps with arguments builds an encoder for every call; these two are immutable.
_write = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_read = json.JSONDecoder(parse_constant=_refuse_constant).decode


# -- words -----------------------------------------------------------------------------------------


@define
class WordWriter:
    """Leaves out the leading words that the reader has as final."""

    _segment: int = -1
    _known: Words = ()

    def delta(self, segment: int, words: Words) -> tuple[int, list[list[object]]]:
        """How many leading words are known, and the rest as JSON."""
        if segment != self._segment:
            self._segment, self._known = segment, ()
        first = len(self._known)
        if words[:first] != self._known:  # by identity, mostly: an engine keeps its final words
            first = _common(self._known, words)
        known = first
        while known < len(words) and words[known].final:
            known += 1
        self._known = words[:known]
        return first, [word_fields(word) for word in words[first:]]


def _common(known: Words, words: Words) -> int:
    """A final that goes back behind what was heard may cut words that were final already."""
    for count, (mine, theirs) in enumerate(zip(known, words, strict=False)):
        if mine != theirs:
            return count
    return min(len(known), len(words))


@define
class WordReader:
    """The inverse of ``WordWriter``."""

    _segment: int = -1
    _known: Words = ()

    def words(self, segment: int, first: int, rest: list[object]) -> Words:
        """The whole segment so far."""
        if segment != self._segment:
            self._segment, self._known = segment, ()
        if not 0 <= first <= len(self._known):
            raise PeerFault(f"the message builds on {first} words, {len(self._known)} are known")
        words = self._known[:first] + tuple([read_word(each) for each in rest])
        known = first
        while known < len(words) and words[known].final:
            known += 1
        self._known = words[:known]
        return words


def word_fields(word: Word) -> list[object]:
    """A word as JSON: text, start, end, confidence, final."""
    return [word.text, word.start, word.end, word.confidence, 1 if word.final else 0]


def read_word(fields: object) -> Word:
    if type(fields) is not list or len(fields) < 5:
        raise PeerFault("a word is an array of five")
    text, start, end, confidence, final = fields[:5]
    if (
        type(text) is str
        and type(start) is int
        and type(end) is int
        and type(confidence) in _NUMBER
        and type(final) is int
        and 0 <= start <= end
        and 0 <= final <= 1
    ):
        return Word(text, start, end, float(confidence), final == 1)
    raise PeerFault("a word is text, start, end, confidence and 0 or 1")


# -- out -------------------------------------------------------------------------------------------


def encode(message: Message, writer: WordWriter) -> str | bytes:
    """One frame. LocalProtocolError for a number that has no place on the wire: a bug of ours."""
    if type(message) is Audio:
        return _POSITION.pack(message.start) + message.pcm
    try:
        return _write(_fields(message, writer))
    except ValueError as error:
        raise LocalProtocolError(f"{type(message).__name__} cannot be written: {error}") from None


def _fields(message: Message, writer: WordWriter) -> dict[str, object]:
    match message:
        case Update():
            return _update(message, writer)
        case Final():
            fields = {"t": "f", "k": message.segment, "a": message.at}
            return _findings(fields, message, writer)
        case Finalize(segment, at):
            return {"t": "z", "k": segment, "a": at}
        case Configure(options):
            return {"t": "configure", "options": _options(options)}
        case Open():
            return {
                "t": "open",
                "session": message.session_id,
                "options": _options(message.options),
                "segment": message.segment,
                "start": message.start,
                "committed": [word_fields(word) for word in message.committed],
                "committed_at": message.committed_at,
            }
        case Opened(model, chunk, engine):
            return {"t": "opened", "model": model, "chunk": chunk, "engine": engine}
        case Draining():
            return {"t": "draining"}
        case _:
            raise LocalProtocolError(f"{type(message).__name__} has no text form")


def _update(update: Update, writer: WordWriter) -> dict[str, object]:
    speech = bytes([int(each * 255 + 0.5) for each in update.speech]).hex()
    fields: dict[str, object] = {"t": "u", "k": update.segment, "p": update.position, "s": speech}
    if update.decoded != update.position:
        fields["d"] = update.decoded
    return _findings(fields, update, writer)


def _findings(
    fields: dict[str, object], message: Update | Final, writer: WordWriter
) -> dict[str, object]:
    first, rest = writer.delta(message.segment, message.words)
    if first:
        fields["f"] = first
    if rest:
        fields["w"] = rest
    if message.end_of_turn_confidence:
        fields["c"] = message.end_of_turn_confidence
    if message.language is not None:
        fields["l"] = message.language
    if message.language_confidence:
        fields["m"] = message.language_confidence
    return fields


def _options(options: StreamOptions) -> dict[str, object]:
    return {
        "language": options.language,
        "pause": options.pause,
        "keyterms": list(options.keyterms),
    }


# -- in --------------------------------------------------------------------------------------------

_NUMBER = (float, int)


def decode(frame: str | bytes, reader: WordReader) -> Message:
    """The message in a frame. Raises PeerFault."""
    if isinstance(frame, bytes):
        return _read_audio(frame)
    try:
        fields = _read(frame)
    except (ValueError, RecursionError) as error:
        raise PeerFault(f"not JSON: {error}") from None
    if type(fields) is not dict:
        raise PeerFault("a message is an object")
    match fields.get("t"):
        case "u":
            return _read_update(fields, reader)
        case "f":
            return _read_final(fields, reader)
        case "z":
            return Finalize(_count(fields, "k"), _count(fields, "a"))
        case "configure":
            return Configure(_read_options(fields))
        case "open":
            return _read_open(fields)
        case "opened":
            chunk = _count(fields, "chunk")
            if chunk == 0:
                raise PeerFault("chunk is a positive number of samples")
            return Opened(_text(fields, "model"), chunk, _text(fields, "engine"))
        case "draining":
            return Draining()
        case kind:
            raise PeerFault(f"unknown message type {kind!r:.40}")


def _read_audio(frame: bytes) -> Audio:
    if len(frame) < _POSITION.size or len(frame) % 2:
        raise PeerFault("audio is 8 bytes of position, then whole samples")
    start = _POSITION.unpack_from(frame)[0]
    if start < 0:
        raise PeerFault("audio before the start of the stream")
    return Audio(start, frame[_POSITION.size :])


def _read_update(fields: dict[str, object], reader: WordReader) -> Update:
    segment, position = fields.get("k"), fields.get("p")
    if type(segment) is not int or type(position) is not int or segment < 0 or position < 0:
        raise PeerFault("an update names its segment and position")
    decoded = fields.get("d", position)
    if type(decoded) is not int or not 0 <= decoded <= position:
        raise PeerFault("decoded is a position before the update's own")
    words, confidence, language, language_confidence = _read_findings(segment, fields, reader)
    return Update(
        segment, position, _read_speech(fields.get("s")), words, decoded,
        confidence, language, language_confidence,
    )  # fmt: skip


def _read_final(fields: dict[str, object], reader: WordReader) -> Final:
    segment = _count(fields, "k")
    return Final(segment, _count(fields, "a"), *_read_findings(segment, fields, reader))


def _read_findings(
    segment: int, fields: dict[str, object], reader: WordReader
) -> tuple[Words, float, str | None, float]:
    first, rest = fields.get("f", 0), fields.get("w", [])
    confidence, language = fields.get("c", 0.0), fields.get("l")
    language_confidence = fields.get("m", 0.0)
    if (
        type(first) is int
        and type(rest) is list
        and isinstance(confidence, _NUMBER)
        and type(confidence) is not bool
        and (language is None or type(language) is str)
        and isinstance(language_confidence, _NUMBER)
        and type(language_confidence) is not bool
    ):
        words = reader.words(segment, first, rest)
        return words, float(confidence), language, float(language_confidence)
    raise PeerFault("words, confidence or language of the wrong type")


def _read_speech(digits: object) -> tuple[float, ...]:
    if type(digits) is not str:
        raise PeerFault("speech is a string")
    try:
        steps = bytes.fromhex(digits)
    except ValueError:
        raise PeerFault("speech is pairs of hexadecimal digits") from None
    if 2 * len(steps) != len(digits):  # fromhex skips spaces
        raise PeerFault("speech is pairs of hexadecimal digits")
    return tuple([_SPEECH[step] for step in steps])


def _read_open(fields: dict[str, object]) -> Open:
    committed = fields.get("committed")
    if type(committed) is not list:
        raise PeerFault("committed is an array of words")
    return Open(
        _text(fields, "session"),
        _read_options(fields),
        _count(fields, "segment"),
        _count(fields, "start"),
        tuple([read_word(each) for each in committed]),
        _count(fields, "committed_at"),
    )


def _read_options(fields: dict[str, object]) -> StreamOptions:
    options = fields.get("options")
    if type(options) is not dict:
        raise PeerFault("options is an object")
    language, keyterms = options.get("language"), options.get("keyterms")
    if not (language is None or type(language) is str):
        raise PeerFault("language is a string or null")
    if type(keyterms) is not list or not all(type(term) is str for term in keyterms):
        raise PeerFault("keyterms is an array of strings")
    return StreamOptions(language, _count(options, "pause"), tuple(keyterms))


def _count(fields: dict[str, object], key: str) -> int:
    value = fields.get(key)
    if type(value) is not int or value < 0:
        raise PeerFault(f"{key} is a number that is not negative")
    return value


def _text(fields: dict[str, object], key: str) -> str:
    value = fields.get(key)
    if type(value) is not str:
        raise PeerFault(f"{key} is a string")
    return value
