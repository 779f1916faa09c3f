"""A reader of ONNX files as data: the constants, and the nodes that say what they are for.

Two models of the catalogue come as ONNX. Reading their tensors takes the hundred lines below; the
``onnx`` package would bring protobuf and a 20 MB library for the same. Field numbers are those of
``onnx.proto3``; the encoding is protocol buffers' wire format: a stream of (field number, wire
type) keys, each followed by a varint, 8 or 4 bytes, or a length and that many bytes.
"""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor

from ssasr.errors import WeightsError

_Fields = Iterator[tuple[int, "int | memoryview"]]

_DTYPES: dict[int, np.dtype[Any]] = {  # TensorProto.DataType
    1: np.dtype("<f4"),
    2: np.dtype("u1"),
    3: np.dtype("i1"),
    5: np.dtype("<i2"),
    6: np.dtype("<i4"),
    7: np.dtype("<i8"),
    9: np.dtype("?"),
    10: np.dtype("<f2"),
    11: np.dtype("<f8"),
}


@frozen
class Node:
    """One operation: names of what goes in and comes out, and its tensor and integer attributes."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, Tensor] = field(factory=dict)
    integers: Mapping[str, int] = field(factory=dict)


@frozen
class OnnxFile:
    """A graph: its constants by name, and its nodes in order of execution."""

    tensors: Mapping[str, Tensor]
    nodes: tuple[Node, ...]


def read_onnx(path: Path) -> OnnxFile:
    """Constants and nodes of the top-level graph; WeightsError if the file is not one we can read.

    Constants are initializers and ``Constant`` nodes; branches of ``If`` nodes are not looked into.
    """
    try:
        data = memoryview(path.read_bytes())
        (graph,) = (_bytes(value) for number, value in _fields(data) if number == 7)
        return _graph(graph)
    except (OSError, ValueError, KeyError, IndexError, struct.error) as error:
        raise WeightsError(f"{path} is not an ONNX model that can be read: {error}") from error


def _graph(data: memoryview) -> OnnxFile:
    tensors: dict[str, Tensor] = {}
    nodes: list[Node] = []
    for number, value in _fields(data):
        if number == 1:
            node = _node(_bytes(value))
            nodes.append(node)
            if node.kind == "Constant" and "value" in node.tensors:
                tensors[node.outputs[0]] = node.tensors["value"]
        elif number == 5:
            name, tensor = _tensor(_bytes(value))
            tensors[name] = tensor
    return OnnxFile(tensors, tuple(nodes))


def _node(data: memoryview) -> Node:
    inputs: list[str] = []
    outputs: list[str] = []
    texts = {3: "", 4: ""}
    tensors: dict[str, Tensor] = {}
    integers: dict[str, int] = {}
    for number, value in _fields(data):
        if number == 5:
            name, attribute = _attribute(_bytes(value))
            if isinstance(attribute, Tensor):
                tensors[name] = attribute
            elif attribute is not None:
                integers[name] = attribute
        elif number in (1, 2):
            (inputs if number == 1 else outputs).append(_text(value))
        elif number in texts:
            texts[number] = _text(value)
    return Node(texts[4], texts[3], tuple(inputs), tuple(outputs), tensors, integers)


def _attribute(data: memoryview) -> tuple[str, Tensor | int | None]:
    name = ""
    found: Tensor | int | None = None
    for number, value in _fields(data):
        if number == 1:
            name = _text(value)
        elif number == 3:
            assert isinstance(value, int), "an integer attribute is a varint"
            found = _signed(value)
        elif number == 5:
            _, found = _tensor(_bytes(value))
    return name, found


def _tensor(data: memoryview) -> tuple[str, Tensor]:
    name, kind, shape, raw = "", 0, [], memoryview(b"")
    typed: list[np.ndarray[Any, Any]] = []
    for number, value in _fields(data):
        if number == 1:
            shape += _integers(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 4:
            typed.append(np.frombuffer(_bytes(value), "<f4"))
        elif number in (5, 7):
            typed.append(np.array(_integers(value)))
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = _bytes(value)
        elif number == 13:
            raise ValueError(f"{name} is in another file")
    dtype = _DTYPES[kind]
    array = np.concatenate(typed).astype(dtype) if typed else np.frombuffer(raw, dtype).copy()
    return name, torch.from_numpy(array).reshape(shape)


def _fields(data: memoryview) -> _Fields:
    """(field number, value) of every field: an integer, or the bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == 2:
            length, at = _varint(data, at)
        else:
            length = {1: 8, 5: 4}[wire]
        if at + length > len(data):
            raise ValueError("the file is cut short")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _integers(value: int | memoryview) -> list[int]:
    """A repeated integer field: one value, or many packed into bytes."""
    if isinstance(value, int):
        return [_signed(value)]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(_signed(number))
    return found


def _signed(value: int) -> int:
    """Negative numbers are written as the 64-bit two's complement."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where bytes were expected")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_bytes(value)).decode()
