"""Linear layers for the CPU with smaller weights: 8-bit integers, or half precision.

*8 bits* where many rows go through a layer (the encoder, the keys and values of the
cross-attention) or the layer is huge (the vocabulary). Weights are scaled per output, inputs per
row, and the product is exact integer arithmetic; a row's result therefore does not depend on the
rest of the batch, which dynamic quantisation with one scale for the whole input cannot promise.

*Half precision* in the decoder, where a pass is a few rows: time goes into reading the weights and
into starting operations, and this is one operation with weights of half the size, which most
checkpoints are published in. Products are float32, summed in the same order however many rows there
are; so a draft and a batch change nothing, where rounding to 8 bits would blow up last bits.
"""

import torch
from torch import Tensor, nn

from ssasr.engine.kernels import HalfProduct, has_half, has_int8
from ssasr.engine.whisper.model import DecoderLayer

_LARGEST = 127.0


class Int8Linear(nn.Module):
    """Replaces a ``nn.Linear``; float32 (..., inputs) -> float32 (..., outputs).

    With q the row's integers from 0 to 255, x = scale q + offset; so the product with the weights
    is scale (q . W) + offset (sum of W), and the second term costs less than centring q would. The
    offset is the row's least value. Only a layer that narrows, as those after GELU do, takes the
    offset that keeps the row's mean: a row of small values and a huge one, as there are after GELU,
    would be shifted as a whole. Elsewhere the two offsets are as good (measured on tiny.en).
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        self._inputs = linear.in_features
        self._narrows = linear.in_features > linear.out_features
        scale = weight.abs().amax(dim=1).clamp_(min=1e-8) / _LARGEST
        integers = (weight / scale[:, None]).round_().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(integers, None)
        self._scale = scale
        self._zero = torch.zeros(len(scale), dtype=torch.int32)
        self._sum = integers.sum(dim=1).float() * scale
        bias = linear.bias
        self._bias = torch.zeros_like(scale) if bias is None else bias.detach().float()

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self._inputs)
        # As few passes over the rows as will do: they cost as much as the product itself. This one
        # appends each row's scale and least value to its integers, four bytes each.
        packed = torch.ops.quantized.embedding_bag_byte_prepack.default(rows)
        integers = packed[:, : self._inputs].contiguous()
        scale = packed[:, self._inputs : -4].view(torch.float32)
        if self._narrows:
            mean = integers.sum(dim=1, keepdim=True, dtype=torch.int32) / self._inputs
            offset = rows.mean(dim=1, keepdim=True).addcmul_(scale, mean, value=-1)
        else:
            offset = packed[:, -4:].view(torch.float32)
        product = torch.ops.onednn.qlinear_pointwise.default(
            integers, 1.0, 0, self._weight, self._scale, self._zero,
            None, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        result = torch.addcmul(self._bias, product, scale).addcmul_(offset, self._sum)
        return result.view(*x.shape[:-1], -1)


class HalfLinear(nn.Module):
    """Replaces a ``nn.Linear``, float32 (..., inputs) -> float32 (..., outputs), with weights in
    half precision."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._product = HalfProduct(linear.weight, linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x.flatten(0, -2)).view(*x.shape[:-1], -1)


def quantize(module: nn.Module, *, few_rows: bool = False) -> None:
    """Replace each linear layer below ``module`` by what this processor is faster with. An
    embedding that shares its weight with a linear layer keeps its own, in float.

    ``few_rows``: the layers see a token or a few of each excerpt, as those of a decoder do."""
    for name, child in module.named_children():
        if not isinstance(child, nn.Linear):
            quantize(child, few_rows=few_rows or isinstance(child, DecoderLayer))
        elif few_rows and name != "kv":  # the keys and values of the audio have many rows
            if has_half():
                setattr(module, name, HalfLinear(child))
        elif has_int8():
            setattr(module, name, Int8Linear(child))
