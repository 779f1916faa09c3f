"""What a FastConformer's work on a processor consists of, for ``engine.capacity``.

A stream has a chunk to compute every so often, whatever is said. One step takes all that have one,
and costs less a stream the more they are, since the weights are read once; so it is timed with one
stream and with ``TOGETHER``. Taken as the rule: the streams fall into two steps a chunk's time.
"""

from collections.abc import Mapping

import torch

from ssasr.engine.capacity import Unit, Workload
from ssasr.engine.fastconformer.program import ENDLESS, Column, Runner
from ssasr.engine.fastconformer.slots import Layout
from ssasr.protocol.recognition import SAMPLE_RATE, VAD_FRAME

TOGETHER = 4
"""Streams of the larger step."""
STEPS = 2
"""In a chunk's time, with two streams or more."""
WORDS = 1.1
"""Decoding takes more while somebody speaks than the timed steps, which say little. A guess."""
_AGE = 1_000
"""Chunks that the timed streams have had: their left context is full."""


def workload(runner: Runner, layout: Layout, most: int) -> Workload:
    """On the model thread alone, which has the processor's threads to itself. ``most``: streams
    that there is room for."""

    def step(streams: int) -> object:
        inputs = runner.inputs(streams)
        table = inputs.table
        table.zero_()
        table[:, Column.SLOT] = layout.slots  # nobody's
        table[:, Column.POSITION] = _AGE * layout.chunk
        table[:, Column.NEW] = layout.chunk
        table[:, Column.CHUNK] = _AGE
        table[:, Column.END] = ENDLESS
        table[:, Column.VAD_FIRST] = _AGE * layout.chunk // VAD_FRAME
        table[:, Column.VAD_COUNT] = layout.chunk // VAD_FRAME
        inputs.audio.copy_(0.1 * torch.sin(0.1 * torch.arange(layout.chunk)))
        return runner.run(inputs)

    chunk = layout.chunk / SAMPLE_RATE
    together = min(TOGETHER, runner.largest)
    return Workload(
        {"alone": Unit(lambda: step(1)), "together": Unit(lambda: step(together))},
        1,
        lambda streams: demand(streams, chunk, together),
        {"together": WORDS},
        {"together": WORDS},
        most,
    )


def demand(streams: int, chunk: float, together: int) -> Mapping[str, float]:
    """Steps a second of either kind; ``chunk`` in seconds. What lies between the two is made up of
    both, what lies beyond of the larger one."""
    steps = WORDS * min(streams, STEPS) / chunk
    rows = max(1.0, streams / STEPS)
    if rows >= together:
        return {"alone": 0.0, "together": steps * rows / together}
    share = (rows - 1) / (together - 1)
    return {"alone": steps * (1 - share), "together": steps * share}
