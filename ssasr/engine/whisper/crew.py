"""Decodes side by side.

Models as small as tiny and base have products too small for the threads inside of torch: these wait
for each other more than they work. What several streams need decoded at the same moment is
independent, though, so each worker takes its part of the batch, with one thread of torch's own.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from ssasr.engine.whisper.decoding import Decoding, Hypothesis, Request

LEAST_PART = 2
"""Requests that are worth a worker: two together cost less than one and one."""


class Crew:
    """``workers`` threads, the caller's among them. Like ``Decoding``, holds nothing between
    calls."""

    def __init__(self, decoding: Decoding, workers: int = 1) -> None:
        self._decoding = decoding
        self.workers = workers
        self._others = ThreadPoolExecutor(workers - 1, "decode") if workers > 1 else None

    def __call__(self, requests: Sequence[Request]) -> list[Hypothesis]:
        """One hypothesis a request, in order; what it is does not depend on the workers."""
        count = max(1, min(self.workers, len(requests) // LEAST_PART))
        if self._others is None or count == 1:
            return self._decoding(requests)
        borders = [number * len(requests) // count for number in range(count + 1)]
        parts = [requests[borders[n] : borders[n + 1]] for n in range(count)]
        begun = [self._others.submit(self._decode, part) for part in parts[1:]]
        hypotheses = self._decode(parts[0])
        for part in begun:
            hypotheses += part.result()
        return hypotheses

    @torch.inference_mode()
    def _decode(self, requests: Sequence[Request]) -> list[Hypothesis]:
        """The mode is the thread's own."""
        return self._decoding(requests)
