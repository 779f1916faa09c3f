"""Work is done beside the caller or by it, and what it raises is raised again."""

import threading

import pytest
import torch

from ssasr.engine.whisper.worker_pool import WorkerPool

PATIENCE = 30


def test_without_workers_work_is_done_when_it_is_begun():
    pool = WorkerPool()
    found = pool.begin(lambda: (threading.get_ident(), torch.is_inference_mode_enabled()))
    assert found.done()
    assert found.result() == (threading.get_ident(), True)
    assert pool.busy == 1
    pool.wait(PATIENCE)


def test_workers_work_side_by_side():
    pool = WorkerPool(2)
    meeting = threading.Barrier(2)
    found = [pool.begin(lambda: meeting.wait(PATIENCE)) for _ in range(2)]
    assert sorted(one.result(PATIENCE) for one in found) == [0, 1]
    assert pool.free == 2


def test_the_caller_waits_for_the_first_of_them_only():
    pool = WorkerPool(2)
    discard_before = threading.Event()
    try:
        slow = pool.begin(lambda: discard_before.wait(PATIENCE))
        quick = pool.begin(torch.is_inference_mode_enabled)
        while not quick.done():
            pool.wait(PATIENCE)
        assert quick.result()
        assert not slow.done()
        assert (pool.free, pool.busy) == (1, 0.5)
        pool.wait(0.01)  # no longer than that
    finally:
        discard_before.set()


@pytest.mark.parametrize("workers", [0, 1])
def test_exceptions_of_work_are_raised_by_its_future(workers):
    def broken():
        raise RuntimeError("out of memory")

    def outcome():
        return WorkerPool(workers).begin(broken).result(PATIENCE)

    with pytest.raises(RuntimeError, match="out of memory"):
        outcome()
