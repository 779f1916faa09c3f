"""Who speaks when, as an engine tells a session that asked for it (``StreamOptions.speakers``).

An engine listens to windows of at most ``CONTEXT`` samples. Those of a segment end at whole
multiples of the engine's own hop from the segment's start, and one more ends where the segment
does; a window reaches back beyond the start of its segment. What it says of a window is a function
of the audio in it alone, so that an engine that takes a stream over says the same. A voice is a
piece of what one person says, of some seconds. Which pieces the model took for one person's is
their channel, numbered anew in each window: whose they are is for the session to decide, by their
embeddings, which the cosine compares.

On the wire a window is, little-endian:

    end u64, length u32 (samples), number of voices u8
    of each voice: channel u8, clean speech u32 (samples), bytes of the embedding u16, number of
        runs u16, each run: start u32, end u32 (samples from the window's start; the start's
        highest bit: somebody else is louder), and the embedding, float16

A model that keeps its own numbers of speakers over a whole stream (a streaming Sortformer) fits:
a number is an embedding whose cosine with itself is 1 and with others 0.
"""

import struct

from attrs import frozen

from ssasr.protocol.faults import PeerFault

CONTEXT = 160_000
"""Samples before the start of a segment that an engine may look back to."""
MAX_EMBEDDING = 4_096
"""Bytes."""

_WINDOW = struct.Struct("<QIB")
_VOICE = struct.Struct("<BIHH")
_RUN = struct.Struct("<II")
_QUIETER = 1 << 31


@frozen
class Run:
    """Stream samples during which a voice is active without a pause."""

    start: int
    end: int
    louder: bool = True
    """False: somebody else is active too, and louder."""


@frozen
class Voice:
    """A piece of what somebody says in one window."""

    runs: tuple[Run, ...]
    """Ascending."""
    clean: int = 0
    """Samples of speech without anybody else's that the embedding is made from."""
    embedding: bytes = b""
    """float16, of length 1; empty where there was too little clean speech, or none of late."""
    channel: int = 0
    """What has the same number in one window is one person to the model that separated them."""


@frozen
class Voices:
    """Everybody active in the window from ``start`` to ``end``."""

    start: int
    end: int
    voices: tuple[Voice, ...]


def write_voices(window: Voices) -> bytes:
    """Raises struct.error or ValueError for what has no place on the wire."""
    parts = [_WINDOW.pack(window.end, window.end - window.start, len(window.voices))]
    for voice in window.voices:
        parts.append(_VOICE.pack(voice.channel, voice.clean, len(voice.embedding), len(voice.runs)))
        for run in voice.runs:
            start, end = run.start - window.start, run.end - window.start
            parts.append(_RUN.pack(start if run.louder else start | _QUIETER, end))
        parts.append(voice.embedding)
    return b"".join(parts)


def read_voices(frame: bytes, at: int) -> tuple[Voices, int]:
    """The window that begins at byte ``at``, and where it ends. Raises PeerFault, struct.error."""
    end, length, count = _WINDOW.unpack_from(frame, at)
    at += _WINDOW.size
    start = end - length
    if start < 0:
        raise PeerFault("a window before the stream")
    voices = []
    for _ in range(count):
        channel, clean, size, runs = _VOICE.unpack_from(frame, at)
        at += _VOICE.size
        spoken = tuple(_read_run(frame, at + i * _RUN.size, start, length) for i in range(runs))
        at += runs * _RUN.size
        embedding = frame[at : at + size]
        if len(embedding) != size or size % 2 or size > MAX_EMBEDDING or clean > length:
            raise PeerFault("a voice's embedding is whole float16 numbers")
        at += size
        voices.append(Voice(spoken, clean, embedding, channel))
    return Voices(start, end, tuple(voices)), at


def _read_run(frame: bytes, at: int, origin: int, length: int) -> Run:
    start, end = _RUN.unpack_from(frame, at)
    louder = not start & _QUIETER
    start &= ~_QUIETER
    if not start < end <= length:
        raise PeerFault("a voice is active inside its window")
    return Run(origin + start, origin + end, louder)
