"""A batch of excerpts on its way through the model: encoded once, then decoded pass by pass.

``Network`` is the arithmetic: tensors in, tensors out, without reading a value. ``decoding`` calls
``Passes`` with lists, row by row, and does not know how they are run: ``PlainPasses`` creates
tensors of the size that each pass needs, which is right for a CPU; ``graph_passes.GraphPasses`` has
tensors of fixed sizes and replays CUDA graphs. Both give the same results.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from ssasr.engine.features import LogMel
from ssasr.engine.whisper.alignment import FRAME
from ssasr.engine.whisper.model import Cache, Heads, Whisper, length_mask, silent_vectors
from ssasr.engine.whisper.vocabulary import Vocabulary

SPARE = 8
"""Places of the text beyond those that a row may need: rows of a batch are as long as the longest
in each pass."""


@frozen
class Excerpt:
    """samples: float32 (n,). frames: vectors that the encoder makes of it; the samples are cut or
    followed by zeros to that."""

    samples: NDArray[np.float32]
    frames: int


@frozen
class Inputs:
    """What a row puts into the decoder in one pass: tokens, the last of them a draft but for the
    first ``certain``, after ``before`` others that count. ``asked``: tokens whose probabilities are
    wanted, one after each input from the last certain one on, or none."""

    tokens: Sequence[int]
    certain: int
    before: int
    asked: Sequence[int] = ()
    prompt_length: int = 0
    """Tokens of the text before it, which stand in the cache before all of these."""


@frozen
class Outputs:
    """What came of it. choices: greedy's token and its log probability after each input from the
    last certain one on. no_speech: its probability, in a row's first pass; then 0. scores (heads,
    n, frames): of the heads that align, for each input. asked: log probabilities of the tokens that
    were asked for."""

    choices: list[tuple[int, float]]
    no_speech: float
    scores: NDArray[np.float32]
    asked: Sequence[float] = ()


class Batch(Protocol):
    """Excerpts that have been encoded."""

    def languages(self) -> Tensor:
        """(rows, languages): logits, on the host. Before the first pass only."""

    def read(self, inputs: Sequence[Inputs]) -> list[Outputs]:
        """One pass of the decoder; one input a row, in order."""

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the rows, in order; the others are done."""


class Passes(Protocol):
    """Runs a ``Network``."""

    network: "Network"
    frames: int
    """The longest excerpt that it takes."""
    rows: int
    """Excerpts that are best encoded together."""
    widest: int
    """Tokens that a row may put into one pass."""
    room: int
    """Tokens that a row may have in all."""

    def warm_up(self) -> None:
        """Do whatever makes the first pass as fast as the later ones."""

    def begin(self, excerpts: Sequence[Excerpt], tokens: int) -> Batch:
        """Encode these; no row will have more than so many tokens. The batch before, if there was
        one in this thread, is over."""


class Network:
    """The model with what a pass needs of the vocabulary, all on one device."""

    def __init__(self, model: Whisper, mel: LogMel, heads: Heads, vocabulary: Vocabulary) -> None:
        self.model = model
        self.device = model.encoder.positions.device
        # In the order in which the decoder returns them, layer by layer.
        self.heads = tuple(sorted(heads))
        self.mel = mel
        self._mask = vocabulary.mask.to(self.device)
        differ = vocabulary.mask != vocabulary.first_mask
        self._not_first = differ.nonzero().flatten().to(self.device)
        tokens = vocabulary.tokenizer
        self._start, self._no_speech = tokens.start, tokens.no_speech
        named = [tokens.languages[name] for name in vocabulary.languages if vocabulary.multilingual]
        self._languages = torch.tensor(named, dtype=torch.long, device=self.device)

    @property
    def beyond(self) -> int:
        """Vectors that stand for the silence up to 30 s, where rows are of any length."""
        return silent_vectors(self.model.dims.audio_context)

    def encode(self, samples: Tensor, frames: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """samples (batch, n) -> (batch, n / FRAME and those for silence, width), and what is added
        to the scores of who attends to them. ``frames`` (batch,): vectors of audio that count in
        each row; None: all of them."""
        mel = self.mel(samples)
        if frames is not None:
            mel = mel * length_mask(2 * frames, mel.shape[2])[:, 0]
        return self.model.encoder.with_silence(mel, frames)

    def languages(self, cache: Cache) -> Tensor:
        """(batch, languages). The start token goes through the decoder again later."""
        batch = cache.text.shape[1]
        start = torch.full((batch, 1), self._start, device=self.device)
        before = torch.zeros(batch, dtype=torch.long, device=self.device)
        states, _ = self.model.decoder(start, before, cache, 1)
        return self.model.decoder.logits(states[:, 0])[:, self._languages]

    def read(
        self,
        tokens: Tensor,
        before: Tensor,
        cache: Cache,
        seen: int,
        wanted: Tensor,
        first: Tensor,
        opening: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One pass of tokens (batch, n), as ``Decoder`` takes them. Inputs are counted through, row
        by row: wanted (k,), those after which a choice is asked for; first (k,), whether the text
        begins there; opening (m,), those that begin a row.

        The logits of what may be chosen (k, vocabulary), the probabilities that there is no speech
        (m,), and the scores (batch, heads, n, frames)."""
        decoder = self.model.decoder
        states, scores = decoder(tokens, before, cache, seen, self.heads)
        assert scores is not None, "a model has at least one alignment head"
        picked = states.flatten(0, 1)[torch.cat([opening, wanted])]
        logits = decoder.logits(picked)
        opened = len(opening)
        no_speech = logits[:opened].softmax(-1)[:, self._no_speech]
        logits = logits[opened:]
        logits += self._mask
        barred = torch.zeros_like(logits[:, 0]).masked_fill_(first, -torch.inf)
        logits[:, self._not_first] += barred[:, None]
        return logits, no_speech, scores


def log_probabilities(best: Tensor, logits: Tensor) -> Tensor:
    """Of the largest logits (k,) among all (k, vocabulary), which are spoilt."""
    # In place: a row has the whole vocabulary, and fresh memory costs more than the arithmetic.
    return -logits.sub_(best[:, None]).exp_().sum(-1).log_()


class PlainPasses:
    """``Passes`` as they are written, for a CPU. May be used by several threads."""

    rows = 4
    """So that a step does not take long: a loaded engine would learn too late of turns that have
    ended."""

    def __init__(self, network: Network) -> None:
        dims = network.model.dims
        self.frames = dims.audio_context
        self.widest = self.room = dims.text_context
        self.network = network

    def warm_up(self) -> None:
        """Nothing is planned ahead."""

    def begin(self, excerpts: Sequence[Excerpt], tokens: int) -> Batch:
        return _PlainBatch(self.network, excerpts, tokens + SPARE)


class _PlainBatch:
    def __init__(self, network: Network, excerpts: Sequence[Excerpt], capacity: int) -> None:
        """Excerpts of the same length share an encoder's batch; nothing is padded that way."""
        self._network = network
        groups: dict[int, list[int]] = {}
        for number, excerpt in enumerate(excerpts):
            groups.setdefault(excerpt.frames, []).append(number)
        encoded = []
        for frames, numbers in groups.items():
            samples = np.empty((len(numbers), frames * FRAME), dtype=np.float32)
            for row, number in enumerate(numbers):
                fill(samples[row], excerpts[number])
            encoded.append((numbers, *network.encode(torch.from_numpy(samples), None)))
        audio, mask = encoded[0][1:] if len(encoded) == 1 else _together(encoded, len(excerpts))
        self._cache = network.model.decoder.start(audio, mask, capacity)
        self._capacity = self._cache.text.shape[2]

    def languages(self) -> Tensor:
        return self._network.languages(self._cache)

    def read(self, inputs: Sequence[Inputs]) -> list[Outputs]:
        longest = max(len(row.tokens) for row in inputs)
        wanted = [
            (number * longest + place, row.before == 0 and place == row.certain - 1)
            for number, row in enumerate(inputs)
            for place in range(row.certain - 1, len(row.tokens))
        ]
        places, first = zip(*wanted, strict=True)
        openings = [number * longest for number, row in enumerate(inputs) if not row.before]
        logits, no_speech, scores = self._network.read(
            torch.tensor([[*row.tokens, *[0] * (longest - len(row.tokens))] for row in inputs]),
            torch.tensor([row.prompt_length + row.before for row in inputs]),
            self._cache,
            min(max(row.prompt_length + row.before for row in inputs) + longest, self._capacity),
            torch.tensor(places),
            torch.tensor(first),
            torch.tensor(openings, dtype=torch.long),
        )
        # torch takes ten times as long to say where the largest one is.
        tokens, best = logits.numpy().argmax(-1), logits.amax(-1)
        below = _below(logits.numpy(), best.numpy(), inputs)
        logprobs = log_probabilities(best, logits)
        found = iter(zip(tokens.tolist(), logprobs.tolist(), strict=True))
        opened, observed = iter(no_speech.tolist()), scores.float().numpy()
        outputs = []
        for number, row in enumerate(inputs):
            choices = [next(found) for _ in range(len(row.tokens) - row.certain + 1)]
            asked = [best - less for less, (_, best) in zip(below[number], choices, strict=False)]
            opening = 0.0 if row.before else next(opened)
            outputs.append(Outputs(choices, opening, observed[number], asked))
        return outputs

    def keep(self, rows: Sequence[int]) -> None:
        self._cache = self._cache.select(torch.tensor(rows))


def _below(
    logits: NDArray[np.float32], best: NDArray[np.float32], inputs: Sequence[Inputs]
) -> list[list[float]]:
    """How far what each row asks for is below the likeliest; the choices of the rows follow each
    other in the logits (k, vocabulary)."""
    found: list[list[float]] = []
    begin = 0
    for row in inputs:
        end = begin + len(row.tokens) - row.certain + 1
        asked = logits[np.arange(begin, end), row.asked] if row.asked else best[begin:begin]
        found.append((best[begin : begin + len(asked)] - asked).tolist())
        begin = end
    return found


def _together(
    groups: Sequence[tuple[Sequence[int], Tensor, Tensor | None]], rows: int
) -> tuple[Tensor, Tensor]:
    """One batch of groups of rows: their numbers, vectors, and mask."""
    longest, width = max(vectors.shape[1] for _, vectors, _ in groups), groups[0][1].shape[2]
    audio = groups[0][1].new_zeros(rows, longest, width)
    mask = torch.full((rows, 1, 1, longest), -torch.inf)
    for numbers, vectors, weights in groups:
        audio[numbers, : vectors.shape[1]] = vectors
        mask[numbers, ..., : vectors.shape[1]] = 0.0 if weights is None else weights
    return audio, mask


def fill(row: NDArray[np.float32], excerpt: Excerpt) -> None:
    """The excerpt's samples, and zeros after them."""
    samples = excerpt.samples[: len(row)]
    row[: len(samples)] = samples
    row[len(samples) :] = 0.0
