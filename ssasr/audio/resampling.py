"""To 16 kHz, streaming."""

import numpy as np
import soxr
from numpy.typing import NDArray

from ssasr.protocol.recognition import SAMPLE_RATE

Samples = NDArray[np.int16]


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


def pcm_bytes(samples: Samples) -> bytes:
    """Little-endian signed 16 bit."""
    return samples.astype("<i2", copy=False).tobytes()
