"""The model for a CPU: every matrix in 8 bits, all else in float32.

Linear layers, convolutions of width one and the products of the prediction network become
``kernels.linear``: weights rounded for each output, inputs for each row, and the sum exact, so that
a row's numbers do not depend on the rows beside it. (The subsampling's two convolutions over
channels, 1 % of the work, stay as they are.)

Rounding takes a while, so the rounded weights are kept, and later starts map them from the disk:
``<cache>/int8/<name>-<largest weight>.safetensors``. The file says what it was made from, by
SHA-256, and a file beside it what its own is; one that is wrong in either is made anew, and where
it cannot be kept the model is rounded at every start.

Of what a start reads, float weights as well as rounded ones, one tensor at a time is in memory: the
whole would be 2.5 GB beside the model's 0.6.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import cast

import torch
from attrs import frozen
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as fn

from ssasr.engine import kernels
from ssasr.engine.fastconformer.checkpoint import read_in_turn
from ssasr.engine.fastconformer.config import load_config
from ssasr.engine.fastconformer.transducer import Model, PredictionNetwork, Prompt
from ssasr.engine.kernels import AFTER_RELU, AFTER_SILU, ANYTHING, Int8Linear, Rounded
from ssasr.models import catalogue
from ssasr.runtime.durable import sync_directory, write_atomically
from ssasr.runtime.free_memory import return_free_memory
from ssasr.runtime.huge_pages import use_huge_pages
from ssasr.telemetry.logs import get_logger

_FORMAT = "1"
_LOG = get_logger(__name__)
Tensors = Mapping[str, Tensor]
_GIVEN = {
    "linear2.weight": AFTER_SILU,
    "pointwise_conv2.weight": AFTER_SILU,
    "subsampling.linear.weight": AFTER_RELU,
    "joint.head.weight": AFTER_RELU,
    "linear_2.weight": AFTER_RELU,
}
"""What layers are given, by the end of their weights' names; the others anything."""


def load_int8(name: str, directory: Path, rows: int) -> Model:
    """The model of a checkpoint directory, for the CPU. ``rows``: frames of a usual step.

    Raises WeightsError as ``checkpoint.load_model``."""
    file = f"{name.replace('/', '--')}-{kernels.int8_limit()}.safetensors"
    path = catalogue.cache_directory() / "int8" / file
    with torch.device("meta"):
        model = Model(load_config(directory))
    made_from = _digest(directory)
    tensors = _load(path, made_from)
    if tensors is None:
        tensors = rounded(read_in_turn(directory, model), model)
        if _save(path, tensors, made_from):
            tensors = _load(path, made_from) or tensors  # mapped
        return_free_memory()
    model = packed(model, tensors, rows)
    return_free_memory()
    huge = use_huge_pages()
    _LOG.debug("huge pages", bytes=huge)
    return model


def quantize(model: Model, rows: int = kernels.MANY) -> Model:
    """The model without a file; it is changed."""
    return packed(model, rounded(model.state_dict().items(), model), rows)


# -- the numbers -----------------------------------------------------------------------------------


@torch.no_grad()
def rounded(state: Iterable[tuple[str, Tensor]], model: Model) -> Tensors:
    """What is kept of the state of such a model: two tensors in place of each matrix, and the
    others in float32."""
    matrices = set(_matrices(model))
    kept: dict[str, Tensor] = {}
    for name, tensor in state:
        if name in matrices:
            weight = kernels.rounded(tensor)
            kept[f"{name}.integers"], kept[f"{name}.scale"] = weight.integers, weight.scale
        else:
            kept[name] = tensor.to(torch.float32, copy=True)
    return kept


def _matrices(model: Model) -> Iterator[str]:
    """Names of the parameters that are rounded. The projection of the positions is not: it is used
    once, for constants."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not name.endswith("relative_k_proj"):
            yield f"{name}.weight"
        elif isinstance(module, nn.LSTM):
            yield from (
                f"{name}.{each}" for each, _ in module.named_parameters() if "weight" in each
            )


# -- the modules -----------------------------------------------------------------------------------


class Int8PredictionNetwork(PredictionNetwork):
    """The same in 8 bits. Made of one that has its other weights."""

    def __init__(self, network: PredictionNetwork, tensors: Tensors, prefix: str) -> None:
        nn.Module.__init__(self)
        self.depth, self.blank = network.depth, network.blank
        self.embedding, self.decoder_projector = network.embedding, network.decoder_projector

        def layer(name: str) -> Int8Linear:
            bias = tensors[f"{prefix}lstm.bias_{name}"].clone()
            return _layer(tensors, f"{prefix}lstm.weight_{name}", bias, kernels.FEW)

        depths = range(network.depth)
        self._inputs = nn.ModuleList(layer(f"ih_l{depth}") for depth in depths)
        self._hidden = nn.ModuleList(layer(f"hh_l{depth}") for depth in depths)

    def gates(self, layer: int, x: Tensor, hidden: Tensor) -> Tensor:
        """See ``PredictionNetwork``."""
        found: Tensor = self._inputs[layer](x).add_(self._hidden[layer](hidden))
        return found


class Int8Prompt(Prompt):
    """The same in 8 bits; the columns of the one-hot vectors are not multiplied, only added."""

    def __init__(self, tensors: Tensors, prefix: str, dim: int, rows: int) -> None:
        nn.Module.__init__(self)
        first = _rounded_of(tensors, f"{prefix}linear_1.weight")
        own = Rounded(first.integers[:, :dim].contiguous(), first.scale)
        bias = tensors[f"{prefix}linear_1.bias"].clone()
        self._frames = Int8Linear(kernels.pack(own, bias, rows=rows, given=ANYTHING))
        columns = first.integers[:, dim:].float() * first.scale[:, None]
        self.columns = nn.Parameter(columns.t().contiguous(), requires_grad=False)
        bias = tensors[f"{prefix}linear_2.bias"].clone()
        self._second = _layer(tensors, f"{prefix}linear_2.weight", bias, rows)

    def forward(self, frames: Tensor, prompts: Tensor) -> Tensor:
        """See ``Prompt``."""
        inner = self._frames(frames) + self.columns[prompts][:, None]
        found: Tensor = self._second(fn.relu(inner))
        return found


@torch.no_grad()
def packed(model: Model, tensors: Tensors, rows: int) -> Model:
    """``model``, its weights whatever they are, with those of ``rounded``."""
    dim = model.config.encoder.hidden_size
    for name, module in list(model.named_modules()):
        owner = model.get_submodule(name.rpartition(".")[0])
        own = {each: f"{name}.{each}" for each, _ in module.named_parameters(recurse=False)}
        if f"{name}.weight.integers" in tensors and not isinstance(owner, Prompt):
            bias = tensors[own["bias"]].clone() if "bias" in own else None
            setattr(owner, name.rpartition(".")[2], _layer(tensors, own["weight"], bias, rows))
        elif not isinstance(module, nn.LSTM) and not isinstance(owner, Prompt):
            for each, full in own.items():
                setattr(module, each, nn.Parameter(tensors[full].clone(), requires_grad=False))
    model.decoder = Int8PredictionNetwork(model.decoder, tensors, "decoder.")
    if model.prompt_projector is not None:
        model.prompt_projector = Int8Prompt(tensors, "prompt_projector.", dim, rows)
    return model.eval()


def _layer(tensors: Tensors, name: str, bias: Tensor | None, rows: int) -> Int8Linear:
    given = next((kind for end, kind in _GIVEN.items() if name.endswith(end)), ANYTHING)
    return Int8Linear(kernels.pack(_rounded_of(tensors, name), bias, rows=rows, given=given))


def _rounded_of(tensors: Tensors, name: str) -> Rounded:
    return Rounded(tensors[f"{name}.integers"], tensors[f"{name}.scale"].clone())


# -- the file --------------------------------------------------------------------------------------


def _digest(directory: Path) -> str:
    """Of all that the numbers are made from."""
    files = sorted([*directory.glob("*.safetensors"), directory / "config.json"])
    digests = [f"{path.name} {catalogue.sha256(path)}" for path in files if path.exists()]
    return sha256("\n".join([_FORMAT, *digests]).encode()).hexdigest()


@frozen
class _Mapped(Mapping[str, Tensor]):
    """The tensors of a file, each mapped by itself for as long as it lives: all of them are never
    in memory beside what is made of them."""

    path: Path
    names: frozenset[str]

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        with safe_open(self.path, "pt") as file:
            return cast(Tensor, file.get_tensor(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _load(path: Path, made_from: str) -> Tensors | None:
    """The tensors, mapped; None if there is no such file, or not the right one."""
    try:
        expected = _digest_file(path).read_text("ascii").strip()
        if catalogue.sha256(path) != expected:
            _LOG.warning("rounded weights are damaged and made anew", path=str(path))
            return None
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("made_from") != made_from:
                return None
            return _Mapped(path, frozenset(file.keys()))
    except (OSError, SafetensorError, UnicodeDecodeError):
        return None


def _save(path: Path, tensors: Tensors, made_from: str) -> bool:
    """Whether it could be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_suffix(f".{os.getpid()}")
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(whole, staged, {"made_from": made_from})
        digest = catalogue.sha256(staged)
        staged.replace(path)
        sync_directory(path.parent)
        write_atomically(_digest_file(path), digest + "\n")
    except OSError as error:
        _LOG.warning("rounded weights cannot be kept", path=str(path), error=str(error))
        return False
    return True


def _digest_file(path: Path) -> Path:
    return path.with_suffix(".sha256")
