"""An engine's answers as binary frames that hold only what has changed, and strictly back.

Updates come ten times a second and more for every session, and in most of them only the position
and the speech probabilities are new. So a frame holds these, and words and judgement only where
they differ from the last frame about the same segment. For unchanged values the reader returns the
same objects as before, so that later stages see by identity that there is nothing to do. The
meaning of a frame depends on the frames before it in its segment. Little-endian:

    head        what follows: 1 words, 2 judgement, 8 voices; 4: a final      u8
                segment                                                       u32
                position, of a final its end                                  u64
                how far the decoded audio ends before it                      u32
                number of speech probabilities                                u16
    speech      each in steps of 1/255, finer than any threshold              u8
    judgement   end of turn, confidence of the language                       f64, f64
                bytes of the language, -1: none                               i16
                language, UTF-8
    words       how many leading words stay as they were, how many follow     u32, u32
                of each start u64, length u32, confidence f64, final u8, bytes of the text u32,
                and the text, UTF-8
    voices      how many windows (u8), each as ``voices`` has it

Before the first frame of a segment there are no words and the judgement is that of nothing.
Everything out of range, short or long is a ``PeerFault``.
"""

import struct
from math import isfinite

from attrs import define

from ssasr.protocol.faults import LocalProtocolError, PeerFault
from ssasr.protocol.recognition import Final, Update, Word
from ssasr.protocol.voices import Voices, read_voices, write_voices

Words = tuple[Word, ...]
Judgement = tuple[float, str | None, float]
"""End-of-turn confidence, language, its confidence."""

WORDS, JUDGEMENT, FINAL, VOICES = 1, 2, 4, 8
NOTHING: Judgement = (0.0, None, 0.0)

_HEAD = struct.Struct("<BIQIH")
_JUDGEMENT = struct.Struct("<ddh")
_WORDS = struct.Struct("<II")
_WORD = struct.Struct("<QIdBI")
_COUNT = struct.Struct("<B")
_SPEECH = tuple(step / 255 for step in range(256))


@define
class DeltaWriter:
    """The engine's end of one link."""

    _segment: int = -1
    _words: Words = ()
    _judgement: Judgement = NOTHING

    def write(self, answer: Update | Final) -> bytes:
        """One frame. Raises LocalProtocolError for values that cannot be written: a bug of
        ours."""
        try:
            return self._write(answer)
        except (ValueError, struct.error) as error:
            raise LocalProtocolError(
                f"{type(answer).__name__} cannot be written: {error}"
            ) from None

    def _write(self, answer: Update | Final) -> bytes:
        same = answer.segment == self._segment
        words, judgement = (self._words, self._judgement) if same else ((), NOTHING)
        what, body = 0, b""
        new = (answer.end_of_turn_confidence, answer.language, answer.language_confidence)
        if new != judgement:
            what |= JUDGEMENT
            body = _judgement_bytes(new)
        if answer.words != words:  # by identity, mostly: an engine keeps its words
            what |= WORDS
            body += _words_bytes(words, answer.words)
        if answer.voices:
            what |= VOICES
            body += bytes([len(answer.voices)]) + b"".join(map(write_voices, answer.voices))
        if isinstance(answer, Update):
            speech = bytes([int(each * 255 + 0.5) for each in answer.speech])
            behind = answer.position - answer.decoded
            head = _HEAD.pack(what, answer.segment, answer.position, behind, len(speech))
        else:
            speech = b""
            head = _HEAD.pack(what | FINAL, answer.segment, answer.at, 0, 0)
        self._segment, self._words, self._judgement = answer.segment, answer.words, new
        return head + speech + body


def _finite(value: float) -> float:
    if not isfinite(value):
        raise ValueError(f"{value} is not finite")
    return value


def _judgement_bytes(judgement: Judgement) -> bytes:
    confidence, language, language_confidence = judgement
    text = b"" if language is None else language.encode()
    size = -1 if language is None else len(text)
    return _JUDGEMENT.pack(_finite(confidence), _finite(language_confidence), size) + text


def _words_bytes(known: Words, words: Words) -> bytes:
    kept = 0
    for mine, theirs in zip(known, words, strict=False):
        if mine is not theirs and mine != theirs:
            break
        kept += 1
    parts = [_WORDS.pack(kept, len(words) - kept)]
    for word in words[kept:]:
        text = word.text.encode()
        length = word.end - word.start
        parts.append(
            _WORD.pack(word.start, length, _finite(word.confidence), word.final, len(text))
        )
        parts.append(text)
    return b"".join(parts)


@define
class DeltaReader:
    """The inverse of ``DeltaWriter``."""

    _segment: int = -1
    _words: Words = ()
    _judgement: Judgement = NOTHING

    def read(self, frame: bytes) -> Update | Final:
        """The answer in a frame. Raises PeerFault; the reader's state has then not changed."""
        try:
            return self._read(frame)
        except (UnicodeDecodeError, struct.error) as error:
            raise PeerFault(f"not an engine's delta: {error}") from None

    def _read(self, frame: bytes) -> Update | Final:
        what, segment, position, behind, count = _HEAD.unpack_from(frame)
        at = _HEAD.size + count
        speech = tuple(map(_SPEECH.__getitem__, frame[_HEAD.size : at]))
        same = segment == self._segment
        words, judgement = (self._words, self._judgement) if same else ((), NOTHING)
        if what & JUDGEMENT:
            judgement, at = _read_judgement(frame, at)
        if what & WORDS:
            words, at = _read_words(frame, at, words)
        voices: tuple[Voices, ...] = ()
        if what & VOICES:
            voices, at = _read_windows(frame, at, position)
        if at != len(frame) or what > (WORDS | JUDGEMENT | FINAL | VOICES) or behind > position:
            raise PeerFault("a delta longer or shorter than its head says")
        if what & FINAL and (count or behind):
            raise PeerFault("a final with the speech or the delay of an update")
        self._segment, self._words, self._judgement = segment, words, judgement
        if what & FINAL:
            return Final(segment, position, words, *judgement, voices)
        return Update(segment, position, speech, words, position - behind, *judgement, voices)


def _read_judgement(frame: bytes, at: int) -> tuple[Judgement, int]:
    confidence, language_confidence, size = _JUDGEMENT.unpack_from(frame, at)
    if not (isfinite(confidence) and isfinite(language_confidence) and size >= -1):
        raise PeerFault("a judgement in numbers")
    at += _JUDGEMENT.size
    if size < 0:
        return (confidence, None, language_confidence), at
    return (confidence, frame[at : at + size].decode(), language_confidence), at + size


def _read_windows(frame: bytes, at: int, position: int) -> tuple[tuple[Voices, ...], int]:
    """``position``: none ends after it."""
    (count,) = _COUNT.unpack_from(frame, at)
    at += _COUNT.size
    windows = []
    for _ in range(count):
        window, at = read_voices(frame, at)
        windows.append(window)
    ends = [0, *(window.end for window in windows), position]
    if sorted(ends) != ends:
        raise PeerFault("voices of windows in their order, up to the position")
    return tuple(windows), at


def _read_words(frame: bytes, at: int, known: Words) -> tuple[Words, int]:
    """``known``: the words so far."""
    kept, count = _WORDS.unpack_from(frame, at)
    if kept > len(known):
        raise PeerFault(f"the delta builds on {kept} words, {len(known)} are known")
    at += _WORDS.size
    words = []
    for _ in range(count):
        start, length, confidence, final, size = _WORD.unpack_from(frame, at)
        if not isfinite(confidence) or final > 1:
            raise PeerFault("a word's confidence is a number, and it is final or not")
        at += _WORD.size
        text = frame[at : at + size].decode()
        at += size
        words.append(Word(text, start, start + length, confidence, final == 1))
    return known[:kept] + tuple(words), at
