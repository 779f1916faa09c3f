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

from torch import Tensor, nn

from ssasr.engine import kernels
from ssasr.engine.whisper.model import Decoder, DecoderLayer


class HalfLinear(nn.Module):
    """Replaces a ``nn.Linear``, float32 (..., inputs) -> float32 (..., outputs), with weights in
    half precision."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._product = kernels.HalfProduct(linear.weight, linear.bias)

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
            if kernels.has_half():
                setattr(module, name, HalfLinear(child))
        elif kernels.int8_limit():
            rows = kernels.FEW if isinstance(module, Decoder) else kernels.MANY
            setattr(module, name, kernels.Int8Linear.of(child, rows))
