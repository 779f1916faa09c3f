"""Threads that decode beside the model thread.

The matrix products of models as small as tiny and base are too small for torch's own threads, which
then wait for each other more than they compute. But the jobs of different streams are independent.
So each worker thread does one job at a time with a single torch thread, while the model thread goes
on with speech detection. A larger model, or a GPU, works better on batches, one after the other: it
has no workers, and its jobs are done in the calling thread.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch

T = TypeVar("T")

NICENESS = 10
"""Nice value of background threads: on a contended core they get a tenth of the time of a normal
thread. They hold the interpreter lock now and then, so they must not be starved."""


class WorkerPool:
    """``workers`` threads; with none, work is done at once in the caller's."""

    def __init__(self, workers: int = 0, *, background: bool = False) -> None:
        self.workers = workers
        begin = _lower_priority if background else None
        self._threads = ThreadPoolExecutor(workers, "decode", begin) if workers else None
        self._running: set[Future[Any]] = set()

    @property
    def free(self) -> int:
        """Workers with nothing to do."""
        self._running = {one for one in self._running if not one.done()}
        return self.workers - len(self._running)

    @property
    def busy(self) -> float:
        """Share of the workers that have something to do; 1 where the caller does all of it."""
        return 1 - self.free / self.workers if self.workers else 1.0

    def begin(self, work: Callable[[], T]) -> "Future[T]":
        """What it gives, or raises, is the future's."""

        def inferred() -> T:
            with torch.inference_mode():  # a mode of the thread's own
                return work()

        if self._threads is None:
            done: Future[T] = Future()
            done.set_result(inferred())
            return done
        future = self._threads.submit(inferred)
        self._running.add(future)
        return future

    def wait(self, seconds: float) -> bool:
        """Until some work is done that was not when ``free`` was asked for; but no longer. False:
        there was none."""
        wait(self._running, seconds, FIRST_COMPLETED)
        return bool(self._running)


def _lower_priority() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)  # Linux: of the thread
