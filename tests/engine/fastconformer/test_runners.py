"""The ways to run a program answer the same: looking after each round, or after a guess."""

import numpy as np
import pytest
import torch

from ssasr.engine.fastconformer import graphs
from ssasr.engine.fastconformer.checkpoint import load_model
from ssasr.engine.fastconformer.graphs import GraphRunner, rounds_guess, sizes_up_to
from ssasr.engine.fastconformer.program import Column, Inputs, PlainRunner, Program
from ssasr.engine.fastconformer.slots import Layout, Slots
from tests.engine.fastconformer import reference
from tests.engine.fastconformer.conftest import loudness


class RecordedRounds(PlainRunner):
    """What ``GraphRunner`` does, without graphs: fixed inputs, padding, a fixed number of rounds,
    and more of them where the answer says so. Every capture rule that can be broken on a CPU is
    broken here: a look at a value raises."""

    def __init__(self, program, largest):
        super().__init__(program, largest)
        self.more = 0
        self._static = super().inputs(largest)

    def inputs(self, rows):
        return Inputs(self._static.table[:rows], self._static.audio[:rows])

    @torch.no_grad()
    def run(self, inputs):
        program, rows = self._program, len(inputs.table)
        size = min(size for size in sizes_up_to(self.largest) if size >= rows)
        padding = self._static.table[rows:size]
        padding.zero_()
        padding[:, Column.SLOT] = program.layout.slots
        padding[:, Column.CHUNK] = -1
        with NoLook():
            running = program.encode(Inputs(self._static.table[:size], self._static.audio[:size]))
            for _ in range(rounds_guess(program.layout.chunk_frames)):
                program.advance(running)
            packed = program.finish(running)
        while True:
            answer, unfinished = program.unpack(packed[:rows])
            if not unfinished:
                return answer
            self.more += 1
            with NoLook():
                program.advance(running)
                packed.copy_(program.finish(running))


class NoLook(torch.utils._python_dispatch.TorchDispatchMode):
    """Forbids what a capture forbids: reading a value back to Python."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        assert "_local_scalar_dense" not in name, "a value was looked at"
        assert "nonzero" not in name, "a shape depends on values"
        return func(*args, **(kwargs or {}))


def make(directory, kind, chunk_frames, device="cpu", dtype=torch.float32):
    model = load_model(directory, torch.device(device), dtype)
    layout = Layout(model.config, 6, chunk_frames, 2)
    with torch.no_grad():
        slots = Slots.allocate(layout, torch.device(device), dtype)
        runner = kind(Program(model, slots, loudness), 5)
    runner.warm_up()
    return runner


def drive(runner, layout, steps):
    """Random streams over some slots; the numbers of every answer, in order."""
    generator = np.random.default_rng(0)
    audio = [reference.utterance(n, layout.chunk * steps) for n in range(layout.slots)]
    done = [0] * layout.slots
    found = []
    for _ in range(steps):
        chosen = generator.permutation(layout.slots)[: generator.integers(1, 6)]
        inputs = runner.inputs(len(chosen))
        for row, slot in enumerate(chosen):
            begin = done[slot] * layout.chunk
            fields = (slot, begin, layout.chunk, done[slot], 2**40, 0, begin // 512)
            count = (begin + layout.chunk) // 512 - begin // 512
            inputs.table[row] = torch.tensor([*fields, count])
            inputs.audio[row] = torch.from_numpy(audio[slot][begin : begin + layout.chunk])
            done[slot] += 1
        answer = runner.run(inputs)
        counts = answer.emitted.tolist()
        found.append(
            [
                (answer.tokens[row, :n].tolist(), answer.places[row, :n].tolist())
                for row, n in enumerate(counts)
            ]
        )
        assert all((answer.confidences[row, :n] > 0).all() for row, n in enumerate(counts))
    return found


@pytest.mark.parametrize("chunk_frames", [1, 4])
def test_recorded_rounds_equal_the_plain_loop(english, chunk_frames):
    plain = make(english[1], PlainRunner, chunk_frames)
    recorded = make(english[1], RecordedRounds, chunk_frames)
    layout = plain._program.layout
    assert drive(plain, layout, 20) == drive(recorded, layout, 20)
    assert recorded.more > 0, "no batch needed more rounds than the guess"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs(multilingual, dtype):
    """No two dtypes meet anywhere; what comes out depends on rounding with random weights."""
    runner = make(multilingual[1], RecordedRounds, 2, dtype=dtype)
    found = drive(runner, runner._program.layout, 10)
    assert sum(len(tokens) for step in found for tokens, _ in step) > 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("chunk_frames", [1, 4])
def test_graphs_equal_the_plain_loop(english, chunk_frames):
    plain = make(english[1], PlainRunner, chunk_frames, "cuda")
    recorded = make(english[1], GraphRunner, chunk_frames, "cuda")
    layout = plain._program.layout
    assert drive(plain, layout, 20) == drive(recorded, layout, 20)


def test_sizes_cover_every_batch():
    assert sizes_up_to(5) == [5, 4, 2, 1]
    assert sizes_up_to(1024)[0] == 1024
    assert sizes_up_to(1) == [1]
    assert graphs.rounds_guess(1) > 1
