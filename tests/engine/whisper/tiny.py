"""A Whisper with random weights, a byte vocabulary and a detector of loud frames: everything that
the real recogniser has, at a size at which tests take milliseconds."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from attrs import evolve

from ssasr.engine.features import LogMel
from ssasr.engine.tokenizers import WhisperTokenizer
from ssasr.engine.vad import VadState
from ssasr.engine.whisper.decoding import Decoding
from ssasr.engine.whisper.model import Dims, Whisper
from ssasr.engine.whisper.passes import Network, Passes, PlainPasses
from ssasr.engine.whisper.recognizer import WhisperRecognizer
from ssasr.engine.whisper.vocabulary import Vocabulary

SPECIAL = ("endoftext", "startoftranscript", "en", "de", "transcribe", "startofprev", "nospeech")
WORDS = tuple(" " + a + b for a in "bdgklmnprst" for b in ("a", "e", "i", "o", "u", "an", "el"))
HEADS = ((0, 0), (1, 1))


def tokenizer() -> WhisperTokenizer:
    texts = ["Ġ" + word[1:] for word in WORDS] + [".", ",", "!"]
    tokens = dict(enumerate(texts))
    for name in (*SPECIAL, "notimestamps"):
        tokens[len(tokens)] = f"<|{name}|>"
    return WhisperTokenizer(tokens)


def model(seed: int = 10) -> Whisper:
    torch.manual_seed(seed)
    size = len(WORDS) + 3 + len(SPECIAL) + 1
    dims = Dims(20, 1500, 32, 2, 2, size, 200, 32, 2, 2)
    whisper = Whisper(dims)
    with torch.no_grad():
        # Place, audio and text all matter; tied to the embedding, the projection would repeat the
        # last token for ever.
        decoder = whisper.decoder
        decoder.positions.normal_(std=2.0)
        decoder.projection.weight = torch.nn.Parameter(torch.randn(size, 32))
        for layer in decoder.layers:
            layer.cross.out.weight.mul_(2.0)
            layer.cross.kv.weight.mul_(2.0)
    return whisper.eval().requires_grad_(False)


class LoudnessVad:
    """The speech detector's interface: speech is what is louder than -40 dBFS."""

    def initial_state(self, n, device="cpu"):
        zeros = torch.zeros(n, 1, device=device)
        return VadState(zeros, zeros, zeros)

    def detect(self, frames, state):
        level = frames.square().mean(-1).sqrt()
        return torch.where(level > 0.01, 0.97, 0.02), state


class SureTurn:
    """Smart Turn's interface: the more audio it gets, the surer it is."""

    def probability(self, audio):
        return torch.tensor([len(samples) / 160_000 for samples in audio])


def vocabulary(size: int, *, multilingual: bool) -> Vocabulary:
    built = Vocabulary.build(tokenizer(), size, (), ())
    if not multilingual:
        return built
    return evolve(built, multilingual=True, languages=tuple(built.tokenizer.languages))


def network(
    *,
    seed: int = 10,
    multilingual: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device = torch.device("cpu"),  # noqa: B008
) -> tuple[Network, Vocabulary]:
    whisper = model(seed).to(device, dtype)
    words = vocabulary(whisper.dims.vocabulary, multilingual=multilingual)
    return Network(whisper, LogMel(20).to(device), HEADS, words), words


def decoding(*, cut_loops: bool = True, **options: Any) -> Decoding:
    passes, words = network(**options)
    return Decoding(PlainPasses(passes), words, cut_loops=cut_loops)


def recognizer(
    *,
    run: Callable[[Network], Passes] = PlainPasses,
    vad: Any = None,
    workers: int = 0,
    **options: Any,
) -> WhisperRecognizer:
    net, words = network(**options)
    decode, vad = Decoding(run(net), words), vad or LoudnessVad()
    return WhisperRecognizer(
        "random", decode, words, vad, SureTurn(), net.device, 4, workers=workers
    )


def speech(seconds: float, seed: int) -> np.ndarray:
    """Bursts of filtered noise and tones with pauses between them, float32 at 16 kHz."""
    generator = np.random.default_rng(seed)
    pieces = []
    while sum(map(len, pieces)) < seconds * 16_000:
        n = int(generator.integers(3_000, 24_000))
        pitch = generator.uniform(100, 3_000)
        tone = np.sin(np.arange(n) * (2 * np.pi * pitch / 16_000))
        pieces.append(0.2 * tone + 0.1 * generator.standard_normal(n))
        pieces.append(np.zeros(int(generator.integers(1_000, 20_000))))
    return np.concatenate(pieces)[: int(seconds * 16_000)].astype(np.float32)
