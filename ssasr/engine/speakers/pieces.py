"""What a window's voices say, in pieces that are long enough to be recognised and short enough to
be one person's. Pure.

The network that separates voices may take two people for one, above all where a pause lies
between them. So a piece never reaches across a pause, and whatever lasts longer is cut.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ssasr.engine.speakers.segmentation import FRAME_LENGTH, FRAME_STEP, SETS, VOICES
from ssasr.engine.speakers.windows import Samples, Window
from ssasr.protocol.recognition import SAMPLE_RATE
from ssasr.protocol.voices import Run

HOP = 5 * SAMPLE_RATE
"""Samples between two windows of a segment. Each costs the same, however much of it is new."""
AGAIN = SAMPLE_RATE // 2
"""A piece that ends more than this before the end of the window before is not embedded again."""
PIECE = 2 * SAMPLE_RATE
"""Samples of speech in a piece, about."""
LEAST_CLEAN = SAMPLE_RATE // 2
"""Samples without anybody else that an embedding needs."""
SHORTEST_PAUSE = 12
"""Frames (200 ms) of silence between two pieces, at least; less is part of one."""
SHORTEST_GAP = 6
"""Frames (100 ms) of silence inside a run of one voice that do not end it."""
GRAIN = SAMPLE_RATE // 4
"""Embeddings are made from whole multiples of this, so that those of several voices share a
batch."""


@frozen(eq=False)
class Piece:
    channel: int
    runs: tuple[Run, ...]
    clean: Samples
    """What its embedding is to be made from; empty for none."""


@frozen(eq=False)
class Activity:
    """Of one window, (frames, 3)."""

    active: NDArray[np.bool_]
    louder: NDArray[np.bool_]
    """Of those active in a frame, the one that would be chosen if there were only one."""

    @classmethod
    def none(cls) -> "Activity":
        nobody = np.zeros((0, VOICES), np.bool_)
        return cls(nobody, nobody)

    @classmethod
    def of(cls, scores: NDArray[np.float32]) -> "Activity":
        """From log probabilities (frames, 7) of the sets of voices."""
        active = _MEMBERS[scores.argmax(axis=1)]
        alone = np.where(active, scores[:, 1 : 1 + VOICES], -np.inf)
        louder = active & (np.arange(VOICES) == alone.argmax(axis=1)[:, None])
        return cls(active, louder)


_MEMBERS = np.array([[voice in each for voice in range(VOICES)] for each in SETS])


def _edges(frames: int, window: Window) -> NDArray[np.int64]:
    """Where each frame begins, in samples of the window, and where the last one ends: half-way
    between the middles of frames."""
    edges = np.arange(frames + 1) * FRAME_STEP + (FRAME_LENGTH - FRAME_STEP) // 2
    edges[0], edges[-1] = 0, len(window.audio)
    return edges


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where they are set without interruption: (first, last + 1)."""
    changes = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(first), int(last)) for first, last in changes.reshape(-1, 2)]


def pieces(window: Window, activity: Activity) -> list[Piece]:
    """In the order of their starts."""
    found = []
    edges = _edges(len(activity.active), window)
    for channel in range(VOICES):
        active, louder = activity.active[:, channel], activity.louder[:, channel]
        others = activity.active.any(axis=1) & ~active
        alone = active & (activity.active.sum(axis=1) == 1)
        voiced = _bridged(active, others, SHORTEST_GAP)
        louder = louder | (voiced & ~active)
        for run in _runs(_bridged(voiced, others, SHORTEST_PAUSE)):
            for part in _split(*run):
                runs = _spoken(voiced, louder, part, edges + window.end - len(window.audio))
                found.append(Piece(channel, runs, _clean(window, alone, edges, part)))
    return sorted(found, key=lambda piece: piece.runs[0].start)


def _bridged(
    flags: NDArray[np.bool_], others: NDArray[np.bool_], longest: int
) -> NDArray[np.bool_]:
    """Gaps of so many frames at most filled, unless somebody else speaks in them."""
    filled = flags.copy()
    for first, last in _runs(~flags):
        inside = first > 0 and last < len(flags)
        if inside and last - first <= longest and not others[first:last].any():
            filled[first:last] = True
    return filled


def _split(first: int, last: int) -> Iterator[slice]:
    """Into equal parts of about ``PIECE``."""
    count = max(1, round((last - first) * FRAME_STEP / PIECE))
    ends = (first + (last - first) * part // count for part in range(count + 1))
    return (slice(*each) for each in pairwise(ends))


def _spoken(
    voiced: NDArray[np.bool_], louder: NDArray[np.bool_], part: slice, edges: NDArray[np.int64]
) -> tuple[Run, ...]:
    """``edges``: in stream samples."""
    runs = [
        Run(int(edges[part.start + first]), int(edges[part.start + last]), loud)
        for flags, loud in ((voiced & louder, True), (voiced & ~louder, False))
        for first, last in _runs(flags[part])
    ]
    return tuple(sorted(runs, key=lambda run: run.start))


def _clean(
    window: Window, alone: NDArray[np.bool_], edges: NDArray[np.int64], part: slice
) -> Samples:
    """What is said in a part of the window while nobody else is active; empty: too little, or the
    window before was nearer to it. ``edges``: in samples of the window."""
    spoken = [
        window.audio[edges[part.start + first] : edges[part.start + last]]
        for first, last in _runs(alone[part])
    ]
    samples = sum(map(len, spoken)) // GRAIN * GRAIN
    end = window.end - len(window.audio) + edges[part.stop]
    if samples < LEAST_CLEAN or end < window.since - AGAIN:
        return np.zeros(0, np.float32)
    return np.concatenate(spoken)[-samples:]
