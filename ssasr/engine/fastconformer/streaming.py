"""Which rows a step needs, for each stream: pure bookkeeping in sample, frame and chunk numbers.

A ``RowPlan`` gives the rows of one stream for one ``Work``. Usually that is one row: append the new
samples, compute the chunk that they complete. There are more when the engine is behind, and at the
end of a segment, where the last chunk is cut short and one more may hold a single frame. A segment
that ends before what has been processed goes back to the last chunk that did not need the audio
after its end.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from ssasr.engine.fastconformer.config import FRAME, HOP
from ssasr.engine.fastconformer.features import REACH
from ssasr.engine.fastconformer.program import ENDLESS
from ssasr.protocol.recognition import VAD_FRAME


@frozen
class Grid:
    """When chunks can be computed."""

    chunk_frames: int

    @property
    def chunk(self) -> int:
        """Samples of a chunk."""
        return self.chunk_frames * FRAME

    @property
    def unseen(self) -> int:
        """Samples at the end of a chunk that it does not need."""
        return FRAME - REACH

    def needed(self, chunk: int) -> int:
        """Samples that chunk number ``chunk`` (from 0) needs: up to the end of the window of its
        last frame's last mel frame."""
        return (chunk + 1) * self.chunk - self.unseen

    def complete(self, samples: int) -> int:
        """Chunks that so many samples allow."""
        return max(0, (samples - REACH + FRAME) // self.chunk)

    @staticmethod
    def frames_at_end(samples: int) -> int:
        """Encoder frames of a segment of so many samples. A segment shorter than a mel frame has
        none; otherwise ``encoder.encoder_frames``, written for one integer."""
        mel = samples // HOP
        return (mel + 6) // 8 + 1 if mel else 0


@define
class Progress:
    """How far a segment has come."""

    samples: int = 0
    chunks: int = 0
    vad_frames: int = 0


class Row(NamedTuple):
    """One stream's share of one run of the program; fields as in ``program.Column``."""

    position: int
    audio: NDArray[np.float32]
    chunk: int
    end: int
    vad_first: int
    vad_count: int


@define
class RowPlan:
    """Rows of one stream, one after the other; ``progress`` is kept up to date."""

    grid: Grid
    progress: Progress
    _audio: NDArray[np.float32]
    end: int | None
    """Samples the segment has in all, if it ends here."""
    _offset: int = 0
    _rows_left: bool = field(default=True, init=False)

    @classmethod
    def begin(
        cls, grid: Grid, progress: Progress, audio: NDArray[np.float32], end: int | None
    ) -> Self:
        """``end`` may lie before what has been processed; the chunks after it are then undone."""
        if end is not None:
            audio = audio[: max(0, end - progress.samples)]
            progress.chunks = min(progress.chunks, grid.complete(end))
        plan = cls(grid, progress, audio, end)
        plan._rows_left = plan._next_size() > 0 or plan._computes(progress.samples)
        return plan

    @property
    def rows_left(self) -> bool:
        """Whether ``next_row`` has another one."""
        return self._rows_left

    def next_row(self) -> Row:
        """The next row; the caller runs it before it asks for another."""
        progress, size = self.progress, self._next_size()
        received = progress.samples + size
        arrived = self._offset + size == len(self._audio)
        computes = self._computes(received)
        vad_count = max(0, received // VAD_FRAME - progress.vad_frames)
        row = Row(
            progress.samples,
            self._audio[self._offset : self._offset + size],
            progress.chunks if computes else -1,
            self.end if self.end is not None and arrived else ENDLESS,
            progress.vad_frames,
            vad_count,
        )
        self._offset += size
        progress.samples, progress.chunks = received, progress.chunks + computes
        progress.vad_frames += vad_count
        self._rows_left = self._offset < len(self._audio) or self._computes(received)
        return row

    def _next_size(self) -> int:
        # A chunk of the grid at a time, so that a backlog is stepped as it would have been.
        return min(self.grid.chunk, len(self._audio) - self._offset)

    def _computes(self, received: int) -> bool:
        """Whether the next chunk can be computed with ``received`` samples."""
        chunks = self.progress.chunks
        if received >= self.grid.needed(chunks) and (self.end is None or received <= self.end):
            return True
        if self.end is None or received < self.end:
            return False
        return chunks * self.grid.chunk_frames < self.grid.frames_at_end(self.end)


def can_rewind(grid: Grid, progress: Progress, end: int, rewind: int) -> bool:
    """Whether the slots still hold what going back to sample ``end`` needs."""
    return progress.chunks - grid.complete(end) <= rewind


def write_table(table: NDArray[np.int64], rows: Sequence[Row]) -> None:
    """Write rows into a part of ``program.Inputs.table``, all columns but the slot and the
    prompt."""
    table[:, 1:5] = [(row.position, len(row.audio), row.chunk, row.end) for row in rows]
    table[:, 6:8] = [(row.vad_first, row.vad_count) for row in rows]


def write_audio(
    audio: NDArray[np.float32], pieces: Sequence[NDArray[np.float32]], whole: int
) -> None:
    """Write one piece into the beginning of each row of ``audio``. The first ``whole`` fill their
    rows, and are written at once."""
    if whole:
        np.concatenate(pieces[:whole], out=audio[:whole].reshape(-1))
    for place in range(whole, len(pieces)):
        audio[place, : len(pieces[place])] = pieces[place]
