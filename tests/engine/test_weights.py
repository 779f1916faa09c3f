"""Readers of weight files, on small files written here, and the strict load."""

import json
import os
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ssasr.engine.weights import (
    load_strict,
    read_ctranslate2,
    read_openai,
    read_safetensors,
    read_weights,
)
from ssasr.errors import WeightsError
from ssasr.models.catalogue import ModelFiles


def _string(text):
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def _variable(name, array, kind):
    head = struct.pack("<B", array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape)
    data = array.tobytes()
    return _string(name) + head + struct.pack("<BI", kind, len(data)) + data


def _ctranslate2(variables, aliases=(), version=6):
    body = (
        struct.pack("<I", version) + _string("WhisperSpec") + struct.pack("<II", 3, len(variables))
    )
    body += b"".join(_variable(*variable) for variable in variables)
    body += struct.pack("<I", len(aliases))
    return body + b"".join(_string(alias) + _string(name) for alias, name in aliases)


FLOATS = np.arange(6, dtype=np.float32).reshape(2, 3)
VARIABLES = [
    ("f32", FLOATS, 0),
    ("i8", np.array([-128, 127], dtype=np.int8), 1),
    ("i32", np.array(7, dtype=np.int32), 3),
    ("f16", FLOATS.astype(np.float16), 4),
    ("bf16", (FLOATS.view(np.uint32) >> 16).astype(np.uint16), 5),
]


def test_ctranslate2_dtypes_shapes_and_aliases(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(_ctranslate2(VARIABLES, [("also", "f32")]))
    tensors = read_ctranslate2(path)
    assert set(tensors) == {"f32", "i8", "i32", "f16", "bf16", "also"}
    for name, dtype in [("f32", torch.float32), ("f16", torch.float16), ("bf16", torch.bfloat16)]:
        assert tensors[name].dtype == dtype
        assert torch.equal(tensors[name].float(), torch.from_numpy(FLOATS))
    assert tensors["i8"].tolist() == [-128, 127]
    assert tensors["i32"].shape == ()
    assert tensors["also"] is tensors["f32"]


@pytest.mark.parametrize("cut", [0, 3, 4, 10, 30, 60, -1])
def test_ctranslate2_cut_short(tmp_path, cut):
    path = tmp_path / "model.bin"
    path.write_bytes(_ctranslate2(VARIABLES)[:cut])
    with pytest.raises(WeightsError, match="not a CTranslate2 model"):
        read_ctranslate2(path)


def test_ctranslate2_other_version_and_trailing_bytes(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(_ctranslate2(VARIABLES, version=5))
    with pytest.raises(WeightsError, match="binary version 5, not 6"):
        read_ctranslate2(path)
    path.write_bytes(_ctranslate2(VARIABLES) + b"x")
    with pytest.raises(WeightsError, match="1 bytes left over"):
        read_ctranslate2(path)


def test_ctranslate2_size_that_does_not_fit_the_shape(tmp_path):
    path = tmp_path / "model.bin"
    data = bytearray(_ctranslate2([("f32", FLOATS, 0)]))
    data[data.index(struct.pack("<II", 2, 3))] = 9
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="24 bytes for shape"):
        read_ctranslate2(path)


def test_sharded_safetensors(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.zeros(3)}, tmp_path / "model-2.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    placed = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    index.write_text(json.dumps({"weight_map": placed}))
    names = ("model-1.safetensors", "model-2.safetensors", index.name)
    files = ModelFiles("two shards", tmp_path, names, "whisper", "safetensors")
    assert {name: t.shape[0] for name, t in read_weights(files).items()} == {"a": 2, "b": 3}

    index.write_text(json.dumps({"weight_map": {**placed, "c": "model-1.safetensors"}}))
    with pytest.raises(WeightsError, match="no shard has: c"):
        read_safetensors(index)
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    with pytest.raises(WeightsError, match="outside its folder"):
        read_safetensors(index)


def test_a_damaged_safetensors_file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x10\0\0\0\0\0\0\0not json at all!")
    with pytest.raises(WeightsError, match="cannot read"):
        read_safetensors(path)


def test_openai_checkpoint(tmp_path):
    path = tmp_path / "tiny.pt"
    torch.save({"dims": {"n_mels": 80}, "model_state_dict": {"w": torch.ones(2)}}, path)
    tensors, dims = read_openai(path)
    assert dims == {"n_mels": 80}
    assert torch.equal(tensors["w"], torch.ones(2))


class _Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_openai_checkpoint_runs_no_code(tmp_path):
    path = tmp_path / "evil.pt"
    torch.save({"dims": {}, "model_state_dict": _Evil(tmp_path / "marker")}, path)
    with pytest.raises(WeightsError, match="more than tensors"):
        read_openai(path)
    assert not (tmp_path / "marker").exists()


def test_load_strict_fills_every_parameter():
    module = nn.Linear(2, 3)
    tensors = {"w": torch.arange(6.0).reshape(3, 2).half(), "bias": torch.ones(3)}
    load_strict(module, tensors, {"w": "weight"})
    assert torch.equal(module.weight, tensors["w"].float())
    assert torch.equal(module.bias, torch.ones(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": None}, "does not have: bias"),
        ({"extra": torch.ones(1)}, "no place for: extra"),
        ({"bias": torch.ones(2)}, r"bias has shape \(2,\) instead of \(3,\)"),
        ({"twin": torch.ones(3)}, "two tensors for bias"),
    ],
)
def test_load_strict_leaves_nothing_over(change, message):
    module = nn.Linear(2, 3)
    before = [p.clone() for p in module.parameters()]
    tensors = {"weight": torch.ones(3, 2), "bias": torch.ones(3), **change}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    with pytest.raises(WeightsError, match=message):
        load_strict(module, tensors, {"twin": "bias"})
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_load_strict_with_a_callable_leaves_out_what_it_says():
    module = nn.Linear(2, 3)
    tensors = {"x.weight": torch.ones(3, 2), "x.bias": torch.ones(3), "optimiser": torch.ones(9)}
    load_strict(module, tensors, lambda raw: raw[2:] if raw.startswith("x.") else None)
    assert torch.equal(module.weight, torch.ones(3, 2))
