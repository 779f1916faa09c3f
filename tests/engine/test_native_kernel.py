"""Kernels as compiled loops call them: the same numbers, nothing kept, a failure is an error."""

import sys

import numpy as np
import pytest
import torch

from ssasr.engine import kernels, native_kernel
from ssasr.engine.compiled import compiled
from ssasr.engine.kernels import exact_makers, int8_limit, rounded
from ssasr.engine.native_kernel import NativeKernel


@compiled
def product(call, rows, outputs):
    result = native_kernel.multiply(call, rows, outputs)
    values = result.values.copy()
    native_kernel.free(result)
    return values


@pytest.mark.parametrize("make", kernels._MAKERS)
@pytest.mark.parametrize("shape", [(128, 64), (51, 130)])
def test_every_kernel_says_the_same(make, shape):
    if make not in exact_makers(int8_limit(), 128):
        pytest.skip("not exact on this processor")
    outputs, inputs = shape
    weight = rounded(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    kernel = make(weight.integers, weight.scale, 128)
    native = kernel.native()
    for count in (1, 7, 20):
        rows = torch.randint(0, 256, (count, inputs), dtype=torch.uint8)
        found = product(native.call, rows.numpy(), outputs)
        assert (found == kernel(rows).numpy()).all()


def test_a_result_is_gone_when_it_is_freed():
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    kernel = NativeKernel.from_python(lambda _: torch.from_numpy(numbers), 4, np.float32)
    before = sys.getrefcount(numbers)
    found = [product(kernel.call, np.zeros((2, 4), np.float32), 3) for _ in range(5)]
    assert all((each == numbers).all() for each in found)
    assert sys.getrefcount(numbers) == before


def test_a_kernel_that_fails_is_an_error(capsys):
    def fail(_):
        raise ValueError("no such product")

    kernel = NativeKernel.from_python(fail, 4, np.uint8)
    with pytest.raises(RuntimeError, match="a product failed"):
        product(kernel.call, np.zeros((2, 4), np.uint8), 3)
    assert "no such product" in capsys.readouterr().out
