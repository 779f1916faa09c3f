"""Linear layers in 8-bit integers, for the CPU.

Weights are scaled per output, inputs per row, both symmetrically, and the product is exact integer
arithmetic; a row's result therefore does not depend on the rest of the batch, which dynamic
quantisation with one scale for the whole input cannot promise.
"""

import torch
from torch import Tensor, nn

_LARGEST = 127.0


class Int8Linear(nn.Module):
    """Replaces a ``nn.Linear``; float32 (..., inputs) -> float32 (..., outputs)."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(dim=1).clamp_(min=1e-8) / _LARGEST
        self.register_buffer("weight", (weight / scale[:, None]).round_().to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        # As few passes over the rows as will do: they cost as much as the product itself.
        rows = x.reshape(-1, x.shape[-1])
        # The greater of two reductions: a vector norm is one pass, but a much slower one.
        above, below = rows.amax(dim=1, keepdim=True), rows.amin(dim=1, keepdim=True).neg_()
        largest = torch.maximum(above, below).clamp_min_(1e-6)
        product = torch._int_mm(
            (rows * (_LARGEST / largest)).round_().to(torch.int8), self.weight.t()
        ).float()
        product.mul_(largest.div_(_LARGEST))
        if self.bias is None:
            result = product.mul_(self.scale)
        else:
            result = torch.addcmul(self.bias, product, self.scale)
        return result.view(*x.shape[:-1], -1)


def quantize(module: nn.Module) -> None:
    """Replace every linear layer below ``module``. An embedding that shares its weight with a
    linear layer keeps its own, in float."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child))
        else:
            quantize(child)
