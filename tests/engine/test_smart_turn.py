"""Smart Turn against onnxruntime on the published file, on real speech cut at many places."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch

from ssasr.engine.smart_turn import WINDOW, SmartTurn
from ssasr.errors import WeightsError
from ssasr.models import catalogue

DATA = Path(__file__).parent.parent / "data"
pytestmark = [pytest.mark.slow, pytest.mark.weights]


@pytest.fixture(scope="module")
def path():
    return catalogue.resolve("smart-turn", pull=False).weights


@pytest.fixture(scope="module")
def exact(path):
    return SmartTurn.load(path, int8=False)


@pytest.fixture(scope="module")
def cuts():
    """Unfinished and finished speech, as it is, cut in the middle, and followed by silence."""
    unfinished, rate = soundfile.read(DATA / "speech.flac", dtype="float32")
    finished, _ = soundfile.read(DATA / "sentence_end.flac", dtype="float32")
    assert rate == 16_000
    parts = [
        recording[: int(len(recording) * part)]
        for recording in (unfinished, finished)
        for part in (0.5, 1.0)
    ]
    return [
        *parts,
        *(np.concatenate([part, np.zeros(rate // 2, np.float32)]) for part in parts[1::2]),
    ]


def _session(model, optimise):
    options = onnxruntime.SessionOptions()
    if not optimise:  # optimising puts roundings of its own between an int8 weight and its product
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # it warns of every constant that optimising makes unused
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options)


def _without_rounding_of_activations(path):
    """The published graph, its QuantizeLinear and DequantizeLinear pairs between nodes removed."""
    model = onnx.load(path)
    constants = {constant.name for constant in model.graph.initializer}
    made_by = {name: node for node in model.graph.node for name in node.output}
    instead, kept = {}, []
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] not in constants:
            instead[node.output[0]] = made_by[node.input[0]].input[0]
        elif node.op_type != "QuantizeLinear":
            kept.append(node)
    for node in kept:
        for place, name in enumerate(node.input):
            while name in instead:
                name = instead[name]
            node.input[place] = name
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model.SerializeToString()


def _answers(session, features):
    return np.array([session.run(None, {"input_features": f[None]})[0].item() for f in features])


def _features(exact, cuts):
    """Log-mel of the 8 s before each cut, after normalisation: what the published file takes."""
    batch = np.zeros((len(cuts), WINDOW), np.float32)
    for row, samples in zip(batch, cuts, strict=True):
        row[WINDOW - len(samples) :] = samples
        row -= row.mean()
        row /= np.sqrt(row.var() + 1e-7)
    return exact.features(torch.from_numpy(batch)).numpy()


def test_equals_the_published_graph_without_its_rounding_of_activations(path, exact, cuts):
    session = _session(_without_rounding_of_activations(path), optimise=False)
    wanted = _answers(session, _features(exact, cuts))
    got = exact.probability(cuts).numpy()
    assert wanted.max() - wanted.min() > 0.5
    assert np.abs(got - wanted).max() < 1e-4


def test_close_to_the_published_file_as_it_is(path, exact, cuts):
    """Its rounding alone moves its answers by several hundredths; see smart_turn.py."""
    session = _session(path.read_bytes(), optimise=True)
    wanted = _answers(session, _features(exact, cuts))
    got = exact.probability(cuts).numpy()
    assert np.abs(got - wanted).mean() < 0.2
    assert np.corrcoef(got, wanted)[0, 1] > 0.9


def test_integers_instead_of_floats_change_little(path, exact, cuts):
    fast = SmartTurn.load(path, int8=True)
    difference = (fast.probability(cuts) - exact.probability(cuts)).abs()
    assert difference.max() < 0.1
    assert difference.mean() < 0.02


@pytest.mark.parametrize("int8", [False, True])
def test_alone_as_in_a_batch(path, cuts, int8):
    model = SmartTurn.load(path, int8=int8)
    together = model.probability(cuts[-2:])
    alone = torch.cat([model.probability([samples]) for samples in cuts[-2:]])
    assert torch.allclose(together, alone, atol=1e-4)


def test_only_the_last_eight_seconds_count(exact, cuts):
    noise = np.random.default_rng(5).normal(0, 0.1, WINDOW).astype(np.float32)
    recent = np.resize(cuts[-1], WINDOW)
    assert torch.equal(
        exact.probability([np.concatenate([noise, recent])]), exact.probability([recent])
    )


def test_another_onnx_file_is_refused():
    other = catalogue.resolve("silero-vad", pull=False).weights
    with pytest.raises(WeightsError, match="tensors that the"):
        SmartTurn.load(other)
