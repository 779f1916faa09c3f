"""Kernels are used only as far as a row's result does not depend on the rows beside it."""

import pytest
import torch

from ssasr.engine.kernels import HalfProduct, has_half, in_counts, steady_counts

needs_half = pytest.mark.skipif(not has_half(), reason="torch has no FBGEMM here")


def by_count(x):
    """As FBGEMM's with AVX2: another order of summation for one and two rows."""
    return x[:, :1] + (len(x) < 3)


def by_place(x):
    """Every fourth row is summed otherwise."""
    result = x[:, :1].clone()
    result[3::4] += 1
    return result


def rows(count, inputs=301):
    return torch.randn(count, inputs, generator=torch.Generator().manual_seed(1))


def test_the_numbers_of_rows_that_agree():
    assert steady_counts(by_count, rows(1)) == tuple(range(3, 65))
    assert steady_counts(by_place, rows(1)) == (1, 2, 3)
    assert steady_counts(torch.nn.functional.relu, rows(1)) == tuple(range(1, 65))


def test_a_kernel_that_never_agrees_is_given_rows_one_by_one():
    calls = iter(range(1_000))
    assert steady_counts(lambda x: x + next(calls), rows(1)) == (1,)


@pytest.mark.parametrize("counts", [(1,), (1, 2, 3), (3, 5, 8), (4,)])
@pytest.mark.parametrize("total", [1, 2, 3, 7, 8, 9, 20])
def test_rows_are_filled_up_and_parted(counts, total):
    asked = []

    def kernel(x):
        asked.append(len(x))
        return 2 * x

    x = rows(total)
    assert torch.equal(in_counts(kernel, x, counts), 2 * x)
    assert set(asked) <= set(counts)
    assert sum(asked) < total + counts[-1]


@needs_half
@pytest.mark.parametrize("shape", [(40, 96), (384, 384), (51, 130)])
def test_half_precision_gives_a_row_the_same_bits_in_any_company(shape):
    outputs, inputs = shape
    product = HalfProduct(rows(outputs, inputs), None)
    x = rows(150, inputs)
    together = product(x)
    for count in (*range(1, 20), 31, 32, 37, 38, 63, 64, 65, 66, 127, 128, 129, 130):
        assert torch.equal(product(x[:count]), together[:count])
        assert torch.equal(product(x[count : count + 1]), together[count : count + 1])
