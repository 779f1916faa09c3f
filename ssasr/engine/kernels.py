"""Products with small weights on the CPU. The private operators of torch are used here alone.

A row's result must not depend on the rows beside it: a batch, a draft and a replay on another
machine of the same kind would change words. No library promises that, and what a kernel does
depends on the processor and on how many rows it is given (FBGEMM's product in half precision has
another order of summation for one or two rows with AVX2). So kernels are asked, with the shapes
that they are used for, on the machine that they run on.
"""

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

MOST_ROWS = 64
"""Rows that one call of a kernel is given where it was asked what it does with each number."""
_LARGEST_HALF = 65_504.0

Kernel = Callable[[Tensor], Tensor]
"""(rows, inputs) -> (rows, outputs)."""


class HalfProduct:
    """float32 (rows, inputs) -> float32 (rows, outputs), with weights in half precision. Products
    are float32 and summed in the same order whatever rows there are beside."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight (outputs, inputs). Raises RuntimeError without ``has_half``."""
        small = weight.detach().float().clamp(-_LARGEST_HALF, _LARGEST_HALF)
        packed = torch.ops.quantized.linear_prepack_fp16(
            small, None if bias is None else bias.detach().float()
        )
        self._multiply = lambda rows: torch.ops.quantized.linear_dynamic_fp16.default(rows, packed)
        self._counts = _counts_of_shape(weight.shape[1], weight.shape[0])

    def __call__(self, rows: Tensor) -> Tensor:
        return in_counts(self._multiply, rows, self._counts)


def has_half() -> bool:
    """Whether torch has a product with weights in half precision here: FBGEMM, on x86."""
    return "fbgemm" in torch.backends.quantized.supported_engines


@cache
def has_int8() -> bool:
    """Whether oneDNN's product of 8-bit integers is exact here. Without instructions that add up
    products of 8 bits in 32 (VNNI) two of them are added in 16 and overflow; the processor may
    have the instructions and the library have been told not to use them."""
    try:
        return all(_int8_is_exact(count) for count in (1, 2, 3, 5, 8, 16, 33, MOST_ROWS))
    except (RuntimeError, AttributeError):
        return False


def _int8_is_exact(rows: int) -> bool:
    """With the largest operands there are."""
    inputs, outputs = 64, 32
    weight = torch.full((outputs, inputs), 127, dtype=torch.int8)
    product = torch.ops.onednn.qlinear_pointwise.default(
        torch.full((rows, inputs), 255, dtype=torch.uint8), 1.0, 0,
        torch.ops.onednn.qlinear_prepack(weight, None),
        torch.ones(outputs), torch.zeros(outputs, dtype=torch.int32),
        None, 1.0, 0, torch.float32, "none", [], "",
    )  # fmt: skip
    return bool((product == 255 * 127 * inputs).all())


@cache
def _counts_of_shape(inputs: int, outputs: int) -> tuple[int, ...]:
    """For HalfProduct. Asked of random weights: the order of a sum depends on the shape alone."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, inputs, generator=generator)
    packed = torch.ops.quantized.linear_prepack_fp16(weight, None)
    row = torch.randn(1, inputs, generator=generator)
    return steady_counts(lambda x: torch.ops.quantized.linear_dynamic_fp16.default(x, packed), row)


def steady_counts(kernel: Kernel, row: Tensor) -> tuple[int, ...]:
    """Numbers of rows, ascending, for which the kernel gives the same bits at every place: as many
    numbers as there are. ``row`` (1, inputs): random numbers. Never empty: one row alone has no
    company."""
    found: dict[bytes, list[int]] = {}
    for count in range(1, MOST_ROWS + 1):
        result = kernel(row.expand(count, -1).contiguous())
        if count == 1 or bool((result == result[0]).all()):
            found.setdefault(result[0].numpy().tobytes(), []).append(count)
    most: list[int] = max(found.values(), key=len)
    return tuple(most)


def in_counts(kernel: Kernel, rows: Tensor, counts: tuple[int, ...]) -> Tensor:
    """The kernel's result, asked only with numbers of rows in ``counts`` (ascending): what is
    missing is filled up with zeros, more than the largest is taken in parts."""
    total, most = len(rows), counts[-1]
    if total > most:
        starts = [*range(0, total, most), total]
        return torch.cat([in_counts(kernel, rows[a:b], counts) for a, b in pairwise(starts)])
    count = next(count for count in counts if count >= total)
    if count == total:
        return kernel(rows)
    return kernel(torch.nn.functional.pad(rows, (0, 0, 0, count - total)))[:total]
