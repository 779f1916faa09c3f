"""Smart Turn v3.2: the probability that the speaker has finished, from the last 8 s of audio.

A Whisper tiny encoder over 8 s, attention pooling over its 400 vectors, a small head (pipecat-ai,
BSD-2). The published file is a statically quantised ONNX graph: int8 weights with one scale an
output, and rounding of every activation in between. We take the weights out of it, scale them back
to float, and leave the rounding of activations out: it is noise that the training did not have.

That noise is not small: onnxruntime itself answers differently, by 0.02 on average and up to 0.23,
depending on how it optimises the file. Ours equals the file without it to 1e-5.

The whole 8 s are encoded however short the utterance is: leaving out part of the silence before it
would save much of the work and changes the answer (by 0.04 on average with 2 s of it kept).

The graph names its biases and layer norms, but not the matrices of its linear layers (``val_17``
…). ``_dequantised`` names each by the bias that is added to its product; the key projection, the
only one without a bias, by the query projection, which has the same input.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssasr.engine.features import HOP, SAMPLE_RATE, LogMel
from ssasr.engine.onnx_file import Node, OnnxFile, read_onnx
from ssasr.engine.weights import load_strict
from ssasr.engine.whisper.model import Dims, Encoder
from ssasr.engine.whisper.quantized import quantize
from ssasr.errors import WeightsError

WINDOW = 8 * SAMPLE_RATE
"""Samples that the model sees; what is older does not count."""
_DIMS = Dims(
    mels=80,
    audio_context=WINDOW // HOP // 2,
    audio_width=384,
    audio_heads=6,
    audio_layers=4,
)
_POOL = 256
_HEAD = (256, 64)
_VARIANCE_FLOOR = 1e-7  # of WhisperFeatureExtractor's zero-mean unit-variance normalisation
_QUANTISED = ("QuantizeLinear", "DequantizeLinear")


class SmartTurn(nn.Module):
    """The network; it holds no stream."""

    def __init__(self) -> None:
        super().__init__()
        width = _DIMS.audio_width
        self.features = LogMel(_DIMS.mels)
        self.encoder = Encoder(_DIMS)
        self.pool = nn.Sequential(nn.Linear(width, _POOL), nn.Tanh(), nn.Linear(_POOL, 1))
        self.head = nn.Sequential(
            nn.Linear(width, _HEAD[0]),
            nn.LayerNorm(_HEAD[0]),
            nn.GELU(),
            nn.Linear(*_HEAD),
            nn.GELU(),
            nn.Linear(_HEAD[1], 1),
        )

    @classmethod
    def load(
        cls, path: Path, device: torch.device | str = "cpu", *, int8: bool | None = None
    ) -> "SmartTurn":
        """From the published ONNX file; WeightsError if what is in it does not fit.

        ``int8``: multiply the encoder's matrices as integers; by default where that is faster, on
        the CPU."""
        model = cls()
        named = {_renamed(name): tensor for name, tensor in _dequantised(read_onnx(path)).items()}
        load_strict(model, _fused(named), {})
        model.eval().requires_grad_(False)
        device = torch.device(device)
        if device.type == "cpu" if int8 is None else int8:
            quantize(model.encoder)
        return model.to(device)

    def probability(self, audio: Sequence[NDArray[np.float32]]) -> Tensor:
        """Each: 16 kHz in [-1, 1], up to now; the last 8 s count. (n,) on the model's device."""
        batch = torch.zeros(len(audio), WINDOW)
        for row, samples in zip(batch, audio, strict=True):
            received = torch.from_numpy(samples[-WINDOW:])
            row[WINDOW - len(received) :] = received  # silence before, as in training
        return self.forward(batch.to(self.encoder.positions.device))

    def forward(self, audio: Tensor) -> Tensor:
        """(n, WINDOW) -> (n,)."""
        centred = audio - audio.mean(dim=1, keepdim=True)
        scale = centred.square().mean(dim=1, keepdim=True).add(_VARIANCE_FLOOR).rsqrt()
        encoded = self.encoder(self.features(centred * scale))
        attention = self.pool(encoded).softmax(dim=1)
        pooled = (attention * encoded).sum(dim=1)
        probability: Tensor = self.head(pooled)[:, 0].sigmoid()
        return probability


# -- reading the published file -------------------------------------------------------------------


def _dequantised(graph: OnnxFile) -> dict[str, Tensor]:
    """All weights in float32 under the names of the model's own modules, ``inner.`` taken off."""
    floats = dict(graph.tensors)
    for node in graph.nodes:
        if node.kind == "DequantizeLinear" and all(name in graph.tensors for name in node.inputs):
            (output,) = node.outputs
            floats[output] = _scaled_back(node, *(graph.tensors[name] for name in node.inputs))
    found = {
        name.removeprefix("inner.").removesuffix("_DequantizeLinear_Output"): tensor
        for name, tensor in floats.items()
        if re.fullmatch(r"inner\..*\.(weight|bias)(_DequantizeLinear_Output)?", name)
    }
    return found | _matrices(graph, floats)


def _scaled_back(node: Node, values: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """One scale for everything, or one for each index along the node's axis."""
    if scale.numel() > 1:
        shape = [1] * values.ndim
        shape[node.integers.get("axis", 1)] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return (values.to(torch.int32) - zero.to(torch.int32)).float() * scale


def _matrices(graph: OnnxFile, floats: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights (outputs, inputs) of the linear layers that the graph writes as MatMul and Add."""
    source = {output: node for node in graph.nodes for output in node.outputs}

    def product(name: str) -> Node:
        """The node whose result this is, once it has been rounded and scaled back."""
        node = source[name]
        return product(node.inputs[0]) if node.kind in _QUANTISED else node

    products = [n for n in graph.nodes if n.kind == "MatMul" and n.inputs[1] in floats]
    names: dict[str, str] = {}
    for node in graph.nodes:
        biases = [name for name in node.inputs if name.endswith(".bias") and name in floats]
        if node.kind == "Add" and len(biases) == 1:
            (other,) = (name for name in node.inputs if name not in biases)
            matrix = product(other)
            names[matrix.outputs[0]] = biases[0].removeprefix("inner.").removesuffix(".bias")
    inputs = {names[n.outputs[0]]: n.inputs[0] for n in products if n.outputs[0] in names}
    for node in products:
        if node.outputs[0] not in names:
            alike = (name for name, received in inputs.items() if received == node.inputs[0])
            (query,) = (name for name in alike if name.endswith("q_proj"))
            names[node.outputs[0]] = query.replace("q_proj", "k_proj")
    return {f"{names[n.outputs[0]]}.weight": floats[n.inputs[1]].t() for n in products}


_LAYER_NAMES = {
    "self_attn_layer_norm": "attention_norm",
    "self_attn.out_proj": "attention.out",
    "self_attn": "attention",
    "final_layer_norm": "mlp_norm",
    "fc1": "mlp_in",
    "fc2": "mlp_out",
}
_TOP_NAMES = {
    "pool_attention.0": "pool.0",
    "pool_attention.2": "pool.2",
    "classifier.0": "head.0",
    "classifier.1": "head.1",
    "classifier.4": "head.3",
    "classifier.6": "head.5",
    "encoder.layer_norm": "encoder.norm",
    "encoder.embed_positions.weight": "encoder.positions",
}


def _renamed(name: str) -> str:
    """A name of the published model as one of ours; q, k and v stay apart for ``_fused``."""
    for theirs, ours in _TOP_NAMES.items():
        if name.startswith(theirs):
            return ours + name[len(theirs) :]
    for theirs, ours in _LAYER_NAMES.items():
        if f".{theirs}." in name:
            return name.replace(f".{theirs}.", f".{ours}.")
    return name


def _fused(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value projections of each layer joined; the key has no bias: zeros."""
    fused = {name: tensor for name, tensor in named.items() if "_proj." not in name}
    layers: Iterable[str] = sorted({n.split("q_proj")[0] for n in named if "q_proj" in n})
    for layer in layers:
        try:
            weights = [named[f"{layer}{part}_proj.weight"] for part in "qkv"]
            query, value = (named[f"{layer}{part}_proj.bias"] for part in "qv")
        except KeyError as error:
            raise WeightsError(f"the file does not have {error}") from error
        fused[f"{layer}qkv.weight"] = torch.cat(weights)
        fused[f"{layer}qkv.bias"] = torch.cat([query, torch.zeros_like(query), value])
    return fused
