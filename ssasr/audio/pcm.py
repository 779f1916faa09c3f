"""The interface of decoders, and those of uncompressed audio: 16-bit PCM, mu-law and A-law."""

import functools
from collections.abc import Callable
from typing import Protocol

import numpy as np

from ssasr.audio.resampling import Resampler, Samples, pcm_bytes


class Decoder(Protocol):
    """Bytes of one session's audio in, little-endian signed 16-bit PCM at 16 kHz out."""

    def decode(self, data: bytes) -> bytes:
        """Whole samples, perhaps none: a resampler keeps what it has not finished."""

    def flush(self) -> bytes:
        """What was kept, at the end of the audio; nothing may be decoded afterwards."""


class WholeSamples:
    """An odd byte waits for the next message, and is dropped at the end."""

    def __init__(self) -> None:
        self._odd = b""

    def whole(self, data: bytes) -> bytes:
        """The bytes of the 16-bit samples that are complete."""
        if not self._odd and len(data) % 2 == 0:
            return data
        data = self._odd + data
        size = len(data) & ~1
        self._odd = data[size:]
        return data[:size]


class NativeRate(WholeSamples):
    """For PCM at 16 kHz there is nothing to do."""

    def decode(self, data: bytes) -> bytes:
        return self.whole(data)

    def flush(self) -> bytes:
        return b""


class SampleFormat(Protocol):
    """How one encoding writes samples."""

    def samples(self, data: bytes) -> Samples:
        """The samples that are complete."""


class Linear16(WholeSamples):
    """Little-endian signed 16 bit."""

    def samples(self, data: bytes) -> Samples:
        return np.frombuffer(self.whole(data), dtype="<i2").astype(np.int16, copy=False)


class MuLaw:
    """ITU-T G.711 mu-law, one byte a sample."""

    def samples(self, data: bytes) -> Samples:
        return mulaw_table()[np.frombuffer(data, dtype=np.uint8)]


@functools.cache
def mulaw_table() -> Samples:
    """int16 (256,): the value of every code (G.711, table 2a/2b: 14 bits, here scaled to 16)."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    magnitude = (((mantissa << 3) + 0x84) << exponent) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


class ALaw:
    """ITU-T G.711 A-law, one byte a sample."""

    def samples(self, data: bytes) -> Samples:
        return alaw_table()[np.frombuffer(data, dtype=np.uint8)]


@functools.cache
def alaw_table() -> Samples:
    """int16 (256,): the value of every code (G.711, table 1a/1b: 13 bits, here scaled to 16)."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    magnitude = (mantissa << 4) + np.where(exponent > 0, 0x108, 8)
    magnitude <<= np.maximum(exponent.astype(np.int32) - 1, 0)
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


SAMPLE_FORMATS: dict[str, Callable[[], SampleFormat]] = {
    "pcm_s16le": Linear16,
    "pcm_mulaw": MuLaw,
    "pcm_alaw": ALaw,
}


class PcmDecoder:
    """A sample format and a rate."""

    def __init__(self, samples: SampleFormat, resampler: Resampler) -> None:
        self._samples = samples
        self._resampler = resampler

    def decode(self, data: bytes) -> bytes:
        return pcm_bytes(self._resampler.resample(self._samples.samples(data)))

    def flush(self) -> bytes:
        return pcm_bytes(self._resampler.resample(np.zeros(0, dtype=np.int16), last=True))
