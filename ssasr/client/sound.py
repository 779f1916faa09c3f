"""Recordings as one channel of samples: files, pipes, and WAV that is still being written."""

import io
import os
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import soundfile
from attrs import define, frozen
from numpy.typing import NDArray

from ssasr.client.connection import ClientError

STDIN = "-"
CHUNK_SECONDS = 0.1
LONGEST_HEADER = 1 << 20
"""Bytes before the samples of a WAV stream."""
CANCELLED = 0.05
"""Power of the mix, of that of the louder channel, below which the channels cancel each other: one
is the other turned over, as of a cable that is wired wrong."""
AUDIBLE = 1e-6
"""Power below which nothing is to be learnt from a block: -60 dB."""
_EXTENSIBLE = 0xFFFE
_SAMPLES = {(1, 16): "<i2", (1, 24): "<i3", (1, 32): "<i4", (1, 8): "u1", (3, 32): "<f4"}
"""Format and bits of WAV to numpy's name; ``<i3`` is ours."""
_FULL_SCALE = {"u1": 128, "<i2": 1 << 15, "<i4": 1 << 31, "<f4": 1}

Samples = NDArray[np.float32]


class Sound(Protocol):
    """float32 blocks (n, channels) at ``rate``; ``seconds`` is None where it is not known yet."""

    @property
    def rate(self) -> int: ...
    @property
    def seconds(self) -> float | None: ...
    def blocks(self) -> Iterator[Samples]: ...


@frozen
class SoundFile:
    """Whatever libsndfile reads."""

    rate: int
    seconds: float | None
    _sound: soundfile.SoundFile
    _name: str

    def blocks(self) -> Iterator[Samples]:
        """Raises ClientError where the file is damaged."""
        size, seconds = int(self.rate * CHUNK_SECONDS), 0.0
        with self._sound:
            try:
                for block in self._sound.blocks(size, dtype="float32", always_2d=True):
                    yield block
                    seconds += len(block) / self.rate
            except soundfile.LibsndfileError as error:
                raise ClientError(f"{self._name}: damaged after {seconds:.1f} s: {error}") from None


@frozen
class WavStream:
    """WAV without an end: from a pipe, or of a program that has not come back to its header."""

    rate: int
    seconds: float | None
    _stream: BinaryIO
    _format: str
    _channels: int

    @classmethod
    def open(cls, stream: BinaryIO, name: str) -> "WavStream":
        """``stream``: behind the first 12 bytes. Raises ClientError."""
        form = b""
        while len(head := stream.read(8)) == 8:
            chunk, size = struct.unpack("<4sI", head)
            if chunk == b"data" and len(form) >= 16:
                return cls._of(form, stream, name)
            if size > LONGEST_HEADER:
                break
            body = stream.read(size + size % 2)
            form = body if chunk == b"fmt " else form
        raise ClientError(f"{name}: a WAV header without samples")

    @classmethod
    def _of(cls, form: bytes, stream: BinaryIO, name: str) -> "WavStream":
        tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", form)
        if tag == _EXTENSIBLE and len(form) >= 26:
            (tag,) = struct.unpack_from("<H", form, 24)
        kind = _SAMPLES.get((tag, bits))
        if kind is None or not 1 <= channels <= 256 or not 1_000 <= rate <= 768_000:
            raise ClientError(f"{name}: WAV of format {tag} with {bits} bits is not read here")
        return cls(rate, None, stream, kind, channels)

    def blocks(self) -> Iterator[Samples]:
        width = int(self._format[-1]) * self._channels
        size = int(self.rate * CHUNK_SECONDS) * width
        with self._stream:
            while data := self._stream.read(size):
                yield _scaled(data[: len(data) - len(data) % width], self._format, self._channels)


def _scaled(data: bytes, form: str, channels: int) -> Samples:
    """float32 (n, channels) in [-1, 1]."""
    if form == "<i3":
        data = b"".join([b"\0" + data[i : i + 3] for i in range(0, len(data), 3)])
        form = "<i4"
    values = np.frombuffer(data, form).astype(np.float32).reshape(-1, channels)
    if form == "u1":
        values -= 128
    return values / np.float32(_FULL_SCALE[form])


def open_sound(name: str) -> Sound:
    """``name``: of a file or a pipe, or ``-``. Raises ClientError if it is not audio we read."""
    if name == STDIN:
        return _open_stream(sys.stdin.buffer, "standard input")
    path = Path(name)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return _open_stream(path.open("rb"), name)
        with path.open("rb") as file:
            if _is_unfinished(file.read(12), file, path.stat().st_size):
                stream = path.open("rb")
                stream.seek(12)
                return WavStream.open(stream, name)
    except FileNotFoundError:
        raise ClientError(f"{name}: no such file") from None
    except OSError as error:
        raise ClientError(f"{name}: {error.strerror}") from None
    return _open_file(path, name)


def _is_unfinished(head: bytes, file: BinaryIO, size: int) -> bool:
    """Whether a WAV header says that there is nothing, or more than there is."""
    if not _is_wav(head):
        return False
    while len(chunk := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", chunk)
        if name == b"data":
            rest = size - file.tell()
            return bool(rest) and not 0 < length <= rest
        file.seek(length + length % 2, io.SEEK_CUR)
    return False


def _is_wav(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"WAVE"


def _open_stream(stream: BinaryIO, name: str) -> Sound:
    """WAV as it comes; other formats need all of it first."""
    head = stream.read(12)
    if _is_wav(head):
        return WavStream.open(stream, name)
    with stream:
        whole = io.BytesIO(head + stream.read())
    return _open_file(whole, name)


def _open_file(source: Path | BinaryIO, name: str) -> SoundFile:
    try:
        sound = soundfile.SoundFile(source)
    except (soundfile.LibsndfileError, OSError):
        # What the library says of a file that is no MP3 is that it does not exist.
        raise ClientError(f"{name}: no audio that can be read (WAV, FLAC, Ogg, MP3 …)") from None
    return SoundFile(sound.samplerate, sound.frames / sound.samplerate, sound, name)


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """The libraries that decode write to file descriptor 2 what they think of a file; it goes
    nowhere, while what Python writes to ``sys.stderr`` goes where it went."""
    before = sys.__stderr__
    if before is None or sys.stderr is not before:
        yield  # somebody has other plans with it
        return
    before.flush()
    kept = os.dup(2)
    ours = os.fdopen(kept, "w", buffering=1, encoding=before.encoding, errors=before.errors)
    with open(os.devnull, "wb") as nowhere, ours:
        os.dup2(nowhere.fileno(), 2)
        try:
            with redirect_stderr(ours):
                yield
        finally:
            os.dup2(kept, 2)


@define
class Mixer:
    """Several channels to one. ``channel``: the one to take, from 1; None: their mean, or the
    louder one alone from where they are found to cancel each other."""

    channel: int | None = None
    cancelled: bool = False

    def mixed(self, block: Samples) -> Samples:
        """(n, channels) to (n,). Raises ClientError for a channel that is not there."""
        count = block.shape[1]
        if self.channel is not None:
            if self.channel > count:
                raise ClientError(f"there is no channel {self.channel}, there are {count}")
            return block[:, self.channel - 1]
        mean: Samples = block.mean(axis=1)
        if count == 1 or not len(block):
            return mean
        powers = (block**2).mean(axis=0)
        loudest = float(powers.max())
        if loudest < AUDIBLE or float((mean**2).mean()) >= CANCELLED * loudest:
            return mean
        self.channel, self.cancelled = int(powers.argmax()) + 1, True
        return block[:, self.channel - 1]


def to_pcm(samples: Samples) -> bytes:
    """float32 (n,) in [-1, 1] to little-endian 16-bit."""
    return np.clip(np.round(samples * 32_768), -32_768, 32_767).astype("<i2").tobytes()
