"""Reads a Hugging Face directory of either checkpoint into a ``Model``, strictly.

Our modules are named as the checkpoint's tensors are, with two differences made for speed: queries, keys
and values come from one matrix, and convolutions of width one are matrices. Every tensor of the file must
be used and every parameter of the model must be filled, with the right shape.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ssasr.engine.fastconformer.config import ModelConfig, load_config
from ssasr.engine.fastconformer.transducer import Model
from ssasr.errors import WeightsError

_JOINED = {"qkv_proj": ("q_proj", "k_proj", "v_proj")}
_WIDTH_ONE = ("conv.pointwise_conv1.weight", "conv.pointwise_conv2.weight")


def load_model(directory: Path, device: torch.device, dtype: torch.dtype) -> Model:
    """The model of a checkpoint directory, on ``device``, in evaluation mode.

    Raises WeightsError naming the file, and the tensors that are missing, left over or misshapen."""
    config = load_config(directory)
    with torch.device("meta"):
        model = Model(config)
    try:
        state = translate(read_tensors(directory), model, config)
    except WeightsError as error:
        raise WeightsError(f"{directory}: {error}") from None
    state = {name: tensor.to(device, dtype) for name, tensor in state.items()}
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """All tensors of ``model.safetensors``, or of the shards that its index names."""
    index = directory / "model.safetensors.index.json"
    if index.exists():
        mapping: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = {name: _read_file(directory / name) for name in sorted(set(mapping.values()))}
        found = {tensor: shard for shard, tensors in shards.items() for tensor in tensors}
        if found != mapping:
            raise WeightsError("model.safetensors.index.json does not describe its shards")
        return {name: tensor for tensors in shards.values() for name, tensor in tensors.items()}
    return _read_file(directory / "model.safetensors")


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise WeightsError(f"{path.name} is missing") from None
    except SafetensorError as error:
        raise WeightsError(f"{path.name} cannot be read: {error}") from None


def translate(tensors: dict[str, Tensor], model: Model, config: ModelConfig) -> dict[str, Tensor]:
    """The checkpoint's tensors under our names; nothing left over on either side."""
    rest, state = dict(tensors), {}
    missing, misshapen = [], []
    for name, parameter in model.state_dict().items():
        sources = _sources(name)
        absent = [source for source in sources if source not in rest]
        missing += absent
        if absent:
            continue
        parts = [rest.pop(source) for source in sources]
        tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
        if name.endswith(_WIDTH_ONE) and tensor.dim() == 3 and tensor.shape[2] == 1:
            tensor = tensor[:, :, 0]
        if tensor.shape != parameter.shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(parameter.shape)}"
            misshapen.append(f"{name} is {shapes}")
        state[name] = tensor
    _refuse("lacks", missing)
    _refuse("does not fit its config.json:", misshapen)
    _refuse("holds tensors this model has no use for:", rest)
    return state


def _sources(name: str) -> list[str]:
    for joined, parts in _JOINED.items():
        if f".{joined}." in name:
            return [name.replace(joined, part) for part in parts]
    return [name]


def _refuse(what: str, names: Iterable[str]) -> None:
    if listed := sorted(names):
        shown = ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")
        raise WeightsError(f"the checkpoint {what} {shown}")
