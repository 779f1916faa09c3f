"""A batch in parts, side by side: the same answers, and the faster way is taken."""

from functools import partial

import pytest
import torch

from ssasr.engine.fastconformer.checkpoint import load_model
from ssasr.engine.fastconformer.cpu import CpuProgram
from ssasr.engine.fastconformer.program import PlainRunner
from ssasr.engine.fastconformer.quantized import quantize
from ssasr.engine.fastconformer.side_by_side import (
    Arrangement,
    SideBySideRunner,
    arrangements,
    choose,
    fastest,
)
from ssasr.engine.fastconformer.slots import Layout, Slots
from ssasr.engine.kernels import int8_limit
from tests.engine.fastconformer.conftest import loudness
from tests.engine.fastconformer.test_runners import drive

TWO, SHARED = Arrangement(2, 1), Arrangement(1, 2)


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(not int8_limit(), reason="8-bit integers are of no use to this processor")
@pytest.mark.timeout(400)  # threads that share operations wait for each other on a busy machine
@pytest.mark.parametrize("arrangement", [Arrangement(3, 1), Arrangement(2, 2)])
def test_parts_answer_what_the_whole_does(english, arrangement):
    def run(make):
        model = quantize(load_model(english[1], torch.device("cpu"), torch.float32))
        layout = Layout(model.config, 6, 2, 2)
        with torch.no_grad():
            program = CpuProgram(
                model, Slots.allocate(layout, model.device, torch.float32), loudness
            )
        runner = make(program, 5)
        runner.warm_up()
        return drive(runner, layout, 12)

    parts = partial(SideBySideRunner, arrangement=arrangement)
    assert run(parts) == run(PlainRunner)


def test_all_threads_are_in_use():
    assert arrangements(1) == [Arrangement(1, 1)]
    assert arrangements(6) == [
        Arrangement(6, 1), Arrangement(3, 2), Arrangement(2, 3), Arrangement(1, 6),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("side_by_side", "shared", "chosen"), [(1.0, 0.95, TWO), (1.0, 0.7, SHARED), (1.0, 16.0, TWO)]
)
def test_a_shared_operation_must_be_clearly_faster(side_by_side, shared, chosen):
    assert choose({TWO: side_by_side, SHARED: shared}) == chosen


@pytest.mark.parametrize(("shared", "parts", "tries"), [(0.5, 1, 3), (16.0, 2, 1)])
def test_the_arrangement_is_measured(shared, parts, tries):
    """One that is hopeless, because somebody has a core, is tried once."""
    now, tried = 0.0, []

    def step(runner, rows):
        nonlocal now
        tried.append(runner.parts)
        now += 1.0 if runner.parts == 2 else shared

    make = partial(SideBySideRunner, _NoProgram(), 8)
    runner = fastest(make, 2, step, clock=lambda: now)
    assert runner.parts == parts
    assert (tried.count(2), tried.count(1)) == (3, tries)
    assert torch.get_num_threads() == 2 // parts


class _NoProgram:
    """Never run."""


def test_a_single_thread_is_not_measured():
    runner = fastest(partial(SideBySideRunner, _NoProgram(), 8), 1, _refuse)
    assert (runner.parts, torch.get_num_threads()) == (1, 1)


def _refuse(*_):
    raise AssertionError("there is no choice")
