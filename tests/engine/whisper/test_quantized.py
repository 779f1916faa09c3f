"""Linear layers in few bits: near the float ones, and rows that do not influence each other."""

import numpy as np
import pytest
import torch
from torch import nn

from ssasr.engine.kernels import Int8Linear, has_half, int8_limit
from ssasr.engine.whisper.decoding import Request
from ssasr.engine.whisper.quantized import HalfLinear, quantize
from tests.engine.whisper import tiny

needs_int8 = pytest.mark.skipif(not int8_limit(), reason="the processor has no 8-bit products")
NEAR = 0.05
"""Of log-probabilities. Attention is float, and its sums differ by a millionth with what is beside
a row; an input between two integers may then become the other: 1/255 of what its row spans."""
needs_half = pytest.mark.skipif(not has_half(), reason="torch has no FBGEMM here")


@needs_int8
def test_near_the_float_layer():
    torch.manual_seed(0)
    for bias in (True, False):
        linear = nn.Linear(64, 48, bias=bias)
        x = torch.randn(3, 5, 64)
        exact = linear(x)
        error = (Int8Linear.of(linear)(x) - exact).abs().max()
        assert error < 0.02 * exact.abs().max()


@needs_int8
def test_a_row_does_not_depend_on_the_others():
    torch.manual_seed(0)
    layer = Int8Linear.of(nn.Linear(64, 48))
    rows = torch.randn(7, 64)
    rows[3] *= 1_000
    together = layer(rows)
    for number in range(7):
        assert torch.equal(layer(rows[number : number + 1])[0], together[number])


@needs_int8
def test_zeros_give_the_bias():
    linear = nn.Linear(8, 4)
    assert torch.equal(Int8Linear.of(linear)(torch.zeros(1, 8))[0], linear.bias)


@needs_int8
def test_one_huge_value_does_not_shift_the_row():
    """After GELU a row may hold 200 and for the rest what lies between -0.17 and 1."""
    torch.manual_seed(0)
    linear = nn.Linear(256, 48)
    linear.weight.data += 0.05
    x = torch.nn.functional.gelu(torch.randn(4, 256))
    x[:, 7] = 200.0
    exact = linear(x)
    error = (Int8Linear.of(linear)(x) - exact).norm() / exact.norm()
    assert error < 0.02


@needs_half
def test_half_precision_gives_a_row_the_same_bits_in_any_company():
    torch.manual_seed(0)
    linear = nn.Linear(96, 40)
    linear.weight.data = linear.weight.data.half().float()
    layer, rows = HalfLinear(linear), torch.randn(23, 96)
    together = layer(rows)
    assert torch.allclose(together, linear(rows), atol=1e-5)
    for count in (1, 2, 5, 12):
        assert torch.equal(layer(rows[:count]), together[:count])


@needs_int8
@needs_half
def test_every_linear_layer_of_a_model_is_replaced():
    model = tiny.model()
    before = model.decoder.embedding.weight.clone()
    quantize(model)
    assert not any(type(module) is nn.Linear for module in model.modules())
    assert torch.equal(model.decoder.embedding.weight, before)
    layer = model.decoder.layers[0]
    assert isinstance(layer.attention.qkv, HalfLinear)
    assert isinstance(layer.cross.kv, Int8Linear)
    assert isinstance(model.encoder.layers[0].mlp_in, Int8Linear)


@pytest.mark.slow
@needs_int8
@needs_half
def test_a_decode_in_small_numbers_depends_on_neither_draft_nor_batch():
    decode = tiny.decoding(cut_loops=False)
    quantize(decode.passes.network.model)
    requests = [Request(tiny.speech(0.5 + seed / 10, seed), "en") for seed in range(4)]
    alone = [decode([request])[0] for request in requests]
    for one, other in zip(decode(requests), alone, strict=True):
        assert one.tokens == other.tokens
        assert np.allclose(one.logprobs, other.logprobs, atol=NEAR)
    for request, scratch in zip(requests, alone, strict=True):
        for draft in (scratch.tokens, (*scratch.tokens[:5], 9, 11, *scratch.tokens[6:])):
            again = decode([Request(request.samples, "en", draft)])[0]
            assert again.tokens == scratch.tokens
            assert np.allclose(again.logprobs, scratch.logprobs, atol=NEAR)
