"""The client's audio as 16 kHz mono PCM, whatever it sends and however it cuts it.

Every decoder gives the same samples for the same bytes in any cut (``opus``, one packet a message,
is the exception that its framing makes). Decoders hold state and belong to one session.
"""

import functools
from typing import Protocol

import numpy as np
import soxr
from numpy.typing import NDArray

from ssasr.protocol.faults import invalid_value
from ssasr.protocol.parameters import SessionParameters
from ssasr.protocol.recognition import SAMPLE_RATE

Samples = NDArray[np.int16]


class Decoder(Protocol):
    """Bytes of one session's audio in, little-endian signed 16-bit PCM at 16 kHz out."""

    def decode(self, data: bytes) -> bytes:
        """Whole samples, perhaps none: a resampler keeps what it has not finished."""

    def flush(self) -> bytes:
        """What was kept, at the end of the audio; nothing may be decoded afterwards."""


def make_decoder(parameters: SessionParameters) -> Decoder:
    """The decoder for the session's encoding. ``ClientFault`` 3006 when it is a compressed one and
    the extra that decodes those is not installed."""
    if parameters.compressed:
        return _compressed(parameters.encoding)
    mulaw = parameters.encoding == "pcm_mulaw"
    if not mulaw and parameters.sample_rate == SAMPLE_RATE:
        return NativeRate()
    return PcmDecoder(MuLaw() if mulaw else Linear16(), Resampler(parameters.sample_rate))


def _compressed(encoding: str) -> Decoder:
    try:
        from ssasr.audio.compressed import make_compressed_decoder
    except ModuleNotFoundError as missing:
        if missing.name != "av":
            raise
        raise invalid_value("encoding", f"{encoding} is not available on this server") from None
    return make_compressed_decoder(encoding)


# -- bytes to samples ------------------------------------------------------------------------------


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


# -- rates -----------------------------------------------------------------------------------------


class Resampler:
    """Streaming, to 16 kHz; hands samples through where nothing is to do."""

    def __init__(self, rate: int) -> None:
        same = rate == SAMPLE_RATE
        # float32: soxr dithers 16-bit output, which depends on how the input was cut.
        self._stream = None if same else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")

    def resample(self, samples: Samples, *, last: bool = False) -> Samples:
        if self._stream is None:
            return samples
        return rounded(self._stream.resample_chunk(samples.astype(np.float32), last=last))


def rounded(samples: NDArray[np.float32]) -> Samples:
    """To 16 bits; what is too loud is clipped."""
    return np.clip(np.rint(samples), -32_768, 32_767).astype(np.int16)


class PcmDecoder:
    """A sample format and a rate."""

    def __init__(self, samples: SampleFormat, resampler: Resampler) -> None:
        self._samples = samples
        self._resampler = resampler

    def decode(self, data: bytes) -> bytes:
        return pcm(self._resampler.resample(self._samples.samples(data)))

    def flush(self) -> bytes:
        return pcm(self._resampler.resample(np.zeros(0, dtype=np.int16), last=True))


def pcm(samples: Samples) -> bytes:
    return samples.astype("<i2", copy=False).tobytes()
