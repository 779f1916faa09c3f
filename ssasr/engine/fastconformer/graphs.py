"""Runs a ``Program`` as recorded graphs, one for each of a few batch sizes.

A graph is a recording (``ssasr.engine.graphs``). So inputs and outputs have fixed places, a batch
is padded up to the next recorded size with rows of the padding slot, and decoding,
whose length depends on the data, is captured as a fixed number of iterations with the rest of the
step, and again alone for the batch that needs more.
"""

import torch
from attrs import frozen
from torch import Tensor

from ssasr.engine.fastconformer.biasing import Edges
from ssasr.engine.fastconformer.program import Answer, Column, Inputs, Program, Running
from ssasr.engine.graphs import CapturedGraph, GraphRecorder

_EXTRA_ITERATIONS = 4
_SIZES = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072)


def iterations_guess(chunk_frames: int) -> int:
    """Iterations captured with the step. A guess: speech has some five tokens a second, and the
    batch needs as many iterations as its busiest row has tokens, plus one."""
    return chunk_frames + 3


def sizes_up_to(largest: int) -> list[int]:
    """The batch sizes to record, largest first: later recordings then fit into its memory."""
    return sorted({size for size in _SIZES if size < largest} | {largest}, reverse=True)


@frozen
class _Captured:
    inputs: Inputs
    step: CapturedGraph[tuple[Running, Tensor]]
    """Gives the answer too."""
    more: CapturedGraph[None]


class GraphRunner:
    """``Runner`` for a CUDA device. Memory for inputs and answers is pinned and allocated once."""

    steps = 1
    max_chunks = 4

    def __init__(self, program: Program, largest: int, recorder: GraphRecorder) -> None:
        self._program, self.largest, self._recorder = program, largest, recorder
        layout, device = program.layout, program.device
        self._device = Inputs(
            torch.zeros(largest, len(Column), dtype=torch.int64, device=device),
            torch.zeros(largest, layout.chunk, dtype=torch.float32, device=device),
        )
        self._host = Inputs(
            recorder.pinned(*self._device.table.shape, dtype=torch.int64),
            recorder.pinned(*self._device.audio.shape, dtype=torch.float32),
        )
        self._answer = recorder.pinned(largest, program.answer_width, dtype=torch.int32)
        self._captured: dict[int, _Captured] = {}

    def warm_up(self) -> None:
        """Record every size; takes a few seconds each at full size."""
        self._device.table[:, Column.SLOT] = self._program.layout.slots
        for size in sizes_up_to(self.largest):
            self._captured[size] = self._capture(size)

    def _capture(self, size: int) -> _Captured:
        program, recorder = self._program, self._recorder
        inputs = Inputs(self._device.table[:size], self._device.audio[:size])

        def step() -> tuple[Running, Tensor]:
            running = program.encode(inputs)
            for _ in range(iterations_guess(program.layout.chunk_frames)):
                program.advance(running)
            return running, program.finish(running)

        captured = recorder.capture(step)
        running, answer = captured.result

        def more() -> None:
            for _ in range(_EXTRA_ITERATIONS):
                program.advance(running)
            answer.copy_(program.finish(running))

        # There must be something that it can go on with.
        with recorder.working():
            captured.replay()
        return _Captured(inputs, captured, recorder.capture(more))

    def inputs(self, rows: int) -> Inputs:
        """See ``Runner``; pinned memory, the same each time."""
        return Inputs(self._host.table[:rows], self._host.audio[:rows])

    @torch.no_grad()
    def run(self, inputs: Inputs) -> Answer:
        """See ``Runner``. Waits for the device once, unless decoding needs more iterations."""
        rows = inputs.table.shape[0]
        size = min(size for size in self._captured if size >= rows)
        captured, padding = self._captured[size], self._host.table[rows:size]
        # What else an earlier batch has left there is done to the padding slot.
        padding[:, Column.SLOT] = self._program.layout.slots
        padding[:, Column.CHUNK] = -1
        host, (_, answer) = self._answer[:rows], captured.step.result
        with self._recorder.working():
            captured.inputs.table.copy_(self._host.table[:size], non_blocking=True)
            captured.inputs.audio[:rows].copy_(inputs.audio, non_blocking=True)
            captured.step.replay()
            while True:
                host.copy_(answer[:rows], non_blocking=True)
                self._recorder.synchronize()
                found, unfinished = self._program.unpack(host)
                if not unfinished:
                    return found
                captured.more.replay()

    def set_terms(self, slot: int, edges: Edges) -> None:
        """See ``Runner``. In the order of the device's work; nothing waits for it."""
        with self._recorder.working():
            self._program.slots.terms.put(slot, edges)
