"""Runs a ``Program`` as captured CUDA graphs, one for each of a few batch sizes.

A step is some two thousand kernels of a few microseconds; started one by one they take longer to
start than to run. A graph starts them all at once, but it is a recording: the same kernels on the
same addresses. So inputs and outputs have fixed places, a batch is padded up to the next recorded
size with rows of the slot that belongs to nobody, and decoding, whose length depends on the data,
is recorded as a fixed number of rounds with the rest of the step, and again alone for the batch
that needs more.

Rules of capture that the program keeps: no look at a value on the device, no tensor made from host
data, nothing allocated outside the graphs' pool. Kernels that plan on first use (FFT,
convolutions, matrix products) have run on the capturing stream before. All graphs share one pool
of memory: they never run at the same time, and whatever one of them needs later (``Running``) is
held by this object.
"""

import torch
from attrs import frozen
from torch import Tensor

from ssasr.engine.fastconformer.program import Answer, Column, Inputs, Program, Running

_ROUNDS_MORE = 4
_SIZES = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072)


def rounds_guess(chunk_frames: int) -> int:
    """Rounds recorded with the step. A guess: speech has some five tokens a second, and the batch
    needs as many rounds as its busiest row has tokens, plus one."""
    return chunk_frames + 3


def sizes_up_to(largest: int) -> list[int]:
    """The batch sizes to record, largest first: later recordings then fit into its memory."""
    return sorted({size for size in _SIZES if size < largest} | {largest}, reverse=True)


@frozen
class _Recorded:
    inputs: Inputs
    running: Running
    answer: Tensor
    step: torch.cuda.CUDAGraph
    more: torch.cuda.CUDAGraph


class GraphRunner:
    """``Runner`` for a CUDA device. Memory for inputs and answers is pinned and allocated once."""

    def __init__(self, program: Program, largest: int) -> None:
        self._program, self.largest = program, largest
        layout, device = program.layout, program.device
        self._table = torch.zeros(largest, len(Column), dtype=torch.int64, device=device)
        self._audio = torch.zeros(largest, layout.chunk, dtype=torch.float32, device=device)
        self._host = Inputs(
            torch.zeros(self._table.shape, dtype=torch.int64).pin_memory(),
            torch.zeros(self._audio.shape, dtype=torch.float32).pin_memory(),
        )
        shape = (largest, program.answer_width)
        self._answer = torch.zeros(shape, dtype=torch.int32).pin_memory()
        self._recorded: dict[int, _Recorded] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def warm_up(self) -> None:
        """Record every size; takes a few seconds each at full size."""
        self._table.zero_()
        self._table[:, Column.SLOT] = self._program.layout.slots
        torch.cuda.synchronize(self._program.device)
        for size in sizes_up_to(self.largest):
            self._recorded[size] = self._record(size)
        torch.cuda.synchronize(self._program.device)

    def _record(self, size: int) -> _Recorded:
        program = self._program
        inputs = Inputs(self._table[:size], self._audio[:size])
        rounds = rounds_guess(program.layout.chunk_frames)
        with torch.cuda.stream(self._stream):
            for _ in range(2):
                running = program.encode(inputs)
                program.advance(running)
                program.finish(running)
        self._stream.synchronize()
        step, more = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        # thread_local: what other threads do with the device is not our capture's business.
        with torch.cuda.graph(
            step, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            running = program.encode(inputs)
            for _ in range(rounds):
                program.advance(running)
            answer = program.finish(running)
        with torch.cuda.graph(
            more, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            for _ in range(_ROUNDS_MORE):
                program.advance(running)
            answer.copy_(program.finish(running))
        return _Recorded(inputs, running, answer, step, more)

    def inputs(self, rows: int) -> Inputs:
        """See ``Runner``; pinned memory, the same each time."""
        return Inputs(self._host.table[:rows], self._host.audio[:rows])

    @torch.no_grad()
    def run(self, inputs: Inputs) -> Answer:
        """See ``Runner``. Waits for the device once, unless decoding needs more rounds."""
        rows = inputs.table.shape[0]
        size = min(size for size in self._recorded if size >= rows)
        recorded, padding = self._recorded[size], self._host.table[rows:size]
        padding.zero_()
        padding[:, Column.SLOT] = self._program.layout.slots
        padding[:, Column.CHUNK] = -1
        with torch.cuda.stream(self._stream):
            recorded.inputs.table.copy_(self._host.table[:size], non_blocking=True)
            recorded.inputs.audio[:rows].copy_(inputs.audio, non_blocking=True)
            recorded.step.replay()
            while True:
                host = self._answer[:rows]
                host.copy_(recorded.answer[:rows], non_blocking=True)
                self._stream.synchronize()
                answer, unfinished = self._program.unpack(host)
                if not unfinished:
                    return answer
                recorded.more.replay()
