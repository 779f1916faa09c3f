"""Products with small weights on the CPU, float32 (rows, inputs) -> float32 (rows, outputs). The
private operators of torch are used here and in ``native_kernel`` alone.

A row's result must not depend on the rows beside it: a batch, a draft and a replay on another
machine of the same kind would change words. No library promises that, and what a kernel does
depends on the processor, on what the libraries are configured not to use of it, and on how many
rows it is given. So kernels are asked, on the machine that they run on:

*8 bits*: ``quantize`` and ``linear``. Weights have a scale for each output, inputs one for each
row, and the product is exact integer arithmetic, which has no order. Exact it is with 8-bit weights
only where products of 8 bits are added up in 32 (VNNI). AVX2 adds two of them in 16: 255 × 127 × 2
is too much for it, 255 × 63 × 2 is not, so weights have 7 bits there. Several libraries, and two
products of our own (``int8_product`` for AVX2, ``vnni_product``), compute the same numbers; the
fastest is taken, layer by layer, which changes no bit. A row has an offset of its own, or, where it
is known what a layer is given (``Range``), a zero that all rows share: the kernels take that off
themselves, and little is left to do around the product. What is left out takes a fifth of a layer's
time with seven rows.

*Half precision*: ``HalfProduct``. Products are float32, and the order of a sum may depend on the
number of rows (FBGEMM has another one for one and two with AVX2), so only numbers of rows are used
that were found to agree.
"""

import warnings
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from platform import machine
from time import thread_time
from typing import Self

import numpy as np
import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn import functional as F

from ssasr.engine import int8_product, native_kernel, vnni_product
from ssasr.engine.native_kernel import NativeKernel
from ssasr.engine.packed_product import PackedProduct, PackedWeights

MOST_ROWS = 64
"""Rows that one call of a half-precision kernel is given."""
FEW, MANY = 4, 128
"""Rows of a decoder's pass and of an encoder's, with which kernels are timed."""
FULL, REDUCED = 127, 63
"""Largest weight of 8 bits, and of 7."""
_BLOCK = 1 << 18
"""Numbers of a weight that are rounded at a time: a megabyte, which the allocator uses again. Of
large temporaries that a thread other than the first frees, glibc keeps several times what is in
use."""
_LARGEST_INPUT = 255
_ROUNDS = 3
"""Times that each kernel is timed, by turns."""
_LAYERS = 8
"""Layers with which a kernel is timed, in turn: a layer's weights have left the second cache before
it runs again. Of two kernels as fast with weights that are there, one took 1.5 times as long as the
other with weights that are not (FBGEMM and oneDNN, 7 rows)."""
_ENOUGH = 8_192
"""Outputs by which a kernel is judged."""
_LARGEST_HALF = 65_504.0

Kernel = Callable[[Tensor], Tensor]
"""(rows, inputs) -> (rows, outputs)."""


# -- 8 bits ----------------------------------------------------------------------------------------


@frozen
class Range:
    """What a layer is given: x = step (q - zero), with q from 0 to 255 and a step for each row."""

    zero: int
    least_step: float

    @property
    def reach(self) -> int:
        """The largest of q - zero."""
        return _LARGEST_INPUT - self.zero

    def steps(self, rows: Tensor) -> Tensor:
        """(rows, 1): the smallest that reach the row's largest values."""
        largest = rows.abs() if self.zero == _MIDDLE else rows
        steps = largest.amax(dim=1, keepdim=True).mul_(1.0 / self.reach)
        return steps.clamp_(min=self.least_step)


_MIDDLE = 128
ANYTHING = Range(_MIDDLE, 1e-30)
AFTER_RELU = Range(0, 1e-30)
AFTER_SILU = Range(32, 0.2785 / 32)
"""Nothing is below -0.2785."""


@frozen(eq=False)
class Int8Kernel:
    """(rows, inputs) uint8 -> float32 (rows, outputs)."""

    _inputs: int
    _multiply: Kernel
    _make_native: Callable[[], NativeKernel | None] = lambda: None

    def __call__(self, rows: Tensor) -> Tensor:
        return self._multiply(rows)

    def native(self) -> NativeKernel:
        """A new one, for compiled loops."""
        found = self._make_native()
        return found or NativeKernel.from_python(self._multiply, self._inputs, np.uint8)


@frozen(eq=False)
class Packed:
    """A weight as ``linear`` takes it. Without a range: with q a row's integers from 0 to 255, x =
    scale q + offset; so the product with the weights is scale (q . W) + offset (sum of W), and the
    second term costs less than centring q would."""

    inputs: int
    outputs: int
    range: Range | None
    narrows: bool
    sums: Tensor | None
    """(outputs,): of the weights of each; None with a range, where nobody asks for them."""
    bias: Tensor | None
    multiply: "Int8Kernel"
    """Of q, and with a range of q - zero."""


@frozen(eq=False)
class Rounded:
    """A weight as it is kept: ``integers`` (outputs, inputs) int8, and the ``scale`` of each output
    (outputs,)."""

    integers: Tensor
    scale: Tensor


def quantize(weight: Tensor, bias: Tensor | None = None, *, rows: int = MANY) -> Packed:
    """weight (outputs, inputs), float. ``rows``: about so many it will be given. Raises
    RuntimeError where ``int8_limit`` is 0."""
    return pack(rounded(weight), bias, rows=rows)


def rounded(weight: Tensor) -> Rounded:
    """weight (outputs, inputs), float, in as many bits as ``int8_limit`` allows. Raises
    RuntimeError where it is 0."""
    limit, rows = _limit(), max(1, _BLOCK // weight.shape[1])
    whole = Rounded(torch.empty(weight.shape, dtype=torch.int8), torch.empty(len(weight)))
    for begin in range(0, len(weight), rows):
        block = slice(begin, begin + rows)
        part = weight[block].detach().float()
        scale = part.abs().amax(dim=1).clamp_(min=1e-8) / limit
        whole.scale[block] = scale
        whole.integers[block] = (part / scale[:, None]).round_().to(torch.int8)
    return whole


def pack(
    weight: Rounded,
    bias: Tensor | None = None,
    *,
    rows: int = MANY,
    given: Range | None = None,
) -> Packed:
    """A copy of the weight, in the order that the fastest kernel for so many rows wants it in.
    ``given``: what the layer is given, if it is known; it is left out where no kernel takes a zero.
    Raises RuntimeError where ``int8_limit`` is 0."""
    integers, scale, limit = weight.integers, weight.scale, _limit()
    outputs, inputs = integers.shape
    if given is not None and not _kernel_takes_zero(limit, given.zero):
        given = None
    zero = given.zero if given else 0
    multiply = _fastest(limit, inputs, outputs, rows, zero)(integers, scale, zero)
    sums = integers.sum(dim=1).float() * scale if given is None else None
    own = None if bias is None else bias.detach().float()
    return Packed(inputs, outputs, given, inputs > outputs, sums, own, multiply)


def _limit() -> int:
    if limit := int8_limit():
        return limit
    raise RuntimeError("no kernel here multiplies 8-bit integers exactly, and fast")


def linear(x: Tensor, packed: Packed) -> Tensor:
    """x (..., inputs) -> (..., outputs), float32."""
    rows = x.reshape(-1, packed.inputs)
    if packed.range is None:
        result = _with_offsets(rows, packed)
    else:
        steps = packed.range.steps(rows)
        small = (rows / steps).round_().add_(packed.range.zero).to(torch.uint8)
        product = packed.multiply(small)
        if packed.bias is None:
            result = product.mul_(steps)
        else:
            result = torch.addcmul(packed.bias, product, steps)
    return result.view(*x.shape[:-1], -1)


def _with_offsets(rows: Tensor, packed: Packed) -> Tensor:
    """A row's offset is its least value. Only a layer that narrows, as those after GELU do, takes
    the offset that keeps the row's mean: a row of small values and a huge one, as there are after
    GELU, would be shifted as a whole. Elsewhere the two offsets are as good (measured on
    tiny.en)."""
    assert packed.sums is not None, "there is no range"
    # As few passes over the rows as will do: they cost as much as the product itself. This one
    # appends each row's scale and least value to its integers, four bytes each.
    appended = torch.ops.quantized.embedding_bag_byte_prepack.default(rows)
    integers = appended[:, : packed.inputs].contiguous()
    ends = appended[:, packed.inputs :].clone(memory_format=torch.contiguous_format)
    scale, least = ends.view(torch.float32).split(1, dim=1)
    offset = least
    if packed.narrows:
        mean = integers.sum(dim=1, keepdim=True, dtype=torch.int32) / packed.inputs
        offset = rows.mean(dim=1, keepdim=True).addcmul_(scale, mean, value=-1)
    product = packed.multiply(integers)
    if packed.bias is None:
        return product.mul_(scale).addcmul_(offset, packed.sums)
    return torch.addcmul(packed.bias, product, scale).addcmul_(offset, packed.sums)


class Int8Linear(nn.Module):
    """In place of a ``nn.Linear``; float32 (..., inputs) -> float32 (..., outputs)."""

    def __init__(self, packed: Packed) -> None:
        super().__init__()
        self.packed = packed

    @classmethod
    def of(cls, layer: nn.Linear, rows: int = MANY) -> Self:
        """The layer in 8 bits, for about so many rows."""
        return cls(quantize(layer.weight, layer.bias, rows=rows))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.packed)


@cache
def int8_limit() -> int:
    """The largest weight of an integer product here: ``FULL`` if a kernel is exact with it, else
    ``REDUCED``; 0 where integers are of no use. Asked of the libraries and not of the processor: a
    library may be configured not to use what the processor has."""
    limit = next((limit for limit in (FULL, REDUCED) if exact_makers(limit)), 0)
    return limit if limit and _is_worthwhile(limit) else 0


@cache
def _kernel_takes_zero(limit: int, zero: int) -> bool:
    """Whether a kernel takes that zero off itself, exactly and fast."""
    return bool(exact_makers(limit, zero)) and _is_worthwhile(limit, zero)


def _is_worthwhile(limit: int, zero: int = 0) -> bool:
    """Whether integers are faster than floats, as they are on x86. Some libraries have a kernel
    everywhere, and where nobody has written a fast one it is slower by far: this is not close."""
    if machine() in ("x86_64", "AMD64"):
        return True
    size = 512
    weight, rows = torch.ones(size, size), torch.ones(MANY, size)
    kernel = _fastest(limit, size, size, MANY, zero)(weight.to(torch.int8), torch.ones(size), zero)
    small = rows.to(torch.uint8)
    return _seconds(lambda: kernel(small)) < _seconds(lambda: F.linear(rows, weight))


@cache
def _fastest(limit: int, inputs: int, outputs: int, rows: int, zero: int = 0) -> "_Maker":
    """Of those that are exact; for large layers, by a part of it."""
    exact = exact_makers(limit, zero)
    if len(exact) == 1:
        return exact[0]
    outputs = min(outputs, _ENOUGH)
    x = torch.full((rows, inputs), 100, dtype=torch.uint8)
    weight, scale = torch.ones(outputs, inputs, dtype=torch.int8), torch.ones(outputs)
    jobs = {
        make: _in_turn([make(weight, scale, zero) for _ in range(_LAYERS)], x) for make in exact
    }
    # By turns: what else the machine does may double the time of one of them.
    rounds = [{make: _seconds(job) for make, job in jobs.items()} for _ in range(_ROUNDS)]
    return min(exact, key=lambda make: min(seconds[make] for seconds in rounds))


def _onednn(integers: Tensor, scale: Tensor, zero: int = 0) -> Int8Kernel:
    packed = torch.ops.onednn.qlinear_prepack(integers, None)
    zeros, inputs = torch.zeros(len(scale), dtype=torch.int32), integers.shape[1]

    def multiply(rows: Tensor) -> Tensor:
        product: Tensor = torch.ops.onednn.qlinear_pointwise.default(
            rows, 1.0, zero, packed, scale, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return product

    return Int8Kernel(inputs, multiply, lambda: native_kernel.onednn(packed, scale, zero, inputs))


def _fbgemm(integers: Tensor, scale: Tensor, zero: int = 0) -> Int8Kernel:
    """It takes floats, and rounds them to the integers that they are and adds the zero."""
    zeros = torch.zeros(len(scale), dtype=torch.int64)
    engine = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        with warnings.catch_warnings(category=UserWarning, action="ignore"):  # a deprecation
            weight = torch._make_per_channel_quantized_tensor(integers, scale.double(), zeros, 0)
        packed = torch.ops.quantized.linear_prepack(weight, None)
    finally:
        torch.backends.quantized.engine = engine
    multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default
    return Int8Kernel(
        integers.shape[1], lambda rows: multiply(rows.float().sub_(zero), 1.0, zero, packed)
    )


def _avx2(integers: Tensor, scale: Tensor, zero: int = 0) -> Int8Kernel:
    """``int8_product``, where the processor has what it takes; FBGEMM where too many of the weights
    are large."""
    if not int8_product.is_available() or int(integers.abs().max()) > int8_product.LARGEST_WEIGHT:
        raise RuntimeError("not for this processor, or not for weights of 8 bits")
    weights = int8_product.pack(integers.numpy(), scale.numpy(), zero)
    if weights is None:
        return _fbgemm(integers, scale, zero)
    return _of_packed(int8_product.PRODUCT, integers, weights)


def _of_packed(product: PackedProduct, integers: Tensor, weights: PackedWeights) -> Int8Kernel:
    """Of one of our own products, and the integers as it packs them."""
    outputs, inputs = integers.shape
    missing, is_whole = weights.shape[1] - inputs, weights.shape == integers.shape

    def multiply(rows: Tensor) -> Tensor:
        given = F.pad(rows, (0, missing)) if missing else rows.contiguous()
        return torch.from_numpy(product.multiply(given.numpy(), weights))[:, :outputs]

    return Int8Kernel(inputs, multiply, lambda: product.native(weights) if is_whole else None)


def _vnni(integers: Tensor, scale: Tensor, zero: int = 0) -> Int8Kernel:
    """``vnni_product``, where the processor has what it takes."""
    if not vnni_product.is_available():
        raise RuntimeError("not for this processor")
    weights = vnni_product.pack(integers.numpy(), scale.numpy(), zero)
    return _of_packed(vnni_product.PRODUCT, integers, weights)


_Maker = Callable[..., Int8Kernel]
"""Integers (outputs, inputs), the scale of each output and the zero of all rows, to the kernel."""
_MAKERS: tuple[_Maker, ...] = (_onednn, _fbgemm, _avx2, _vnni)


def exact_makers(limit: int, zero: int = 0) -> list[_Maker]:
    """Of kernels that are exact here with weights as large as that."""
    return [make for make in _MAKERS if _is_exact(make, limit, zero)]


@cache
def _is_exact(make: _Maker, limit: int, zero: int = 0) -> bool:
    """With the largest operands there are and with weights half as large, for few rows and many,
    and without remainders of whatever a kernel takes at once and with."""
    try:
        return all(
            _is_exact_for(make, limit, most, inputs, outputs, zero)
            for inputs, outputs in ((64, 32), (130, 51), (1_024, 256))
            for most in (limit, limit // 2)
        )
    except (RuntimeError, AttributeError):
        return False


def _is_exact_for(
    make: _Maker, limit: int, most: int, inputs: int, outputs: int, zero: int
) -> bool:
    weight = torch.full((outputs, inputs), most, dtype=torch.int8)
    weight[:, 0] = limit
    weight[1::2] *= -1
    x = torch.full((MANY, inputs), _LARGEST_INPUT, dtype=torch.uint8)
    x[1::2] = 0
    expected = (x[:, :1].float() - zero) * weight.sum(dim=1).float()
    kernel = make(weight, torch.ones(outputs), zero)
    return all(
        bool((kernel(x[:rows]) == expected[:rows]).all())
        for rows in (1, 2, 3, 4, 5, 6, 7, 8, 16, 33, MANY)
    )


def _in_turn(kernels: list[Int8Kernel], x: Tensor) -> Callable[[], object]:
    return lambda: [kernel(x) for kernel in kernels]


def _seconds(job: Callable[[], object]) -> float:
    """Of this thread, which another process on the same core hardly prolongs."""
    job()
    times = []
    for _ in range(3):
        began = thread_time()
        job()
        times.append(thread_time() - began)
    return min(times)


# -- half precision --------------------------------------------------------------------------------


class HalfProduct:
    """float32 (rows, inputs) -> float32 (rows, outputs), with weights in half precision."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight (outputs, inputs). Raises RuntimeError without ``has_half``."""
        small = weight.detach().float().clamp(-_LARGEST_HALF, _LARGEST_HALF)
        packed = torch.ops.quantized.linear_prepack_fp16(
            small, None if bias is None else bias.detach().float()
        )
        self._multiply = lambda rows: torch.ops.quantized.linear_dynamic_fp16.default(rows, packed)
        self._counts = _counts_of_shape(weight.shape[1], weight.shape[0], torch.get_num_threads())

    def __call__(self, rows: Tensor) -> Tensor:
        return in_counts(self._multiply, rows, self._counts)


def has_half() -> bool:
    """Whether torch has a product with weights in half precision here: FBGEMM, on x86."""
    return "fbgemm" in torch.backends.quantized.supported_engines


@cache
def _counts_of_shape(inputs: int, outputs: int, threads: int) -> tuple[int, ...]:
    """For HalfProduct. Asked of random weights: the order of a sum depends on the shape alone, and
    on how many threads share the work."""
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
    return kernel(F.pad(rows, (0, 0, 0, count - total)))[:total]
