"""Where to cut a recording, so that each piece is taken whole by a model that takes half a minute
at a time, and no word is cut. Pure.

There is no model here that knows speech, so a window ends where it is quietest for a third of a
second, in its second half. A function of the audio alone.
"""

from collections.abc import Iterator

import numpy as np
from attrs import define, frozen

from ssasr.protocol.recognition import SAMPLE_RATE

LONGEST = 29 * SAMPLE_RATE
"""Samples of a window."""
EARLIEST = 15 * SAMPLE_RATE
FRAME = SAMPLE_RATE // 50
PAUSE = 15
"""Frames over which loudness is an average: 0.3 s."""


@frozen
class Window:
    """16-bit PCM at 16 kHz from sample ``start`` of the recording."""

    number: int
    start: int
    pcm: bytes

    @property
    def samples(self) -> int:
        return len(self.pcm) // 2


@define(eq=False)
class Windows:
    """``add`` what comes and take what is whole; ``rest`` at the end."""

    _pending: bytearray
    _start: int = 0
    _number: int = 0

    @classmethod
    def new(cls) -> "Windows":
        return cls(bytearray())

    @property
    def samples(self) -> int:
        """Added so far."""
        return self._start + len(self._pending) // 2

    def add(self, pcm: bytes) -> Iterator[Window]:
        self._pending += pcm
        while len(self._pending) >= 2 * LONGEST:
            first = bytes(self._pending[: 2 * LONGEST])
            yield self._cut(quietest(np.frombuffer(first, "<i2")))

    def remaining(self) -> Iterator[Window]:
        if self._pending:
            yield self._cut(len(self._pending) // 2)

    def _cut(self, samples: int) -> Window:
        window = Window(self._number, self._start, bytes(self._pending[: 2 * samples]))
        del self._pending[: 2 * samples]
        self._start += samples
        self._number += 1
        return window


def quietest(audio: "np.ndarray[tuple[int], np.dtype[np.int16]]") -> int:
    """The middle of the quietest pause between ``EARLIEST`` and the end; the latest of several."""
    late = audio[EARLIEST:].astype(np.float32)
    energies = (late[: len(late) // FRAME * FRAME].reshape(-1, FRAME) ** 2).mean(axis=1)
    smooth = np.convolve(energies, np.full(PAUSE, 1 / PAUSE, np.float32), "valid")
    last = len(smooth) - 1 - int(np.argmin(smooth[::-1]))
    return EARLIEST + last * FRAME + PAUSE * FRAME // 2
