"""The model in 8 bits: near the float one, layer by layer, and kept on the disk."""

from weakref import WeakSet

import numpy as np
import pytest
import torch
from torch import nn

from ssasr.engine.fastconformer import checkpoint
from ssasr.engine.fastconformer.checkpoint import load_model
from ssasr.engine.fastconformer.encoder import Span, WholePast
from ssasr.engine.fastconformer.quantized import load_int8, quantize
from ssasr.engine.kernels import Int8Linear, int8_limit
from tests.engine.fastconformer import reference
from tests.engine.fastconformer.test_recognizer import Stream, together

pytestmark = pytest.mark.skipif(
    not int8_limit(), reason="8-bit integers are of no use to this processor"
)
CPU = torch.device("cpu")
DECIBELS = 30.0


def load(directory):
    return load_model(directory, CPU, torch.float32)


def decibels(found, expected):
    """Of the signal over the error."""
    return float(20 * (expected.norm() / (found - expected).norm()).log10())


@pytest.fixture(params=["english", "multilingual"])
def directory(request):
    return request.getfixturevalue(request.param)[1]


@torch.no_grad()
def test_layers_are_near_the_float_ones(directory):
    """Every one of them, with the inputs of its place: as the float model gives them."""
    model, small = load(directory), quantize(load(directory))
    inputs = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not name.endswith("relative_k_proj"):
            module.register_forward_hook(
                lambda _, given, out, name=name: inputs.update({name: (given[0], out)})
            )
    listen(model)
    assert len(inputs) > 8 * len(model.encoder.layers)
    for name, (x, expected) in inputs.items():
        if not name.startswith("prompt"):
            layer = small.get_submodule(name)
            assert isinstance(layer, Int8Linear)
            assert decibels(layer(x), expected) >= DECIBELS, name
    tokens, text = torch.arange(6), model.decoder.start()
    text = text.unpack(text.pack().expand(6, -1), model.decoder.depth)
    expected = model.decoder(tokens, text)
    assert decibels(small.decoder(tokens, text).hidden, expected.hidden) >= DECIBELS
    if model.prompt_projector is not None:
        frames, prompts = torch.randn(3, 2, model.config.encoder.hidden_size), torch.arange(3)
        expected = model.prompt_projector(frames, prompts)
        assert decibels(small.prompt_projector(frames, prompts), expected) >= DECIBELS


def listen(model):
    """The model's parts, one after the other."""

    config = model.config.encoder
    mel = torch.randn(2, 8 * 20 + 7, config.num_mel_bins) * 2 - 6
    span = Span(torch.zeros(2, dtype=torch.int64), torch.full((2,), 2**40))
    cache = WholePast(config.left_frames(20), config.conv_context)
    frames = model.encoder(mel, span, cache, model.encoder.relative_keys(20))
    prompts = torch.zeros(2, dtype=torch.int64)
    model.joint(model.project(frames, prompts), model.decoder.start().summary[:, None])


@pytest.mark.slow
def test_no_stream_knows_its_company(directory, make_recognizer):
    """Tokens and where they are, alone and beside others of every age, in batches of any size."""
    audios = [reference.utterance(seed, 9_000 + 3_111 * seed) for seed in range(7)]
    alone = make_recognizer(directory, 2, slots=8, int8=True)
    expected = [Stream(alone, audio).run().tokens for audio in audios]
    assert sum(map(len, expected)) > 50
    for largest in (64, 3):
        recognizer = make_recognizer(directory, 2, slots=8, largest=largest, int8=True)
        streams = [Stream(recognizer, audio) for audio in audios]
        if largest == 3:
            for first in range(0, 7, 3):
                together(recognizer, streams[first : first + 3])
        else:
            together(recognizer, streams)
        assert [stream.tokens for stream in streams] == expected


def test_the_rounded_weights_are_kept(directory, tmp_path, monkeypatch):
    monkeypatch.setenv("SSASR_CACHE", str(tmp_path))
    first = said(load_int8("small", directory, 16))
    (kept,) = (tmp_path / "int8").glob("*.safetensors")
    written = kept.stat().st_mtime_ns
    monkeypatch.setattr("ssasr.engine.fastconformer.quantized.read_in_turn", refuse)
    assert np.array_equal(said(load_int8("small", directory, 16)), first)
    assert kept.stat().st_mtime_ns == written


def test_a_start_has_few_float_weights_in_memory_at_a_time(directory, tmp_path, monkeypatch):
    """All of them would be four times what the engine keeps."""
    monkeypatch.setenv("SSASR_CACHE", str(tmp_path))
    alive, most, read = WeakSet(), 0, checkpoint._tensor

    def noted(path, name):
        nonlocal most
        tensor = read(path, name)
        alive.add(tensor)
        most = max(most, len(alive))
        return tensor

    monkeypatch.setattr(checkpoint, "_tensor", noted)
    load_int8("small", directory, 16)
    assert 0 < most <= 6, "queries, keys and values are read together, beside the one before"


def refuse(*_):
    raise AssertionError("the float weights are not read again")


@pytest.mark.parametrize("damage", ["file", "digest", "weights"])
def test_a_copy_that_is_not_of_these_weights_is_made_anew(directory, tmp_path, monkeypatch, damage):
    monkeypatch.setenv("SSASR_CACHE", str(tmp_path / "cache"))
    first = said(load_int8("small", directory, 16))
    (kept,) = (tmp_path / "cache" / "int8").glob("*.safetensors")
    if damage == "file":
        spoilt = bytearray(kept.read_bytes())
        spoilt[-1] ^= 1
        kept.write_bytes(spoilt)
    elif damage == "digest":
        kept.with_suffix(".sha256").write_text("0" * 64)
    else:  # those of another checkpoint of the same name
        other = reference.small_model(multilingual="multi" in directory.name, seed=7)
        directory = reference.save(other, tmp_path / "other")
        first = said(quantize(load(directory)))
    assert np.array_equal(said(load_int8("small", directory, 16)), first)
    monkeypatch.setattr("ssasr.engine.fastconformer.quantized.read_in_turn", refuse)
    load_int8("small", directory, 16)


def test_a_cache_that_cannot_be_written_is_done_without(directory, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSASR_CACHE", str(tmp_path / "file"))
    expected = said(quantize(load(directory)))
    assert np.array_equal(said(load_int8("small", directory, 16)), expected)


@torch.no_grad()
def said(model):
    """Numbers that all weights have a part in."""
    found = []
    model.joint.register_forward_hook(lambda _, __, scores: found.append(scores))
    torch.manual_seed(0)
    listen(model)
    return found[0].numpy()
