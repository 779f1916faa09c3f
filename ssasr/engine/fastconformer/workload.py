"""What a FastConformer's work on a processor consists of, for ``engine.capacity``.

A stream has a chunk to compute every so often, whatever is said. One step takes all that have one,
in as many parts as run side by side. A part costs less a stream the more they are, since the
weights are read once; so it is timed with one stream and with ``TOGETHER``. Taken as the rule: the
streams fall into two steps a chunk's time.
"""

from collections.abc import Mapping

import torch

from ssasr.engine.capacity import Unit, Workload
from ssasr.engine.fastconformer.program import ENDLESS, Column, Inputs, Runner
from ssasr.engine.fastconformer.side_by_side import SideBySideRunner
from ssasr.engine.fastconformer.slots import Layout
from ssasr.protocol.recognition import SAMPLE_RATE, VAD_FRAME

TOGETHER = 4
"""Streams of the larger part."""
STEPS = 2
"""In a chunk's time, with two streams or more."""
WORDS = 1.1
"""Decoding takes more while somebody speaks than the timed steps, which say little. A guess."""
_AGE = 1_000
"""Chunks that the timed streams have had: their left context is full."""


def padding_rows(runner: Runner, layout: Layout, count: int) -> Inputs:
    """A chunk of a tone for each of so many streams that have gone on for a while."""
    inputs = runner.inputs(count)
    table = inputs.table
    table.zero_()
    table[:, Column.SLOT] = layout.slots  # the padding slot
    table[:, Column.POSITION] = _AGE * layout.chunk
    table[:, Column.NEW] = layout.chunk
    table[:, Column.CHUNK] = _AGE
    table[:, Column.END] = ENDLESS
    table[:, Column.VAD_FIRST] = _AGE * layout.chunk // VAD_FRAME
    table[:, Column.VAD_COUNT] = layout.chunk // VAD_FRAME
    inputs.audio.copy_(0.1 * torch.sin(0.1 * torch.arange(layout.chunk)))
    return inputs


def workload(runner: SideBySideRunner, layout: Layout, most: int) -> Workload:
    """A worker is what runs one part. ``most``: streams that there is room for."""

    def step(streams: int) -> object:
        return runner.run_part(padding_rows(runner, layout, streams))

    chunk, parts = layout.chunk / SAMPLE_RATE, runner.parts
    together = min(TOGETHER, runner.largest)
    return Workload(
        {"alone": Unit(lambda: step(1)), "together": Unit(lambda: step(together))},
        parts,
        lambda streams: demand(streams, chunk, together, parts),
        {"together": WORDS},
        {"together": WORDS * parts},  # a step ends with the last of its parts
        most,
    )


def demand(streams: int, chunk: float, together: int, parts: int = 1) -> Mapping[str, float]:
    """Parts a second of either kind; ``chunk`` in seconds, ``parts`` of a step. What lies between
    the two kinds is made up of both, what lies beyond of the larger one."""
    steps = WORDS * min(streams, STEPS * parts) / chunk
    rows = max(1.0, streams / (STEPS * parts))
    if rows >= together:
        return {"alone": 0.0, "together": steps * rows / together}
    share = (rows - 1) / (together - 1)
    return {"alone": steps * (1 - share), "together": steps * share}
