"""The ways to run a program answer the same: looking after each round, or after a guess."""

import numpy as np
import pytest
import torch

from ssasr.engine.fastconformer import graphs
from ssasr.engine.fastconformer.checkpoint import load_model
from ssasr.engine.fastconformer.cpu import CpuProgram
from ssasr.engine.fastconformer.graphs import GraphRunner, sizes_up_to
from ssasr.engine.fastconformer.program import Column, PlainRunner, Program
from ssasr.engine.fastconformer.slots import Layout, Slots
from ssasr.engine.graphs import CudaGraphRecorder
from tests.engine.fastconformer import reference
from tests.engine.fastconformer.conftest import loudness
from tests.engine.recorder import LateRecorder


def make(directory, chunk_frames, recorder=None, device="cpu", dtype=torch.float32, kind=Program):
    """A runner of graphs; without a recorder, the plain one."""
    model = load_model(directory, torch.device(device), dtype)
    layout = Layout(model.config, 6, chunk_frames, 2)
    with torch.no_grad():
        slots = Slots.allocate(layout, torch.device(device), dtype)
        program = kind(model, slots, loudness)
        runner = GraphRunner(program, 5, recorder) if recorder else PlainRunner(program, 5)
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
                (
                    answer.tokens[row, :n].tolist(),
                    answer.places[row, :n].tolist(),
                    answer.speech[row, : int(inputs.table[row, Column.VAD_COUNT])].tolist(),
                )
                for row, n in enumerate(counts)
            ]
        )
        assert all((answer.confidences[row, :n] > 0).all() for row, n in enumerate(counts))
    return found


@pytest.mark.parametrize("chunk_frames", [1, 4])
def test_graphs_equal_the_plain_loop(english, chunk_frames):
    plain, recorder = make(english[1], chunk_frames), LateRecorder()
    captured, layout = make(english[1], chunk_frames, recorder), plain._program.layout
    recorder.replays = recorder.waits = 0
    assert drive(plain, layout, 20) == drive(captured, layout, 20)
    assert recorder.replays > 20, "no batch needed more iterations than the guess"
    assert recorder.waits == recorder.replays, "the host waits once for each"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs(multilingual, dtype):
    """No two dtypes meet anywhere; what comes out depends on rounding with random weights."""
    runner = make(multilingual[1], 2, LateRecorder(), dtype=dtype)
    found = drive(runner, runner._program.layout, 10)
    assert sum(len(tokens) for step in found for tokens, _, _ in step) > 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("chunk_frames", [1, 4])
def test_graphs_of_a_device_equal_the_plain_loop(english, chunk_frames):
    device = torch.device("cuda")
    plain = make(english[1], chunk_frames, device=device)
    captured = make(english[1], chunk_frames, CudaGraphRecorder(device), device)
    layout = plain._program.layout
    assert drive(plain, layout, 20) == drive(captured, layout, 20)


def test_sizes_cover_every_batch():
    assert sizes_up_to(5) == [5, 4, 2, 1]
    assert sizes_up_to(1024)[0] == 1024
    assert sizes_up_to(1) == [1]
    assert graphs.iterations_guess(1) > 1


@pytest.mark.parametrize("chunk_frames", [2, 7])
def test_a_processor_s_order_of_work_gives_the_same_answers(english, chunk_frames):
    """Over more steps than a ring is long."""
    runners = [make(english[1], chunk_frames, kind=kind) for kind in (Program, CpuProgram)]
    layout = runners[0]._program.layout
    steps = 2 * layout.attention_ring // chunk_frames
    plain, other = (drive(runner, layout, steps) for runner in runners)
    assert sum(len(row[0]) for step in plain for row in step) > 100
    for expected, found in zip(plain, other, strict=True):
        for (tokens, places, speech), row in zip(expected, found, strict=True):
            assert row[:2] == (tokens, places)
            assert row[2] == pytest.approx(speech, abs=1e-5)
