"""The compiled loops say what the modules say."""

import numpy as np
import pytest
import torch
from torch.nn import functional as fn

from ssasr.engine.fastconformer import loops
from ssasr.engine.fastconformer.checkpoint import load_model
from ssasr.engine.fastconformer.encoder import MEL_CONTEXT, Span, WholePast
from ssasr.engine.fastconformer.layers import Layer, Subsampling
from ssasr.engine.fastconformer.loops import Norm, Product, Rounding, Streams

AS_IT_IS = Rounding(np.float32(0), np.float32(0), np.float32(1))
BYTES = Rounding(np.float32(128), np.float32(127), np.float32(1e-30))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def product(values):
    """One whose steps and bias matter."""
    steps = np.linspace(0.5, 2.0, len(values), dtype=np.float32)
    bias = random(values.shape[1], seed=9).numpy()
    return Product(((values - bias) / steps[:, None]).astype(np.float32), steps, bias)


def test_the_exponential_is_near_the_library_s():
    x = np.linspace(-87, 88, 10_001).astype(np.float32)
    found = np.array([loops.exponential(each) for each in x])
    assert np.abs(found / np.exp(x.astype(np.float64)) - 1).max() < 3e-7
    assert loops.exponential(np.float32(-1e30)) == pytest.approx(np.exp(-87.0), rel=1e-5)
    assert np.isfinite(loops.exponential(np.float32(1e30)))


def test_a_row_is_normalised():
    x, weight, bias = 3.0 + 5.0 * random(7, 96), random(96, seed=1), random(96, seed=2)
    expected = fn.layer_norm(x, (96,), weight, bias)
    norm, out = Norm(weight.numpy(), bias.numpy()), np.empty((7, 96), np.float32)
    steps = loops.normalise_and_round(x.numpy(), norm, AS_IT_IS, out)
    assert (steps == 1).all()
    torch.testing.assert_close(torch.from_numpy(out), expected, atol=1e-5, rtol=1e-5)
    own = x.clone()
    loops.normalise(own.numpy(), norm)
    torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-5)


def test_the_largest_magnitude_of_a_row_reaches_as_far_as_it_may():
    x = random(5, 64)
    x[1] *= 1e4
    x[2, 7] = -50.0
    out = np.empty(x.shape, np.uint8)
    steps = loops.silu_and_round(product(x.numpy()), BYTES, out)
    values, expected = out.astype(np.float32) - 128, fn.silu(x).numpy()
    assert (np.abs(values).max(axis=1) == 127).all()
    assert np.abs(values * steps[:, None] - expected).max(axis=1) == pytest.approx(
        steps / 2, rel=0.5
    )


def test_a_row_of_zeros_has_the_least_step():
    none, out = np.zeros((1, 16), np.float32), np.empty((1, 16), np.uint8)
    steps = loops.silu_and_round(Product(none, np.ones(1, np.float32), none[0]), BYTES, out)
    assert (out == 128).all()
    assert steps[0] == BYTES.least


@pytest.mark.parametrize("chunk", [1, 2, 7])
@torch.no_grad()
def test_a_layer_says_what_its_module_says(english, chunk):
    """Streams of three ages, over more chunks than the rings are long; one of them ends."""
    model = load_model(english[1], torch.device("cpu"), torch.float32)
    config, block = model.config.encoder, next(model.encoder.blocks())
    left, context, dim = config.left_frames(chunk), config.conv_context, config.hidden_size
    relative = model.encoder.relative_keys(chunk)[0]
    layer = Layer.of(block, relative)
    ages, slots = [0, 1, 5], np.array([2, 0, 3])
    attention = np.zeros((4, 2, (left + 2 * chunk) * dim), np.float32)
    convolution = np.zeros((4, context + 2 * chunk, dim), np.float32)
    pasts = [WholePast(left, context) for _ in ages]
    for step in range(3 * (left // chunk + 2)):
        x = random(3, chunk, dim, seed=step)
        first = np.array([(step - age) * chunk for age in ages])
        there = first >= 0
        frames = np.full(3, 2**40)
        expected = []
        for row, past in enumerate(pasts):
            if there[row]:
                span = Span(torch.tensor([first[row]]), torch.tensor([2**40]))
                expected.append(one_layer(model, block, x[row : row + 1], span, past, relative))
        rows = x[torch.from_numpy(there)].reshape(-1, dim).clone().numpy()
        streams = Streams(
            slots[there], first[there], frames[there], np.arange(len(there) + 1) * chunk
        )
        layer.run(rows, streams, attention, convolution, left)
        found = torch.from_numpy(rows).view(-1, chunk, dim)
        torch.testing.assert_close(found, torch.cat(expected), atol=2e-5, rtol=2e-4)


def one_layer(model, block, x, span, past, relative):
    """As ``Encoder.forward`` has it."""
    masks = model.encoder._masks(span, x.shape[1])
    x = block.before_attention(x)
    queries, new = block.self_attn.project(block.norm_self_att(x))
    x = x + block.self_attn.attend(queries, past.attention(0, new), relative, masks.usable)
    gated = past.convolution(0, block.conv.gate(block.norm_conv(x)))
    x = x + block.conv.convolve(torch.where(masks.attended, gated, 0.0))
    return block.after_convolution(x)


@torch.no_grad()
def test_keys_after_a_stream_s_end_are_not_attended_to(english):
    model = load_model(english[1], torch.device("cpu"), torch.float32)
    config, block = model.config.encoder, next(model.encoder.blocks())
    chunk, dim, left = 4, config.hidden_size, config.left_frames(4)
    layer = Layer.of(block, model.encoder.relative_keys(chunk)[0])

    def run(x):
        rings = [np.zeros((1, 2, (left + chunk) * dim), np.float32)]
        rings.append(np.zeros((1, config.conv_context + chunk, dim), np.float32))
        rows = x.clone().numpy()
        first = np.zeros(1, np.int64)
        layer.run(
            rows, Streams(first, first, np.full(1, 2), np.array([0, len(rows)])), *rings, left
        )
        return rows

    x = random(chunk, dim)
    other = x.clone()
    other[2:] += 1.0
    assert (run(x)[:2] == run(other)[:2]).all()
    assert (run(x)[2:] != run(other)[2:]).any()


@pytest.mark.parametrize("first", [0, 1, 2, 40])
@pytest.mark.parametrize("ends_after", [3, 17, 2**40])
@torch.no_grad()
def test_the_subsampling_says_what_its_module_says(english, first, ends_after):
    """Of a stream that begins in the window, one that goes on, and one that ends in it."""
    model = load_model(english[1], torch.device("cpu"), torch.float32)
    network, chunk = model.encoder.subsampling, 4
    mel = random(1, 8 * chunk + 7, model.config.encoder.num_mel_bins)
    frames = min(2**40, 8 * first + ends_after)
    expected = network(mel, Span(torch.tensor([first]), torch.tensor([frames])))[0]
    rows = Subsampling.of(network).run(mel[0].clone().numpy(), 8 * first - MEL_CONTEXT, frames)
    torch.testing.assert_close(network.linear(rows), expected, atol=1e-5, rtol=1e-4)
