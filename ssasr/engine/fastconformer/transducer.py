"""The transducer on top of the encoder: prediction network, joint, greedy decoding with state.

A transducer goes along the encoder's frames. At each frame it asks the joint network, given the
frame and the text so far, for a token; *blank* moves on to the next frame, anything else is emitted
and changes the text. Greedy decoding of a batch could go frame by frame with an inner loop over
tokens (the specification: ``decode_plainly`` of the tests), but then all rows wait at every frame
for the row that emits most. *Label looping* (Bataev et al., 2406.06220) turns it round: each round,
every row skips blanks to its next token, wherever that is, and the prediction network runs once for
all of them. A chunk has few frames, so skipping is one joint over all of them: with the text fixed,
the answers of all the frames are known at once, and the next token is at the first frame, from the
row's own on, that does not say blank. The number of iterations is the most tokens of any row, plus
the last one that finds nothing.

Nothing here waits for the device. A fixed number of iterations can be captured in a graph; a row
that has finished rides along unchanged, and ``Decoding.active`` says whether more iterations are
due.
"""

from typing import Self

import torch
from attrs import define, frozen
from torch import Tensor, nn
from torch.nn import functional as fn

from ssasr.engine.fastconformer.biasing import Biasing
from ssasr.engine.fastconformer.config import ModelConfig
from ssasr.engine.fastconformer.encoder import Encoder


@frozen
class Text:
    """What the prediction network knows of each row's text. ``hidden`` and ``cell``: (batch,
    layers, dim). ``summary``: (batch, dim), its output, ready for the joint."""

    hidden: Tensor
    cell: Tensor
    summary: Tensor

    def pack(self) -> Tensor:
        """One row of numbers a stream: (batch, (2 layers + 1) dim)."""
        return torch.cat([self.hidden.flatten(1), self.cell.flatten(1), self.summary], dim=1)

    @classmethod
    def unpack(cls, packed: Tensor, layers: int) -> Self:
        """The inverse of ``pack``."""
        parts = packed.view(packed.shape[0], 2 * layers + 1, -1)
        return cls(parts[:, :layers], parts[:, layers : 2 * layers], parts[:, 2 * layers])

    def take(self, chosen: Tensor, other: "Text") -> None:
        """Become the other text in the rows that are ``chosen`` (batch,)."""
        for mine, its in (
            (self.hidden, other.hidden), (self.cell, other.cell), (self.summary, other.summary)
        ):  # fmt: skip
            rows = chosen.view(-1, *[1] * (mine.dim() - 1))
            torch.where(rows, its, mine, out=mine)


class PredictionNetwork(nn.Module):
    """An LSTM over the tokens emitted so far."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, self.depth = config.decoder_hidden_size, config.num_decoder_layers
        self.blank = config.blank_token_id
        self.embedding = nn.Embedding(config.vocab_size, dim)
        # Holds the weights; the cells are computed below, because the library's LSTM plans its
        # work anew at each call and cannot leave single rows alone.
        self.lstm = nn.LSTM(dim, dim, num_layers=self.depth)
        self.decoder_projector = nn.Linear(dim, dim)

    def start(self) -> Text:
        """The text before the first token, one row: what the network makes of a blank."""
        weight = self.embedding.weight
        nothing = weight.new_zeros(1, self.depth, weight.shape[1])
        blank = torch.full((1,), self.blank, dtype=torch.int64, device=weight.device)
        return self(blank, Text(nothing, nothing, nothing[:, 0]))  # type: ignore[no-any-return]

    def forward(self, tokens: Tensor, text: Text) -> Text:
        """``tokens``: (batch,) int64. The text with them appended."""
        x, hidden, cell = self.embedding(tokens), [], []
        for layer in range(self.depth):
            new_hidden, new_cell = self._cell(layer, x, text.hidden[:, layer], text.cell[:, layer])
            hidden.append(new_hidden)
            cell.append(new_cell)
            x = new_hidden
        return Text(torch.stack(hidden, 1), torch.stack(cell, 1), self.decoder_projector(x))

    def gates(self, layer: int, x: Tensor, hidden: Tensor) -> Tensor:
        """(batch, 4 dim): what the cell's four gates are given."""
        weights = self.lstm.get_parameter
        gates = fn.linear(x, weights(f"weight_ih_l{layer}"), weights(f"bias_ih_l{layer}"))
        return gates + fn.linear(
            hidden, weights(f"weight_hh_l{layer}"), weights(f"bias_hh_l{layer}")
        )

    def _cell(self, layer: int, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        enter, forget, candidate, leave = self.gates(layer, x, hidden).chunk(4, dim=1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * candidate.tanh()
        return leave.sigmoid() * cell.tanh(), cell


class Joint(nn.Module):
    """Scores of every token, given a frame and the text."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head = nn.Linear(config.decoder_hidden_size, config.vocab_size)

    def forward(self, frames: Tensor, summary: Tensor) -> Tensor:
        """(…, dim) twice to (…, vocabulary)."""
        return self.head(fn.relu(frames + summary))  # type: ignore[no-any-return]


class Prompt(nn.Module):
    """Tells the frames which language is spoken: (batch, c, dim) to the same."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, inner = config.encoder.hidden_size, config.prompt_intermediate_size
        self.linear_1 = nn.Linear(dim + config.num_prompts, inner)
        self.linear_2 = nn.Linear(inner, dim)

    def forward(self, frames: Tensor, prompts: Tensor) -> Tensor:
        """``prompts``: (batch,) int64. The model was trained on the frame with a one-hot vector
        appended; a product with a one-hot vector is a column of the matrix."""
        dim = frames.shape[2]
        projected = self.linear_1.weight[:, dim:].t()[prompts][:, None]
        inner = fn.linear(frames, self.linear_1.weight[:, :dim], self.linear_1.bias) + projected
        return self.linear_2(fn.relu(inner))  # type: ignore[no-any-return]


class Model(nn.Module):
    """All the weights. The parts are called one by one; there is no forward of the whole."""

    prompt_projector: Prompt | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.encoder_projector = nn.Linear(config.encoder.hidden_size, config.decoder_hidden_size)
        self.decoder = PredictionNetwork(config)
        self.joint = Joint(config)
        self.prompt_projector = Prompt(config) if config.num_prompts else None

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.decoder.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What is computed outside of the products in 8 bits."""
        return self.decoder.embedding.weight.dtype

    def project(self, frames: Tensor, prompts: Tensor) -> Tensor:
        """Encoder frames (batch, c, dim) to the joint's (batch, c, decoder dim)."""
        if self.prompt_projector is not None:
            frames = self.prompt_projector(frames, prompts)
        return self.encoder_projector(frames)  # type: ignore[no-any-return]


_BY_ROW = ("frame", "at_frame", "emitted", "tokens", "places", "confidences")
_OF_TEXT = ("hidden", "cell", "summary")


@define
class Decoding:
    """A chunk being decoded. All tensors are updated in place, so that a captured graph can go on
    where another one stopped."""

    frames: Tensor
    """(batch, c, dim) projected encoder frames."""
    counts: Tensor
    """(batch,) int64: frames of the row that count; the rest is not looked at."""
    text: Text
    frame: Tensor
    """(batch,) int64: the frame each row is at; at or beyond its count it has finished."""
    at_frame: Tensor
    """(batch,) int64: tokens emitted at that frame."""
    emitted: Tensor
    """(batch,) int64: tokens emitted in all."""
    tokens: Tensor
    """(batch, room) int32; the row's first ``emitted`` are valid, here and below."""
    places: Tensor
    """(batch, room) int32: the frame each token was emitted at."""
    confidences: Tensor
    """(batch, room) float32: the joint's probability of each token."""
    biasing: Biasing | None = None
    """Key terms, where there are any."""

    @classmethod
    def begin(
        cls, frames: Tensor, counts: Tensor, text: Text, room: int, biasing: Biasing | None = None
    ) -> Self:
        """Nothing decoded yet. ``room``: tokens that a row may emit (frames × most per frame)."""
        batch, device = frames.shape[0], frames.device
        return cls(
            frames,
            counts,
            Text(text.hidden.clone(), text.cell.clone(), text.summary.clone()),
            torch.zeros(batch, dtype=torch.int64, device=device),
            torch.zeros(batch, dtype=torch.int64, device=device),
            torch.zeros(batch, dtype=torch.int64, device=device),
            torch.zeros(batch, room + 1, dtype=torch.int32, device=device),
            torch.zeros(batch, room + 1, dtype=torch.int32, device=device),
            torch.zeros(batch, room + 1, dtype=torch.float32, device=device),
            biasing,
        )

    def active(self) -> Tensor:
        """(batch,) bool: the rows that are not at their end."""
        return self.frame < self.counts

    def advance(self, model: Model, most_per_frame: int) -> None:
        """One round: every active row emits its next token or comes to its end."""
        self.append(model, *self.choose(model, most_per_frame))

    def choose(self, model: Model, most_per_frame: int) -> tuple[Tensor, Tensor]:
        """A round but for the text: the rows that emit a token (batch,) bool, and their tokens
        (batch,) int64."""
        batch, chunk = self.frames.shape[:2]
        scores = model.joint(self.frames, self.text.summary[:, None])
        best = scores.argmax(dim=2)
        index = torch.arange(chunk, device=best.device)
        ahead = (index >= self.frame[:, None]) & (index < self.counts[:, None])
        candidates = ahead & (best != model.config.blank_token_id)
        # The first candidate; ``chunk`` where there is none.
        place = torch.where(candidates, index, chunk).amin(dim=1)
        found = place < chunk
        safe = place.clamp(max=chunk - 1)
        row = torch.arange(batch, device=best.device)
        token, here = best[row, safe], scores[row, safe]
        if self.biasing is not None:
            token = self.biasing.prefer(here, token)
            self.biasing.move(found, token)
        confidence = here.float().softmax(dim=1).gather(1, token[:, None])[:, 0]
        self._write(found, token, place, confidence)
        self._move(found, place, most_per_frame)
        return found, token

    def append(self, model: Model, found: Tensor, token: Tensor) -> None:
        """To the text, what ``choose`` gave."""
        self.text.take(found, model.decoder(token, self.text))

    def part(self, rows: Tensor) -> Self:
        """Of some of the rows (n,); a copy."""
        text = Text(self.text.hidden[rows], self.text.cell[rows], self.text.summary[rows])
        biasing = None if self.biasing is None else self.biasing.part(rows)
        own = {name: getattr(self, name)[rows] for name in ("frames", "counts", *_BY_ROW)}
        return type(self)(text=text, biasing=biasing, **own)

    def put(self, rows: Tensor, part: "Decoding") -> None:
        """What has become of these rows."""
        pairs = [(getattr(self, name), getattr(part, name)) for name in _BY_ROW]
        pairs += [(getattr(self.text, name), getattr(part.text, name)) for name in _OF_TEXT]
        if self.biasing is not None and part.biasing is not None:
            pairs.append((self.biasing.node, part.biasing.node))
        for mine, its in pairs:
            mine[rows] = its

    def _write(self, found: Tensor, token: Tensor, place: Tensor, confidence: Tensor) -> None:
        # Rows that found nothing write into the last column, which nobody reads.
        column = torch.where(found, self.emitted, self.tokens.shape[1] - 1)[:, None]
        self.tokens.scatter_(1, column, token[:, None].int())
        self.places.scatter_(1, column, place[:, None].int())
        self.confidences.scatter_(1, column, confidence[:, None])

    def _move(self, found: Tensor, place: Tensor, most_per_frame: int) -> None:
        self.emitted.add_(found)
        here = torch.where(place == self.frame, self.at_frame + 1, 1)
        full = here >= most_per_frame
        torch.where(found, place + full, self.counts, out=self.frame)
        torch.mul(here, found & ~full, out=self.at_frame)


def decode(
    model: Model, frames: Tensor, counts: Tensor, text: Text, biasing: Biasing | None = None
) -> Decoding:
    """Label looping until every row has finished, looking at the device after each round."""
    most = model.config.max_symbols_per_step
    decoding = Decoding.begin(frames, counts, text, frames.shape[1] * most, biasing)
    while bool(decoding.active().any()):
        decoding.advance(model, most)
    return decoding
