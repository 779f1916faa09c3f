"""Work that is recorded once and then started as one: CUDA graphs.

A pass through a model is hundreds or thousands of kernels of a few microseconds; started one by one
they take longer to start than to run. A graph starts them all at once, but it is a recording: the
same kernels on the same addresses, with every number that Python knew when it was made. Therefore
a function that is recorded

* finds all that differs between two replays in tensors that were there before, and leaves its
  results in tensors that it wrote in place or returns: these keep their places, and each replay
  writes them anew;
* never looks at a value on the device, never makes a tensor of host data, touches one device only;
* may be run at any time without harm: ``record`` runs it before it records, because kernels that
  plan on first use (FFT, convolutions, matrix products) cannot do so in a recording. The recording
  itself computes nothing; what it returns means something after the first replay.

The recordings of one recorder share one stream and one pool of memory, so they never run at the
same time, and what one of them makes and does not return is the next one's to write over.
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
