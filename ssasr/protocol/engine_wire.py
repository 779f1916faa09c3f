"""The engine link's messages as WebSocket frames, and strictly back.

A binary frame holds audio (towards the engine: the stream position of its first sample as 8
little-endian bytes, then the PCM as it is) or an engine's delta (``engine_delta``). Everything else
is a JSON object in a text frame, its type under ``t``. Everything of the wrong type or out of range
is a ``PeerFault``; keys that are not known are ignored, because the other end may be newer.
"""

import json
import struct

from ssasr.protocol import strict_json
from ssasr.protocol.faults import LocalProtocolError, PeerFault
from ssasr.protocol.modes import MODES
from ssasr.protocol.recognition import (
    SPEECH_THRESHOLD,
    Audio,
    Configure,
    Draining,
    Finalize,
    FromEngine,
    Open,
    Opened,
    StreamOptions,
    ToEngine,
    Word,
)
from ssasr.protocol.voices import CONTEXT

Message = Open | ToEngine | Opened | FromEngine
Text = Open | Configure | Finalize | Opened | Draining
"""Those in text frames."""

_POSITION = struct.Struct("<q")

# json.dumps with arguments builds an encoder for every call; these two are immutable.
_write = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


# -- words -----------------------------------------------------------------------------------------


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


def encode_audio(audio: Audio) -> bytes:
    return _POSITION.pack(audio.start) + audio.pcm


def encode(message: Text) -> str:
    """One text frame. Raises LocalProtocolError for a number that cannot be written: a bug of
    ours."""
    try:
        return _write(_fields(message))
    except ValueError as error:
        raise LocalProtocolError(f"{type(message).__name__} cannot be written: {error}") from None


def _fields(message: Text) -> dict[str, object]:
    match message:
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
                "language_before": message.language_before,
                **({"context": message.context} if message.context else {}),
            }
        case Opened(model, chunk, engine, speakers, translates):
            opened = {"t": "opened", "model": model, "chunk": chunk, "engine": engine}
            return opened | _set_flags(speakers=speakers, translates=translates)
        case Draining():
            return {"t": "draining"}


def _options(options: StreamOptions) -> dict[str, object]:
    return {
        "languages": list(options.languages),
        "pause": options.pause,
        "keyterms": list(options.keyterms),
        "vad_threshold": options.vad_threshold,
        **_set_flags(
            speakers=options.speakers,
            tentative=options.tentative,
            offline=options.offline,
            translate=options.translate,
        ),
        **({"prompt": options.prompt} if options.prompt else {}),
        **({} if options.mode is None else {"mode": options.mode}),
        **({"names": list(options.names)} if options.names else {}),
    }


def _set_flags(**flags: bool) -> dict[str, object]:
    """Those that are not set stay unwritten."""
    return {name: True for name, value in flags.items() if value}


# -- in --------------------------------------------------------------------------------------------

_NUMBER = (float, int)


def decode_audio(frame: bytes) -> Audio:
    """Raises PeerFault."""
    if len(frame) < _POSITION.size or len(frame) % 2:
        raise PeerFault("audio is 8 bytes of position, then whole samples")
    start = _POSITION.unpack_from(frame)[0]
    if start < 0:
        raise PeerFault("audio before the start of the stream")
    return Audio(start, frame[_POSITION.size :])


def decode(frame: str) -> Text:
    """The message in a text frame. Raises PeerFault."""
    try:
        fields = strict_json.read(frame)
    except (ValueError, RecursionError) as error:
        raise PeerFault(f"not JSON: {error}") from None
    if type(fields) is not dict:
        raise PeerFault("a message is an object")
    match fields.get("t"):
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
            speakers = _flag(fields, "speakers")
            translates = _flag(fields, "translates")
            return Opened(
                _text(fields, "model"), chunk, _text(fields, "engine"), speakers, translates
            )
        case "draining":
            return Draining()
        case kind:
            raise PeerFault(f"unknown message type {kind!r:.40}")


def _read_open(fields: dict[str, object]) -> Open:
    committed, before = fields.get("committed"), fields.get("language_before")
    if type(committed) is not list:
        raise PeerFault("committed is an array of words")
    if not (before is None or type(before) is str):
        raise PeerFault("language_before is a string or null")
    start, context = _count(fields, "start"), _count({"context": 0, **fields}, "context")
    if context > min(start, CONTEXT):
        raise PeerFault(f"{context} samples of context before sample {start}")
    return Open(
        _text(fields, "session"),
        _read_options(fields),
        _count(fields, "segment"),
        start,
        tuple([read_word(each) for each in committed]),
        _count(fields, "committed_at"),
        before,
        context,
    )


def _read_options(fields: dict[str, object]) -> StreamOptions:
    options = fields.get("options")
    if type(options) is not dict:
        raise PeerFault("options is an object")
    return StreamOptions(
        _texts(options, "languages"),
        _count(options, "pause"),
        _texts(options, "keyterms"),
        _share(options, "vad_threshold", SPEECH_THRESHOLD),
        _flag(options, "speakers"),
        _flag(options, "tentative"),
        _flag(options, "offline"),
        _flag(options, "translate"),
        _text({"prompt": "", **options}, "prompt"),
        _mode(options),
        _texts({"names": [], **options}, "names"),
    )


def _mode(fields: dict[str, object]) -> str | None:
    value = fields.get("mode")
    if value is None or value in MODES:
        return None if value is None else str(value)
    raise PeerFault(f"mode is one of {', '.join(MODES)}")


def _share(fields: dict[str, object], key: str, default: float) -> float:
    value = fields.get(key, default)
    if type(value) not in _NUMBER or not 0 <= float(str(value)) <= 1:
        raise PeerFault(f"{key} is a number from 0 to 1")
    return float(str(value))


def _count(fields: dict[str, object], key: str) -> int:
    value = fields.get(key)
    if type(value) is not int or value < 0:
        raise PeerFault(f"{key} is a number that is not negative")
    return value


def _flag(fields: dict[str, object], key: str) -> bool:
    """False where it is left out."""
    value = fields.get(key, False)
    if type(value) is not bool:
        raise PeerFault(f"{key} is true or false")
    return value


def _texts(fields: dict[str, object], key: str) -> tuple[str, ...]:
    value = fields.get(key)
    if type(value) is not list or not all(type(each) is str for each in value):
        raise PeerFault(f"{key} is an array of strings")
    return tuple(value)


def _text(fields: dict[str, object], key: str) -> str:
    value = fields.get(key)
    if type(value) is not str:
        raise PeerFault(f"{key} is a string")
    return value
