"""Reads a Hugging Face directory of either checkpoint into a ``Model``, strictly.

Our modules are named as the checkpoint's tensors are, with two differences made for speed:
queries, keys and values come from one matrix, and convolutions of width one are matrices. Every
tensor of the file must be used and every parameter of the model must be filled, with the right
shape.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from attrs import frozen
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ssasr.engine.fastconformer.config import ModelConfig, load_config
from ssasr.engine.fastconformer.transducer import Model
from ssasr.errors import WeightsError

_JOINED = {"qkv_proj": ("q_proj", "k_proj", "v_proj")}
_WIDTH_ONE = ("conv.pointwise_conv1.weight", "conv.pointwise_conv2.weight")


def load_model(directory: Path, device: torch.device, dtype: torch.dtype) -> Model:
    """The model of a checkpoint directory, on ``device``, in evaluation mode.

    Raises WeightsError naming the file, and the tensors missing, left over or misshapen."""
    config = load_config(directory)
    with torch.device("meta"):
        model = Model(config)
    state = {name: tensor.to(device, dtype) for name, tensor in read_in_turn(directory, model)}
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def read_in_turn(directory: Path, model: Model) -> Iterator[tuple[str, Tensor]]:
    """The state of a model of this configuration, in the file's precision, each tensor read when it
    is its turn: of the file little more than that is in memory.

    Raises WeightsError as ``load_model``, before the first."""
    try:
        placed = _placed(directory)
        shapes: dict[str, Tensor] = {}
        for path in dict.fromkeys(placed.values()):
            shapes |= _shapes(path)
        translate(shapes, model, model.config)
        for name in model.state_dict():
            read = {source: _tensor(placed[source], source) for source in _sources(name)}
            yield name, _joined(name, list(read.values()))
    except WeightsError as error:
        raise WeightsError(f"{directory}: {error}") from None


def _placed(directory: Path) -> dict[str, Path]:
    """The file that each tensor is in: ``model.safetensors``, or a shard that the index names."""
    index, whole = directory / "model.safetensors.index.json", directory / "model.safetensors"
    if not index.exists():
        return dict.fromkeys(_names(whole), whole)
    mapping: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    shards = sorted(set(mapping.values()))
    found = {tensor: shard for shard in shards for tensor in _names(directory / shard)}
    if found != mapping:
        raise WeightsError("model.safetensors.index.json does not describe its shards")
    return {tensor: directory / shard for tensor, shard in found.items()}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "pt") as file:
            yield file
    except FileNotFoundError:
        raise WeightsError(f"{path.name} is missing") from None
    except SafetensorError as error:
        raise WeightsError(f"{path.name} cannot be read: {error}") from None


def _names(path: Path) -> list[str]:
    with _opened(path) as file:
        return list(file.keys())


def _shapes(path: Path) -> dict[str, Tensor]:
    """Tensors without data."""
    with _opened(path) as file:
        names = file.keys()
        return {
            name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in names
        }


def _tensor(path: Path, name: str) -> Tensor:
    """Mapped for as long as it lives, by a mapping of its own."""
    with _opened(path) as file:
        return cast(Tensor, file.get_tensor(name))


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
        tensor = _joined(name, [rest.pop(source) for source in sources])
        if tensor.shape != parameter.shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(parameter.shape)}"
            misshapen.append(f"{name} is {shapes}")
        state[name] = tensor
    _refuse("lacks", missing)
    _refuse("does not fit its config.json:", misshapen)
    _refuse("holds tensors this model has no use for:", rest)
    return state


def _joined(name: str, parts: list[Tensor]) -> Tensor:
    tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
    if name.endswith(_WIDTH_ONE) and tensor.dim() == 3 and tensor.shape[2] == 1:
        return tensor[:, :, 0]
    return tensor


def _sources(name: str) -> list[str]:
    for joined, parts in _JOINED.items():
        if f".{joined}." in name:
            return [name.replace(joined, part) for part in parts]
    return [name]


def _refuse(what: str, names: Iterable[str]) -> None:
    if listed := sorted(names):
        shown = ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")
        raise WeightsError(f"the checkpoint {what} {shown}")


@frozen
class Processing:
    """What ``processor_config.json`` says about the way audio and languages go in."""

    lookaheads: tuple[int, ...]
    """Right contexts, in encoder frames, that the model was trained with."""
    prompts: Mapping[str, int]
    """Prompt slot of each language or locale; empty for a model without prompts."""

    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes that have a prompt, in the order of their slots."""
        codes: dict[str, int] = {}
        for name, slot in self.prompts.items():
            code = name.split("-")[0]
            if len(code) == 2 and code.islower():
                codes[code] = min(slot, codes.get(code, slot))
        return tuple(sorted(codes, key=lambda code: (codes[code], code)))

    def prompt(self, language: str) -> int | None:
        """The slot of an ISO 639-1 code: its own, or that of its first locale."""
        if language in self.prompts:
            return self.prompts[language]
        slots = [slot for name, slot in self.prompts.items() if name.split("-")[0] == language]
        return min(slots, default=None)


_FEATURES = {
    "hop_length": 160,
    "mel_filters_dtype": "float32",
    "n_fft": 512,
    "preemphasis": 0.97,
    "sampling_rate": 16_000,
    "win_length": 400,
}


def load_processing(directory: Path, config: ModelConfig) -> Processing:
    """Raises WeightsError if the features are not the ones ``features.py`` computes, or if a model
    with prompts comes without their names."""
    path = directory / "processor_config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        features = raw["feature_extractor"]
        expected = {**_FEATURES, "feature_size": config.encoder.num_mel_bins}
        for name, value in expected.items():
            if features.get(name, value) != value:
                raise WeightsError(f"{path}: {name} is {features[name]!r}, not {value!r}")
        lookaheads = tuple(int(frames) for frames in raw["supported_num_lookahead_tokens"])
        prompts = {str(name): int(slot) for name, slot in raw.get("prompt_dictionary", {}).items()}
    except FileNotFoundError:
        raise WeightsError(f"{directory} holds no processor_config.json") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise WeightsError(f"{path} is not as expected: {error!r}") from None
    if config.num_prompts and not prompts:
        raise WeightsError(f"{path} has no prompt_dictionary, and the model has prompts")
    if wrong := sorted(n for n, slot in prompts.items() if not 0 <= slot < config.num_prompts):
        raise WeightsError(f"{path}: the model has no prompt slot for {wrong[0]!r}")
    return Processing(lookaheads, prompts)
