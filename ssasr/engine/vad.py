"""Silero VAD, 16 kHz: speech probability of 32 ms frames, for many streams in one batch.

The network (MIT; versions 5 and 6 have the same): the frame after the last 64 samples of the one
before it, reflected 64 samples at the end; a short-time Fourier transform written as a convolution
(window 256, hop 128: four columns of 129 magnitudes); four convolutions, the last of which leaves
one column of 128; an LSTM cell over the frames; one linear layer and a sigmoid.

The safetensors file of the silero-vad 6.2.3 wheel holds other, older weights than every other file
in it (the probability differs by up to 0.6). The catalogue takes the 16 kHz ONNX file, whose
tensors are those of the package's own TorchScript model.

Only the LSTM needs to know the frame before. So k frames of n streams go through everything else
as one batch of n × k, and only two small products a frame run one after the other.

The convolutions have four columns or fewer to go over: each is one product with the columns beside
each other. For the few frames of a step that takes a third of what ``Conv1d`` does, which sets more
up than it multiplies (``benchmarks/archive/vad.py``).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor, nn

from ssasr.engine.onnx_file import read_onnx
from ssasr.engine.weights import load_strict, read_safetensors
from ssasr.protocol.recognition import VAD_FRAME

CONTEXT = 64
"""Samples of the previous frame that each frame is looked at with."""
_WINDOW = 256
_HOP = 128
_PAD = 64
_BINS = _WINDOW // 2 + 1
_HIDDEN = 128
_TAPS = 3
"""Columns that each output of a convolution is made from."""
_ONNX_NAMES = {
    "model.stft.forward_basis_buffer": "stft.weight",
    **{
        f"model.encoder.{i}.reparam_conv.{part}": f"conv{i + 1}.{part}"
        for i in range(4)
        for part in ("weight", "bias")
    },
    **{
        f"model.decoder.rnn.{part}": f"lstm_cell.{part}"
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    },
    "model.decoder.decoder.2.weight": "final.weight",
    "model.decoder.decoder.2.bias": "final.bias",
}


_SAFETENSORS_NAMES = {
    "stft_conv.weight": "stft.weight",
    "final_conv.weight": "final.weight",
    "final_conv.bias": "final.bias",
}


@frozen
class VadState:
    """What n streams carry from one frame to the next."""

    h: Tensor
    """LSTM output, (n, 128)."""
    c: Tensor
    """LSTM cell, (n, 128)."""
    context: Tensor
    """Last samples processed, (n, 64)."""

    def __len__(self) -> int:
        return self.h.shape[0]

    def take(self, rows: Sequence[int]) -> "VadState":
        """State of some of the streams, in the order given."""
        index = torch.as_tensor(rows, device=self.h.device)
        return VadState(self.h[index], self.c[index], self.context[index])


def stack(states: Sequence[VadState]) -> VadState:
    """One state of all the streams; ``unstack`` is its inverse."""
    return VadState(
        torch.cat([state.h for state in states]),
        torch.cat([state.c for state in states]),
        torch.cat([state.context for state in states]),
    )


def unstack(state: VadState) -> list[VadState]:
    """One state (n = 1) for each stream. They share memory with ``state``, which is not written
    to."""
    return [
        VadState(state.h[i : i + 1], state.c[i : i + 1], state.context[i : i + 1])
        for i in range(len(state))
    ]


class SileroVad(nn.Module):
    """The network; it holds no stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stft = nn.Linear(_WINDOW, 2 * _BINS, bias=False)
        self.conv1 = nn.Linear(_TAPS * _BINS, 128)
        self.conv2 = nn.Linear(_TAPS * 128, 64)
        self.conv3 = nn.Linear(_TAPS * 64, 64)
        self.conv4 = nn.Linear(_TAPS * 64, 128)
        self.lstm_cell = nn.LSTMCell(128, _HIDDEN)
        self.final = nn.Linear(_HIDDEN, 1)

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> "SileroVad":
        """From the 16 kHz ONNX or safetensors file of the silero-vad package; WeightsError if what
        is in it does not fit."""
        model = cls()
        if path.suffix == ".onnx":
            # Its other constants are shapes and the like.
            tensors = read_onnx(path).tensors
            named = {name: t for name, t in tensors.items() if name.startswith("model.")}
            load_strict(model, _as_products(named), _ONNX_NAMES)
        else:
            load_strict(model, _as_products(read_safetensors(path)), _SAFETENSORS_NAMES)
        return model.to(device).eval().requires_grad_(False)

    def initial_state(self, n: int, device: torch.device | str = "cpu") -> VadState:
        """State of n streams before any audio."""
        zeros = torch.zeros(n, _HIDDEN, device=device)
        return VadState(zeros, zeros.clone(), torch.zeros(n, CONTEXT, device=device))

    def forward(self, frames: Tensor, state: VadState) -> tuple[Tensor, VadState]:
        """``frames`` (n, 512) in [-1, 1] -> speech probability (n,), state after them."""
        probability, state = self.detect(frames[:, None], state)
        return probability[:, 0], state

    def detect(self, frames: Tensor, state: VadState) -> tuple[Tensor, VadState]:
        """``frames`` (n, k, 512) -> (n, k): k consecutive frames of each of n streams."""
        probability, hidden, cells = self.detect_with_states(frames, state)
        return probability, VadState(hidden[-1], cells[-1], frames[:, -1, -CONTEXT:].clone())

    def detect_with_states(
        self, frames: Tensor, state: VadState
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The same, with the LSTM's output and cell (n, 128) after each of the frames."""
        n, k, length = frames.shape
        assert length == VAD_FRAME, f"a frame has {VAD_FRAME} samples, not {length}"
        before = torch.cat([state.context[:, None], frames[:, :-1, -CONTEXT:]], dim=1)
        columns = self._columns(torch.cat([before, frames], dim=2).reshape(n * k, -1))
        # The input half of the gates does not depend on the state: one product for all frames.
        gates = F.linear(columns, self.lstm_cell.weight_ih, self.lstm_cell.bias_ih)
        h, c = state.h, state.c
        outputs, cells = [], []
        for gate in gates.reshape(n, k, -1).unbind(1):
            h, c = self._cell(gate, h, c)
            outputs.append(h)
            cells.append(c)
        hidden = torch.stack(outputs, dim=1).relu()
        logit: Tensor = self.final(hidden)
        return logit[..., 0].sigmoid(), outputs, cells

    def _columns(self, audio: Tensor) -> Tensor:
        """(m, 64 + 512) samples -> (m, 128): all that is done to a frame on its own."""
        padded = F.pad(audio[:, None], (0, _PAD), mode="reflect")[:, 0]
        spectrum = self.stft(padded.unfold(1, _WINDOW, _HOP))
        x = (spectrum[..., :_BINS].square() + spectrum[..., _BINS:].square()).sqrt()
        for layer, stride in (
            (self.conv1, 1), (self.conv2, 2), (self.conv3, 2), (self.conv4, 1)
        ):  # fmt: skip
            beside = F.pad(x, (0, 0, 1, 1)).unfold(1, _TAPS, stride).transpose(2, 3)
            x = layer(beside.flatten(2)).relu()
        column: Tensor = x[:, 0]
        return column

    def _cell(self, gates: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the LSTM, its input half done; gates are input, forget, cell, output."""
        gates = gates + F.linear(h, self.lstm_cell.weight_hh, self.lstm_cell.bias_hh)
        i, f, g, o = gates.chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


def _as_products(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of convolutions (outputs, inputs, taps) as (outputs, taps × inputs)."""
    return {
        name: tensor.transpose(1, 2).flatten(1) if tensor.ndim == 3 else tensor
        for name, tensor in tensors.items()
    }
