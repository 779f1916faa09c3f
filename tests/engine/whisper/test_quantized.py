"""8-bit linear layers: near the float ones, and rows that do not influence each other."""

import torch
from torch import nn

from ssasr.engine.whisper.quantized import Int8Linear, quantize
from tests.engine.whisper import tiny


def test_near_the_float_layer():
    torch.manual_seed(0)
    for bias in (True, False):
        linear = nn.Linear(64, 48, bias=bias)
        x = torch.randn(3, 5, 64)
        exact = linear(x)
        error = (Int8Linear(linear)(x) - exact).abs().max()
        assert error < 0.02 * exact.abs().max()


def test_a_row_does_not_depend_on_the_others():
    torch.manual_seed(0)
    layer = Int8Linear(nn.Linear(64, 48))
    rows = torch.randn(7, 64)
    rows[3] *= 1_000
    together = layer(rows)
    for number in range(7):
        assert torch.equal(layer(rows[number : number + 1])[0], together[number])


def test_zeros_give_the_bias():
    linear = nn.Linear(8, 4)
    assert torch.equal(Int8Linear(linear)(torch.zeros(1, 8))[0], linear.bias)


def test_every_linear_layer_of_a_model_is_replaced():
    model = tiny.model()
    before = model.decoder.embedding.weight.clone()
    quantize(model)
    assert not any(type(module) is nn.Linear for module in model.modules())
    assert torch.equal(model.decoder.embedding.weight, before)
