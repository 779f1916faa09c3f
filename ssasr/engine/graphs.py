"""CUDA graphs: a sequence of device operations that is captured once and then replayed as one.

A pass through a model is hundreds or thousands of kernels of a few microseconds, which take longer
to launch one by one than to run. A graph launches them all at once, but with the same kernels, the
same addresses and the same Python numbers as when it was captured. Therefore a captured function

* reads all that differs between two replays from tensors that existed before, and leaves its
  results in tensors that it writes in place or returns; each replay overwrites them;
* never reads a value from the device, never creates a tensor from host data, and uses one device;
* must be harmless to run at any time: ``record`` runs it before the capture, because kernels that
  plan on first use (FFT, convolutions, matrix products) cannot do so during one. The capture
  computes nothing; the returned tensors are valid after the first replay.

The graphs of one recorder share one CUDA stream and one memory pool, so they never run at the same
time, and memory that a graph allocates and does not return may be overwritten by the next one.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Generic, Protocol, TypeVar

import torch
from attrs import frozen
from torch import Tensor

T = TypeVar("T")

_WARM_UPS = 2


@frozen
class CapturedGraph(Generic[T]):
    """``replay`` inside of ``GraphRecorder.working``."""

    result: T
    """What the function returned: the places of its results."""
    replay: Callable[[], None]
    function: Callable[[], T]
    """What was recorded. A graph knows addresses and holds nothing: the tensors that the function
    alone refers to must stay where they are as long as there may be a replay."""


class GraphRecorder(Protocol):
    """Makes recordings, and is where they run: one queue of work for one device."""

    def pinned(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Zeros in host memory that the device copies from and to without the host waiting."""

    def working(self) -> AbstractContextManager[object]:
        """Replays and ``non_blocking`` copies inside are done one after the other, some time until
        ``synchronize``; until then pinned memory that is copied from must not change."""

    def capture(self, function: Callable[[], T]) -> CapturedGraph[T]:
        """See the top of this file. Waits for the device."""

    def synchronize(self) -> None:
        """Wait for all of it."""


class CudaGraphRecorder:
    """See ``GraphRecorder``."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def pinned(self, *shape: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, pin_memory=True)

    def working(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream)

    @torch.no_grad()
    def capture(self, function: Callable[[], T]) -> CapturedGraph[T]:
        # What it works on may have been made on the stream that is everybody's.
        torch.cuda.synchronize(self._device)
        with self.working():
            for _ in range(_WARM_UPS):
                function()
        self.synchronize()
        graph = torch.cuda.CUDAGraph()
        # thread_local: what other threads do with the device is not our recording's business.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            result = function()
        return CapturedGraph(result, graph.replay, function)

    def synchronize(self) -> None:
        self._stream.synchronize()
