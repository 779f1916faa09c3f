"""Readers of the formats that weights come in: raw names to tensors, and the strict load.

No reader runs code from a file: safetensors, CTranslate2 and ONNX are plain data, and OpenAI's
``.pt`` goes through torch's weights-only unpickler. What the tensors mean is for the model's own
name map (``load_strict``), which leaves nothing over on either side.
"""

import json
import mmap
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ssasr.errors import WeightsError
from ssasr.models.catalogue import ModelFiles

NameMap = Mapping[str, str] | Callable[[str], str | None]
"""Raw name to parameter name. A callable gives None for a tensor that the model does not use."""

# CTranslate2, include/ctranslate2/types.h: the order of its DataType enumeration.
_CT2_DTYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f4"),
    1: np.dtype("i1"),
    2: np.dtype("<i2"),
    3: np.dtype("<i4"),
    4: np.dtype("<f2"),
    5: np.dtype("<u2"),  # bfloat16, which numpy does not have: its bits
}
_CT2_BFLOAT16 = 5
_CT2_VERSION = 6
_NAMED = 8  # how many tensor names an error spells out


def read_weights(files: ModelFiles) -> dict[str, Tensor]:
    """All tensors of a model, on the CPU, by the names the file gives them."""
    path = files.weights
    match files.format:
        case "ctranslate2":
            return read_ctranslate2(path)
        case "openai":
            return read_openai(path)[0]
        case "safetensors":
            return read_safetensors(path)
    raise WeightsError(f"cannot read {path}: unknown format {files.format!r}")


# -- safetensors ----------------------------------------------------------------------------------


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """One file, or all the shards that a ``….index.json`` names."""
    if path.suffix != ".json":
        return _read_shard(path)
    try:
        placed: dict[str, str] = json.loads(path.read_text("utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"cannot read the index {path}: {error}") from error
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(placed.values())):
        if Path(shard).name != shard:
            raise WeightsError(f"{path} names a shard outside its folder: {shard}")
        tensors |= _read_shard(path.parent / shard)
    if missing := placed.keys() - tensors.keys():
        raise WeightsError(f"{path} promises tensors that no shard has: {_some(missing)}")
    return tensors


def _read_shard(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read {path}: {error}") from error


# -- OpenAI's .pt ---------------------------------------------------------------------------------


def read_openai(path: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Tensors and dimensions of a checkpoint of the original Whisper repository."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        tensors, dims = checkpoint["model_state_dict"], checkpoint["dims"]
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path} holds more than tensors and is not loaded") from error
    except (OSError, RuntimeError, KeyError, TypeError, EOFError) as error:
        raise WeightsError(f"{path} is not a Whisper checkpoint: {error!r}") from error
    return dict(tensors), {str(key): int(value) for key, value in dims.items()}


# -- CTranslate2 ----------------------------------------------------------------------------------


class _Reader:
    """Little-endian fields, one after the other, out of a buffer."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def number(self, format_: str) -> int:
        (value,) = struct.unpack_from(f"<{format_}", self.data, self.at)
        self.at += struct.calcsize(f"<{format_}")
        return int(value)

    def string(self) -> str:
        length = self.number("H")  # counts the closing zero byte
        raw = self.data[self.at : self.at + length]
        if length == 0 or len(raw) != length or raw[-1]:
            raise ValueError(f"no string at byte {self.at}")
        self.at += length
        return raw[:-1].decode()

    def tensor(self) -> Tensor:
        shape = [self.number("I") for _ in range(self.number("B"))]
        kind = self.number("B")
        size = self.number("I")
        dtype = _CT2_DTYPES[kind]
        if size != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
            raise ValueError(f"{size} bytes for shape {shape} of {dtype}")
        # Copied: the file is unmapped when reading ends, and torch wants writable memory.
        array = np.frombuffer(self.data, dtype, size // dtype.itemsize, self.at).copy()
        self.at += size
        if kind == _CT2_BFLOAT16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).reshape(shape)
        return torch.from_numpy(array).reshape(shape)


def read_ctranslate2(path: Path) -> dict[str, Tensor]:
    """A ``model.bin`` of CTranslate2, binary version 6, as faster-whisper models come.

    The format (written from CTranslate2's ``model_spec.py``): u32 binary version; string: the name
    of the specification; u32 its revision; u32 number of variables, each: string name, u8 rank,
    rank × u32 shape, u8 data type, u32 bytes, the bytes; u32 number of aliases, each: string alias,
    string name of the variable. A string is u16 length with the closing zero, then the bytes.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read_ctranslate2(_Reader(data))
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise WeightsError(f"{path} is not a CTranslate2 model: {error}") from error


def _read_ctranslate2(reader: _Reader) -> dict[str, Tensor]:
    version = reader.number("I")
    if version != _CT2_VERSION:
        raise ValueError(f"binary version {version}, not {_CT2_VERSION}")
    reader.string()
    reader.number("I")
    tensors = {}
    for _ in range(reader.number("I")):
        name = reader.string()
        tensors[name] = reader.tensor()
    for _ in range(reader.number("I")):
        alias = reader.string()
        tensors[alias] = tensors[reader.string()]
    if reader.at != len(reader.data):
        raise ValueError(f"{len(reader.data) - reader.at} bytes left over")
    return tensors


# -- the strict load ------------------------------------------------------------------------------


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], name_map: NameMap) -> None:
    """Copy ``tensors`` into the parameters and buffers of ``module``, each exactly once.

    A mapping must name every tensor; a callable says None for those left out on purpose. The
    module's dtype and device stay. WeightsError names what is missing, left over, doubled or of
    another shape. Buffers that the module does not save (``persistent=False``) are not loaded.
    """
    wanted = module.state_dict()
    given: dict[str, Tensor] = {}
    unknown: list[str] = []
    for raw, tensor in tensors.items():
        if isinstance(name_map, Mapping):
            name = name_map.get(raw, raw if raw in wanted else "")
        else:
            answer = name_map(raw)
            if answer is None:
                continue
            name = answer
        if name not in wanted:
            unknown.append(raw)
        elif name in given:
            raise WeightsError(f"two tensors for {name}, one of them {raw}")
        else:
            given[name] = tensor
    if unknown:
        raise WeightsError(f"tensors that the model has no place for: {_some(unknown)}")
    if missing := wanted.keys() - given.keys():
        raise WeightsError(f"tensors that the file does not have: {_some(missing)}")
    for name, tensor in given.items():
        if tensor.shape != wanted[name].shape:
            shapes = f"{tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
            raise WeightsError(f"{name} has shape {shapes}")
    with torch.no_grad():
        for name, tensor in given.items():
            wanted[name].copy_(tensor)  # state_dict shares its storage with the module


def _some(names: "set[str] | list[str]") -> str:
    """A few of the names, for an error of one line."""
    shown = sorted(names)[:_NAMED]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + more
