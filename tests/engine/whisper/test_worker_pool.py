"""Work is done beside the caller or by it, and what it raises is heard of."""

import threading

import pytest
import torch

from ssasr.engine.whisper.worker_pool import Crew

PATIENCE = 30


def test_without_workers_work_is_done_when_it_is_begun():
    crew = Crew()
    found = crew.begin(lambda: (threading.get_ident(), torch.is_inference_mode_enabled()))
    assert found.done()
    assert found.result() == (threading.get_ident(), True)
    assert crew.busy == 1
    crew.wait(PATIENCE)


def test_workers_work_side_by_side():
    crew = Crew(2)
    meeting = threading.Barrier(2)
    found = [crew.begin(lambda: meeting.wait(PATIENCE)) for _ in range(2)]
    assert sorted(one.result(PATIENCE) for one in found) == [0, 1]
    assert crew.free == 2


def test_the_caller_waits_for_the_first_of_them_only():
    crew = Crew(2)
    let_go = threading.Event()
    try:
        slow = crew.begin(lambda: let_go.wait(PATIENCE))
        quick = crew.begin(torch.is_inference_mode_enabled)
        while not quick.done():
            crew.wait(PATIENCE)
        assert quick.result()
        assert not slow.done()
        assert (crew.free, crew.busy) == (1, 0.5)
        crew.wait(0.01)  # no longer than that
    finally:
        let_go.set()


@pytest.mark.parametrize("workers", [0, 1])
def test_what_work_raises_is_heard_of(workers):
    def broken():
        raise RuntimeError("out of memory")

    def heard():
        return Crew(workers).begin(broken).result(PATIENCE)

    with pytest.raises(RuntimeError, match="out of memory"):
        heard()
