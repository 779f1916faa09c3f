"""What the host knows of every slot, in arrays: the step on the grid, for all streams at once.

Nearly all steps of nearly all streams are alike: one chunk comes, on the segment's grid, and it
brings no token. What such a step needs and changes are a few numbers a stream, kept here by slot;
there is no Python for a single stream in it but what makes its answer. Steps that are not like
that (a backlog, the end of a segment) take a ``RowPlan`` each, with their numbers taken out of here
and put back; tokens go through the segment's ``Transcript``, whose words stay the same object
until it has new ones.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssasr.engine.fastconformer.detokenizer import Transcript, end_of_turn_confidence
from ssasr.engine.fastconformer.program import ENDLESS, Column
from ssasr.engine.fastconformer.streaming import Grid, Progress
from ssasr.engine.recognizer import StepResult
from ssasr.protocol.recognition import VAD_FRAME, Word

Slots = NDArray[np.int64]
Speech = tuple[float, ...]


class SlotState:
    """One entry for each of ``slots``; ``open`` begins one. Positions count from the segment's
    start."""

    def __init__(self, grid: Grid, slots: int) -> None:
        self._grid = grid
        self._start = np.zeros(slots, np.int64)
        self._samples = np.zeros(slots, np.int64)
        self._chunks = np.zeros(slots, np.int64)
        self._vad_frames = np.zeros(slots, np.int64)
        self._prompt = np.zeros(slots, np.int64)
        self._last_place = np.zeros(slots, np.int64)
        self._complete = np.zeros(slots, np.bool_)
        self._words: list[tuple[Word, ...]] = [()] * slots
        self._language: list[str | None] = [None] * slots
        self._language_confidence = [0.0] * slots

    def open(self, slot: int, transcript: Transcript, prompt: int) -> None:
        """A segment begins."""
        self._start[slot], self._prompt[slot] = transcript.start, prompt
        self.set_progress(slot, Progress())
        self.note(slot, transcript, None)

    def set_prompt(self, slot: int, prompt: int) -> None:
        self._prompt[slot] = prompt

    def prompt(self, slot: int) -> int:
        return int(self._prompt[slot])

    def progress(self, slot: int) -> Progress:
        """A copy."""
        return Progress(
            int(self._samples[slot]), int(self._chunks[slot]), int(self._vad_frames[slot])
        )

    def set_progress(self, slot: int, progress: Progress) -> None:
        self._samples[slot] = progress.samples
        self._chunks[slot] = progress.chunks
        self._vad_frames[slot] = progress.vad_frames

    def note(self, slot: int, transcript: Transcript, language: str | None) -> None:
        """The transcript has something new."""
        self._words[slot] = transcript.words()
        self._last_place[slot] = transcript.last_place
        self._complete[slot] = transcript.complete
        self._language[slot] = language
        self._language_confidence[slot] = transcript.language_confidence if language else 0.0

    def words(self, slot: int) -> tuple[Word, ...]:
        """As last noted: the same object until there is something new."""
        return self._words[slot]

    def on_grid_chunk(
        self, slots: Slots, audio: Sequence[NDArray[np.float32]], ends: Sequence[int | None]
    ) -> NDArray[np.bool_]:
        """(batch,) whether it is the next chunk on the grid and no more. ``ends``: where segments
        end, None where they go on."""
        sizes = np.fromiter(map(len, audio), np.int64, len(audio))
        on_grid = self._samples[slots] == self._chunks[slots] * self._grid.chunk
        found: NDArray[np.bool_] = (sizes == self._grid.chunk) & on_grid
        if ends.count(None) < len(ends):
            found &= np.array([end is None for end in ends])
        return found

    def advance(self, slots: Slots) -> NDArray[np.int64]:
        """Take such steps. Gives their rows of ``program.Inputs.table``: what a ``RowPlan`` gives
        for one, for all at once."""
        samples, chunks, vad_frames = (
            self._samples[slots], self._chunks[slots], self._vad_frames[slots]
        )  # fmt: skip
        received = samples + self._grid.chunk
        received_frames = received // VAD_FRAME
        table = np.empty((len(slots), len(Column)), np.int64)
        table[:, Column.SLOT] = slots
        table[:, Column.POSITION] = samples
        table[:, Column.NEW] = self._grid.chunk
        table[:, Column.CHUNK] = chunks
        table[:, Column.END] = ENDLESS
        table[:, Column.PROMPT] = self._prompt[slots]
        table[:, Column.VAD_FIRST] = vad_frames
        table[:, Column.VAD_COUNT] = received_frames - vad_frames
        self._samples[slots], self._chunks[slots] = received, chunks + 1
        self._vad_frames[slots] = received_frames
        return table

    def results(self, slots: Slots, speech: Sequence[Speech]) -> list[StepResult]:
        """What there is to say of each after such a step."""
        chunks, start = self._chunks[slots], self._start[slots]
        frames = chunks * self._grid.chunk_frames
        confidences = end_of_turn_confidence(frames, self._last_place[slots], self._complete[slots])
        numbers = slots.tolist()
        return list(
            map(
                StepResult,
                (start + self._samples[slots]).tolist(),
                speech,
                [self._words[slot] for slot in numbers],
                (start + self._samples[slots] - self._grid.unseen).tolist(),
                confidences.tolist(),
                [self._language[slot] for slot in numbers],
                [self._language_confidence[slot] for slot in numbers],
            )
        )


def spoken(speech: NDArray[np.float32], counts: NDArray[np.int64]) -> list[Speech]:
    """The first ``counts`` (batch,) of each row of ``speech`` (batch, n)."""
    if not len(counts):
        return []
    fewest, most = int(counts.min()), int(counts.max())
    rows = _tuples(speech[:, :most])
    if fewest == most:
        return rows
    for number in np.flatnonzero(counts < most).tolist():
        rows[number] = rows[number][: counts[number]]
    return rows


def _tuples(rows: NDArray[np.float32]) -> list[Speech]:
    """The rows; made column by column, which leaves the work to ``zip``."""
    if not rows.shape[1]:
        return [()] * len(rows)
    return list(zip(*rows.T.tolist(), strict=True))
