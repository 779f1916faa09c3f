"""The ONNX reader against the onnx package, and on files that are not ONNX."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from ssasr.engine.onnx_file import read_onnx
from ssasr.errors import WeightsError
from ssasr.models import catalogue

ARRAYS = {
    "f32": np.array([[1.5, -2.0, 3.25]], dtype=np.float32),
    "f16": np.array([1.5, -2.0], dtype=np.float16),
    "i8": np.array([-128, 127], dtype=np.int8),
    "u8": np.array([0, 255], dtype=np.uint8),
    "i64": np.array([-1, 1 << 40], dtype=np.int64),
    "scalar": np.array(7, dtype=np.int32),
    "empty": np.zeros((0, 3), dtype=np.float32),
}


def _model(tmp_path, raw):
    """All of ARRAYS, as raw bytes or in the typed fields, and one node of each interesting kind."""
    if raw:
        constants = [numpy_helper.from_array(array, name) for name, array in ARRAYS.items()]
    else:
        constants = [
            helper.make_tensor(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, array.flatten()
            )
            for name, array in ARRAYS.items()
            if array.dtype != np.float16  # its typed field holds bit patterns; nobody writes that
        ]
    nodes = [
        helper.make_node("Constant", [], ["held"], value=numpy_helper.from_array(ARRAYS["f32"])),
        helper.make_node("Softmax", ["held"], ["out"], name="softmax", axis=-1),
    ]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph(nodes, "graph", [], [out], constants)
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph), path)
    return path


@pytest.mark.parametrize("raw", [True, False])
def test_constants_and_nodes(tmp_path, raw):
    read = read_onnx(_model(tmp_path, raw))
    assert set(read.tensors) == set(ARRAYS) - (set() if raw else {"f16"}) | {"held"}
    for name, tensor in read.tensors.items():
        wanted = torch.from_numpy(ARRAYS.get(name, ARRAYS["f32"]))
        assert tensor.dtype == wanted.dtype
        assert torch.equal(tensor, wanted)
    softmax = read.nodes[1]
    assert (softmax.kind, softmax.name) == ("Softmax", "softmax")
    assert (softmax.inputs, softmax.outputs) == (("held",), ("out",))
    assert softmax.integers == {"axis": -1}


@pytest.mark.parametrize("cut", [0, 1, 20, 100, 200, -1])
def test_a_file_cut_short(tmp_path, cut):
    path = _model(tmp_path, raw=True)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(WeightsError, match="not an ONNX model"):
        read_onnx(path)


def test_weights_in_another_file(tmp_path):
    path = tmp_path / "model.onnx"
    model = onnx.load(_model(tmp_path, raw=True))
    onnx.save(model, path, save_as_external_data=True, size_threshold=0)
    with pytest.raises(WeightsError, match="is in another file"):
        read_onnx(path)


@pytest.mark.weights
@pytest.mark.parametrize("name", ["silero-vad", "smart-turn"])
def test_the_models_of_the_catalogue_read_like_the_onnx_package_reads_them(name):
    path = catalogue.resolve(name, pull=False).weights
    read, graph = read_onnx(path), onnx.load(path).graph
    for constant in graph.initializer:
        wanted = torch.from_numpy(numpy_helper.to_array(constant).copy())
        assert torch.equal(read.tensors[constant.name], wanted)
    ours = [(node.kind, node.inputs, node.outputs) for node in read.nodes]
    assert ours == [(node.op_type, tuple(node.input), tuple(node.output)) for node in graph.node]
