"""Whisper, to be read from top to bottom: dimensions, layers, encoder, decoder, model.

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (2022). The arithmetic
is the published one. What differs is what streaming and batching need:

* The encoder takes any number of frames: the position table is sliced, never the audio padded to
  30 s. But the silence up to there is what the model was trained with, and much of its attention
  rests on it: so a few vectors stand for all of it (``Encoder.with_silence``). Rows of different
  lengths share a batch under a mask.
* The decoder's keys and values are an argument. A row of the cache may be at any position, and a
  cache is cut back by lowering its length, which is what makes a rejected draft free.
* Cross-attention scores of the alignment heads are returned when asked for.
* Query, key and value projections are one matrix (``qkv``), and so are those of the cross
  attention's keys and values (``kv``): fewer and larger products.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from attrs import define, frozen
from torch import Tensor, nn
from torch.nn import functional as F

Heads = tuple[tuple[int, int], ...]
"""(layer, head) pairs."""
STANDS_FOR = 8
"""Vectors of silence that one of them stands for. With 16 a decode costs a seventh less and whole
sessions have as many errors (298 and 296 of 3,200 words), but one in the bundled recording."""
EDGE = 4
"""How far before the end of what is silent a vector is nothing but silence, whatever follows."""


@frozen
class Dims:
    """All sizes of a model; the only place that knows them."""

    mels: int
    audio_context: int
    audio_width: int
    audio_heads: int
    audio_layers: int
    vocabulary: int = 0
    text_context: int = 0
    text_width: int = 0
    text_heads: int = 0
    text_layers: int = 0


class Attention(nn.Module):
    """Self-attention with fused projections; the key has no bias, its part of the vector is 0."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (batch, n, width) -> query, key, value, each (batch, heads, n, width / heads)."""
        batch, n, width = x.shape
        split = self.qkv(x).view(batch, n, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def join(self, mixed: Tensor) -> Tensor:
        """(batch, heads, n, width / heads), heads joined and projected: (batch, n, width)."""
        joined: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return joined


class CrossAttention(nn.Module):
    """Attention of text to audio. Keys and values are computed once for each excerpt."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def keys_values(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """audio (batch, frames, width) -> keys (batch, heads, width / heads, frames), scaled, and
        values (batch, heads, frames, width / heads), laid out as every later product reads them."""
        batch, frames, width = audio.shape
        split = self.kv(audio).view(batch, frames, 2, self.heads, width // self.heads)
        key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        # Scaled once here and not in each pass. The factor is a power of two and changes no bit.
        scaled = key.transpose(-1, -2) / math.sqrt(width // self.heads)
        return scaled.contiguous(), value.contiguous()

    def forward(
        self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Also the unnormalised scores, (batch, heads, n, frames)."""
        batch, n, width = x.shape
        query = self.query(x).view(batch, n, self.heads, width // self.heads).transpose(1, 2)
        mixed, scores = attention(query, key, value, mask)
        return self.out(mixed.transpose(1, 2).flatten(2)), scores


class EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (batch, frames, width), mask (batch, 1, 1, frames) or None."""
        query, key, value = self.attention.project(self.attention_norm(x))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.attention.join(mixed)
        mlp: Tensor = self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x))))
        return x + mlp


class Encoder(nn.Module):
    """Log-mel frames to audio vectors, two frames each (20 ms)."""

    positions: Tensor

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        width = dims.audio_width
        self.dims = dims
        self.conv1 = nn.Conv1d(dims.mels, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.register_buffer("positions", sinusoids(dims.audio_context, width))
        self.layers = nn.ModuleList(
            EncoderLayer(width, dims.audio_heads) for _ in range(dims.audio_layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """mel (batch, mels, 2 n), zero beyond a row's end -> (batch, n, width).

        ``lengths`` (batch,): vectors that count in each row, n at most; None: all of them. What
        lies beyond a row's length is neither attended to nor meaningful."""
        x = self._convolve(mel)
        mask = None if lengths is None else length_mask(lengths, x.shape[1])
        return self._attend(x + self.positions[: x.shape[1]], mask)

    def with_silence(self, mel: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The same for rows that end in silence (half a second and more), as if it went on for as
        long as there are positions: -> (batch, n + m, width) and what is to be added to the scores
        of whoever attends to them, (batch or 1, 1, 1, n + m).

        One vector of silence in ``STANDS_FOR`` is there, and attended to as if it were that many.
        It costs what 2 to 3 s of audio do. Without it, or with a second of zeros, an excerpt of a
        few seconds is encoded otherwise than the same audio in 30 s, and one in four ends in a loop
        (``benchmarks/archive/whisper_streaming.md``)."""
        x = self._convolve(mel)
        n, step = x.shape[1], STANDS_FOR
        first = step // 2 if lengths is not None else -(-(n - step // 2) // step) * step + step // 2
        beyond = self.positions[first::step]
        if lengths is None:
            silence, mask = x[:, n - EDGE], None
        else:
            silence = x[torch.arange(len(x), device=x.device), lengths - EDGE]
            places = first + step * torch.arange(len(beyond), device=x.device)
            counts = (places >= lengths[:, None])[:, None, None]
            mask = additive(torch.cat([length_mask(lengths, n), counts], dim=-1))
        if len(beyond):
            stands = torch.arange(n + len(beyond), device=x.device) >= n
            weight = (math.log(step) * stands.float())[None, None, None]
            mask = weight if mask is None else mask + weight
        x = torch.cat([x + self.positions[:n], silence[:, None] + beyond], dim=1)
        return self._attend(x, None if mask is None else mask.to(x.dtype)), mask

    def _convolve(self, mel: Tensor) -> Tensor:
        mel = mel.to(self.positions.dtype)
        # What is added to a transposed tensor is one too: every layer would stride through memory.
        return F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2).contiguous()

    def _attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for layer in self.layers:
            x = layer(x, mask)
        normed: Tensor = self.norm(x)
        return normed


class DecoderLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.cross_norm = nn.LayerNorm(width)
        self.cross = CrossAttention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)

    def attend(self, x: Tensor, text: Tensor, rows: Tensor, at: Tensor, mask: Tensor) -> Tensor:
        """Self-attention of x (batch, n, width) after ``text`` (batch, capacity, 2, heads, width /
        heads), into which the keys and values of x are written at the places ``at`` (batch, n).
        mask (batch, 1, n, seen): so many places of the text are looked at."""
        batch, n, width = x.shape
        heads = self.attention.heads
        qkv = self.attention.qkv(self.attention_norm(x)).view(batch, n, 3, heads, width // heads)
        text[rows, at] = qkv[:, :, 1:]
        keys, values = text[:, : mask.shape[-1]].unbind(2)
        query = qkv[:, :, 0].transpose(1, 2) / math.sqrt(width // heads)
        mixed, _ = attention(query, keys.permute(0, 2, 3, 1), values.transpose(1, 2), mask)
        return self.attention.join(mixed)


@define
class Cache:
    """What the decoder has seen of each row. The tensors are written in place; how much of them
    counts is the caller's to know, who takes tokens back by counting fewer.

    text (layers, batch, capacity, 2, heads, width / heads): keys and values. cross_keys and
    cross_values: one a layer, as ``CrossAttention.keys_values`` returns them. cross_mask (batch, 1,
    1, frames): what is added to the scores, or None."""

    text: Tensor
    cross_keys: tuple[Tensor, ...]
    cross_values: tuple[Tensor, ...]
    cross_mask: Tensor | None

    def load_audio(self, fresh: "Cache") -> None:
        """Take over the audio of another one of the same sizes, in place."""
        ours, theirs = ((c.cross_mask, *c.cross_keys, *c.cross_values) for c in (self, fresh))
        for place, new in zip(ours, theirs, strict=True):
            assert place is not None, "fixed places are for rows of any length"
            assert new is not None, "fixed places are for rows of any length"
            place.copy_(new)

    def select(self, rows: Tensor) -> "Cache":
        """The cache of some of the rows (batch indices), for when the others have finished."""
        return Cache(
            self.text[:, rows],
            tuple(key[rows] for key in self.cross_keys),
            tuple(value[rows] for value in self.cross_values),
            None if self.cross_mask is None else self.cross_mask[rows],
        )


class Decoder(nn.Module):
    """Tokens to logits of the token after each."""

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        width = dims.text_width
        self.dims = dims
        # Zeros until it is loaded: random numbers on the meta device make torch import sympy.
        self.embedding = nn.Embedding(
            dims.vocabulary, width, _weight=torch.zeros(dims.vocabulary, width)
        )
        self.positions = nn.Parameter(torch.zeros(dims.text_context, width))
        self.layers = nn.ModuleList(
            DecoderLayer(width, dims.text_heads) for _ in range(dims.text_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, dims.vocabulary, bias=False)
        self.projection.weight = self.embedding.weight

    def start(self, audio: Tensor, mask: Tensor | None, capacity: int) -> Cache:
        """An empty cache for up to ``capacity`` tokens about ``audio`` (batch, frames, width).
        ``mask``: added to the scores, (batch or 1, 1, 1, frames)."""
        dims, batch = self.dims, len(audio)
        cross = [layer.cross.keys_values(audio) for layer in self._layers()]
        shape = (dims.text_layers, batch, min(capacity, dims.text_context), 2, dims.text_heads)
        return Cache(
            audio.new_zeros((*shape, dims.text_width // dims.text_heads)),
            tuple(key for key, _ in cross),
            tuple(value for _, value in cross),
            None if mask is None else mask.expand(batch, -1, -1, -1),
        )

    def forward(
        self, tokens: Tensor, before: Tensor, cache: Cache, seen: int, observe: Heads = ()
    ) -> tuple[Tensor, Tensor | None]:
        """tokens (batch, n) after ``before`` (batch,) of each row, which the cache holds -> states
        (batch, n, width) for ``logits``, and the scores of the observed heads (batch, heads, n,
        frames). Writes the tokens' keys and values into the cache.

        ``seen``: so many places of it are looked at, all up to the last of any row at least."""
        batch, n = tokens.shape
        at = before[:, None] + torch.arange(n, device=tokens.device)
        # Rows padded on the right may run over the end; what is written there counts for nothing.
        at = at.clamp_(max=cache.text.shape[2] - 1)
        mask = additive(torch.arange(seen, device=tokens.device) <= at[:, None, :, None])
        x = self.embedding(tokens) + F.embedding(at, self.positions)
        rows = torch.arange(batch, device=tokens.device)[:, None]
        scores = []
        for number, layer in enumerate(self._layers()):
            x = x + layer.attend(x, cache.text[number], rows, at, mask)
            crossed, layer_scores = layer.cross(
                layer.cross_norm(x),
                cache.cross_keys[number],
                cache.cross_values[number],
                cache.cross_mask,
            )
            scores.append(layer_scores)
            x = x + crossed
            x = x + layer.mlp_out(F.gelu(layer.mlp_in(layer.mlp_norm(x))))
        if not observe:
            return self.norm(x), None
        return self.norm(x), torch.stack([scores[layer][:, head] for layer, head in observe], 1)

    def _layers(self) -> Iterator[DecoderLayer]:
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer), "a ModuleList does not know its type"
            yield layer

    def logits(self, states: Tensor) -> Tensor:
        """states (..., width) -> (..., vocabulary), float32."""
        projected: Tensor = self.projection(states)
        return projected.float()


class Whisper(nn.Module):
    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.dims = dims
        self.encoder = Encoder(dims)
        self.decoder = Decoder(dims)


def sinusoids(length: int, width: int) -> Tensor:
    """Fixed positions (length, width): sines in the first half, cosines in the second, wavelengths
    from 2 pi to 10 000 times that."""
    # In numpy: on the meta device, where models are laid out before they are loaded, this
    # arithmetic would make torch import its compiler, which takes longer than all the rest.
    steps = np.exp(-math.log(10_000) / (width // 2 - 1) * np.arange(width // 2))
    angle = np.arange(length)[:, None] * steps[None, :]
    return torch.from_numpy(np.concatenate([np.sin(angle), np.cos(angle)], axis=1)).float()


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attention that shows its scores: query (batch, heads, n, d), key (batch, heads, d, frames),
    one of the two scaled already, value (batch, heads, frames, d), mask additive -> (batch, heads,
    n, d) and the unmasked scores (batch, heads, n, frames). The softmax is in float32. For the few
    queries of a decoder pass it is also quicker than the fused kernel, which is made for many."""
    scores = query @ key
    masked = scores if mask is None else scores + mask
    return masked.softmax(-1, dtype=torch.float32).to(value.dtype) @ value, scores


def silent_vectors(positions: int) -> int:
    """How many vectors stand for so many of silence."""
    return len(range(STANDS_FOR // 2, positions, STANDS_FOR))


def additive(mask: Tensor) -> Tensor:
    """True becomes 0, false minus infinity."""
    return torch.zeros_like(mask, dtype=torch.float32).masked_fill_(~mask, -torch.inf)


def length_mask(lengths: Tensor, longest: int) -> Tensor:
    """(batch,) -> boolean (batch, 1, 1, longest), true where a row has something."""
    return (torch.arange(longest, device=lengths.device) < lengths[:, None])[:, None, None]
