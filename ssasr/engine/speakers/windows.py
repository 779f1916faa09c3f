"""The interface of a model that tells who speaks when; which windows of a stream it is to listen
to, and which answer each belongs to. Pure.

The windows of a segment end at whole multiples of the hop from its start, and at its end. A model
may be asked for a segment's end behind what it has processed already; windows that end later are
then nobody's, and the next segment has its own.
"""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ssasr.engine.pcm_buffer import PcmBuffer
from ssasr.protocol.voices import CONTEXT, Voices

Samples = NDArray[np.float32]
_SCALE = np.float32(1 / 32_768)


@frozen(eq=False)
class Window:
    """The audio before stream sample ``end``, float32 in [-1, 1)."""

    end: int
    audio: Samples
    since: int = 0
    """Where the window before ends: whatever is earlier is in that one, too."""


class Diarizer(Protocol):
    """Who speaks when. Called from the model thread. A model that names speakers for itself answers
    with a name's own embedding (``protocol.voices``)."""

    @property
    def hop(self) -> int:
        """Samples between two windows."""

    def warm_up(self) -> None:
        """Do whatever makes the first windows as fast as the later ones."""

    def find_voices(self, windows: Sequence[Window]) -> list[Voices]:
        """Who is active in each, in their order."""


class WindowPlan:
    """Of one stream. ``hop``: samples between two windows; ``start``: of the open segment."""

    def __init__(self, hop: int, segment: int, start: int) -> None:
        self._hop = hop
        self._found: deque[tuple[int, Voices]] = deque()
        """Answers that have not gone out, with their segments."""
        self._begin(segment, start)

    def _begin(self, segment: int, start: int) -> None:
        self._segment, self._start = segment, start
        self._planned = 0
        """Windows of the segment that were planned, the last one apart."""
        self._ended = False

    def due(
        self, pcm: PcmBuffer, segment: int, start: int, upto: int, final_at: int | None
    ) -> tuple[Window, ...]:
        """The windows that a step up to ``upto`` has to listen to, which ends the segment at
        ``final_at`` if that is given."""
        if segment != self._segment:
            self._begin(segment, start)
        ends = []
        until = upto if final_at is None else min(upto, final_at)
        while (end := self._start + (self._planned + 1) * self._hop) <= until:
            self._planned += 1
            ends.append(end)
        if final_at is not None and not self._ended:
            hops, rest = divmod(final_at - self._start, self._hop)
            if rest or not 0 < hops <= self._planned:
                ends.append(final_at)
            self._ended = True
        return tuple(_cut(pcm, self._before(end), end) for end in ends)

    def _before(self, end: int) -> int:
        """Where the window before the one that ends there does: whatever was planned since."""
        hops = max(0, end - self._start - 1) // self._hop
        return self._start + hops * self._hop

    def found(self, segment: int, windows: Sequence[Voices]) -> None:
        """The voices of windows that were due."""
        self._found.extend((segment, voices) for voices in windows)

    def for_answer(self, segment: int, position: int, *, final: bool) -> tuple[Voices, ...]:
        """What goes with the segment's answer for ``position``."""
        found = self._found
        ready = []
        while found and found[0][0] <= segment and (final or found[0][1].end <= position):
            number, voices = found.popleft()
            if number == segment and voices.end <= position:
                ready.append(voices)
        return tuple(ready)


def _cut(pcm: PcmBuffer, since: int, end: int) -> Window:
    begin = max(pcm.kept_from, end - CONTEXT)
    audio = np.frombuffer(b"".join(pcm.read(begin, end)), "<i2").astype(np.float32) * _SCALE
    return Window(end, audio, since)
