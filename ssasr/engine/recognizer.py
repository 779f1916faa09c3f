"""The interface of recognisers.

Three lifetimes: a ``Recognizer`` holds the weights, for as long as the process runs; a *state*
belongs to one segment of one stream, and only the recogniser looks into it; a ``Work`` is one
stream's share of one batch. ``step`` takes work of any subset of the streams, of any age, and must
give each the same words as if it were alone in the batch (``tests/contracts`` checks every kind).

A recogniser is called from one thread only, the model thread, and never waits.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ssasr.engine.capacity import Workload
from ssasr.protocol.recognition import StreamOptions, Word
from ssasr.protocol.values import value

State = object
"""Opaque to everything but the recogniser that made it."""


@value
class SegmentStart:
    """What a segment starts with, at stream sample ``at``.

    ``committed`` words are final already (a replay): they stay first in every hypothesis. The last
    of them became so with the answer for position ``committed_at``, and no others before.
    ``language_before``: what was spoken before the segment, where that is known."""

    at: int
    committed: tuple[Word, ...] = ()
    committed_at: int = 0
    language_before: str | None = None


@value
class Work:
    """One stream's share of a step.

    ``audio``: float32 (n,), in [-1, 1], following exactly on what the state has seen; n is a
    multiple of ``chunk`` samples (several chunks when the engine is behind), or anything,
    zero included, when ``final_at`` is set, or zero when an earlier step left ``unfinished``.
    ``final_at``: the stream position at which the segment ends. The answer must be the last words.
    It may lie before what the state has already seen; later audio does not count then.
    """

    state: State
    audio: NDArray[np.float32]
    final_at: int | None = None


@value
class StepResult:
    """What a step found out about one stream, as of stream position ``position``.

    Field meanings as in ``protocol.recognition.Update``."""

    position: int
    speech: tuple[float, ...]
    words: tuple[Word, ...]
    decoded: int
    end_of_turn_confidence: float = 0.0
    language: str | None = None
    language_confidence: float = 0.0


@value
class Outcome:
    """The answer to one ``Work``: its results, in order of position (usually one entry).

    ``unfinished``: the recogniser put something off (a decode that did not fit into this batch);
    step the stream again even if no audio has arrived. For work with ``final_at`` the last entry of
    the outcome that is not unfinished is the final one: all its words are final."""

    results: tuple[StepResult, ...]
    unfinished: bool = False


MANY_CHUNKS = 64
"""``max_chunks`` where a step with many of them takes little longer than one with few."""


class Recognizer(Protocol):
    """Weights and the batched step; holds no stream."""

    name: str
    """Name of the model as reported to clients and in metrics."""
    chunk: int
    """Samples between two steps of a stream; any number."""
    max_streams: int
    """Streams that keep up with real time on this device, measured or configured."""
    workload: Workload | None
    """What ``max_streams`` is to be measured by, once warm; None: it is to be taken as it is."""
    max_batch: int
    """Works that one step takes at most: all of them are delivered when the last is done, so no
    more than the device works on at once. Who drives the recogniser chooses among more."""
    max_chunks: int
    """Chunks of a stream that are put into one step at most, so that one that is far behind does
    not hold up the others. ``step`` itself takes any number."""
    steps_at_once: int
    """Steps that may run at the same time, of different streams and each in a thread of its own;
    what else is called meanwhile concerns other streams too."""
    languages: tuple[str, ...]
    """ISO 639 codes that the model knows; options may hold others, which count for nothing."""
    translates: bool
    """Whether it can write in English what was said in another language."""

    def warm_up(self) -> None:
        """Do whatever makes the first real step as fast as the later ones."""

    def new_state(self, options: StreamOptions, start: SegmentStart) -> State:
        """Fresh state of a segment."""

    def configure(self, state: State, options: StreamOptions) -> None:
        """Change the options of a running segment."""

    def release(self, state: State) -> None:
        """Free what the state holds on the device: its segment or its stream has ended."""

    def step(self, batch: Sequence[Work]) -> list[Outcome]:
        """Advance each stream of the batch once; outcomes in the order of the batch."""

    def worked(self, seconds: float, now: float) -> None:
        """The step that has ended ``now`` took so long. A recogniser that can do less for each
        stream may go by it; who drives one without a clock does not say this."""


@frozen
class RecognizerSettings:
    """The options of ``ssasr engine``; each factory takes what it uses."""

    model: str
    device: str = "auto"
    max_streams: int | None = None
    threads: int | None = None
    chunk_ms: int | None = None
    """Milliseconds between two steps, for models that were trained with several chunk sizes."""
    precision: str = "auto"
    """``auto``, ``int8`` or ``float32``; see ``devices``."""


Factory = Callable[[RecognizerSettings], Recognizer]
