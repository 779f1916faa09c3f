"""Kernels are used only as far as a row's result does not depend on the rows beside it."""

import pytest
import torch

from ssasr.engine import kernels
from ssasr.engine.kernels import FEW, MANY, HalfProduct, has_half, in_counts, steady_counts

needs_int8 = pytest.mark.skipif(
    not kernels.int8_limit(), reason="8-bit integers are of no use to this processor"
)
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


def exact(integers, scale, _zero=0):
    return lambda x: (x.double() @ integers.T.double()).float() * scale


def saturating(integers, scale, _zero=0):
    """As AVX2: two products of 8 bits are too much, of 8 bits by 7 they are not."""
    return exact(integers.clamp(-64, 64), scale)


@pytest.fixture
def makers(monkeypatch):
    """What there is to multiply with."""

    def use(*makers):
        monkeypatch.setattr(kernels, "_MAKERS", makers)
        for cached in (kernels.int8_limit, kernels._fastest, kernels._kernel_takes_zero):
            cached.cache_clear()

    yield use
    monkeypatch.undo()
    use(*kernels._MAKERS)


@pytest.mark.parametrize(
    ("some", "limit"),
    [((exact,), 127), ((saturating,), 63), ((saturating, exact), 127), ((), 0)],
)
def test_weights_are_as_large_as_a_kernel_here_takes(makers, monkeypatch, some, limit):
    monkeypatch.setattr(kernels, "machine", lambda: "x86_64")
    makers(*some)
    assert kernels.int8_limit() == limit


@pytest.mark.parametrize(("seconds", "limit"), [((2.0, 1.0), 0), ((1.0, 2.0), 127)])
def test_elsewhere_integers_must_be_faster_than_floats(makers, monkeypatch, seconds, limit):
    monkeypatch.setattr(kernels, "machine", lambda: "aarch64")
    times = iter(seconds)
    monkeypatch.setattr(kernels, "_seconds", lambda job: next(times))
    makers(exact)
    assert kernels.int8_limit() == limit


def test_elsewhere_a_zero_must_not_make_a_kernel_slower_than_floats(makers, monkeypatch):
    monkeypatch.setattr(kernels, "machine", lambda: "aarch64")
    times = iter((2.0, 1.0))
    monkeypatch.setattr(kernels, "_seconds", lambda job: next(times))
    makers(exact)
    assert not kernels._kernel_takes_zero(127, kernels.ANYTHING.zero)


def test_without_a_kernel_nothing_is_quantised(makers):
    makers()
    with pytest.raises(RuntimeError, match="exactly"):
        kernels.quantize(torch.ones(4, 4))


RANGES = [None, kernels.ANYTHING, kernels.AFTER_RELU, kernels.AFTER_SILU]


def within(given, x):
    """x as such a layer is given it."""
    if given is kernels.AFTER_RELU:
        return torch.relu(x)
    return torch.nn.functional.silu(x) if given is kernels.AFTER_SILU else x


@needs_int8
@pytest.mark.parametrize("count", [FEW, MANY])
@pytest.mark.parametrize("given", RANGES)
@pytest.mark.parametrize("make", kernels._MAKERS)
def test_every_library_gives_the_same_numbers(makers, make, given, count):
    """So that which one is the fastest changes no word."""
    if not kernels._is_exact(make, kernels.int8_limit(), given.zero if given else 0):
        pytest.skip("not exact here")
    weight, bias = kernels.rounded(rows(384, 96)), torch.ones(384)
    x = within(given, rows(20, 96))
    usual = kernels.linear(x, kernels.pack(weight, bias, rows=count, given=given))
    limit = kernels.int8_limit()
    makers(make)
    assert kernels.int8_limit() == limit
    packed = kernels.pack(weight, bias, rows=count, given=given)
    assert torch.equal(kernels.linear(x, packed), usual)


@needs_int8
def test_without_a_kernel_that_takes_a_zero_rows_have_offsets(makers):
    """As may be on other processors: the layer is near enough either way."""

    def no_zero(integers, scale, zero=0):
        if zero:
            raise RuntimeError("unsupported")
        return exact(integers, scale)

    makers(no_zero)
    weight, x = rows(96, 301), rows(7)
    packed = kernels.pack(kernels.rounded(weight), given=kernels.ANYTHING)
    assert packed.range is None
    assert (kernels.linear(x, packed) - x @ weight.T).norm() < 0.02 * (x @ weight.T).norm()


@needs_int8
@pytest.mark.parametrize("shape", [(1_536, 384), (384, 1_536), (51, 130)])
@pytest.mark.parametrize("count", [FEW, MANY])
@pytest.mark.parametrize("given", [None, kernels.ANYTHING, kernels.AFTER_SILU])
def test_eight_bits_give_a_row_the_same_bits_in_any_company(shape, given, count):
    outputs, inputs = shape
    weight, x = rows(outputs, inputs), rows(150, inputs)
    x[3] *= 1_000
    x[5] = 0.0
    x = within(given, x)
    packed = kernels.pack(kernels.rounded(weight), rows=count, given=given)
    together = kernels.linear(x, packed)
    assert (together - x @ weight.T).norm() < 0.02 * (x @ weight.T).norm()
    for some in (1, 2, 3, 5, 8, 31, 64, 149):
        assert torch.equal(kernels.linear(x[:some], packed), together[:some])
        assert torch.equal(kernels.linear(x[some : some + 1], packed), together[some : some + 1])
