"""Our product is exact, whatever the weights, the inputs and the numbers of both."""

import numpy as np
import pytest

from ssasr.engine import int8_product
from ssasr.engine.int8_product import LARGEST_WEIGHT, PRODUCT, pack

pytestmark = pytest.mark.skipif(
    not int8_product.is_available(), reason="this processor has no AVX2"
)
ROWS = (1, 2, 3, 4, 5, 7, 8, 13, 33)


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def gaussian(generator, outputs, inputs, spread=18.0):
    """As trained weights are: few are large."""
    drawn = np.rint(generator.normal(0.0, spread, (outputs, inputs)))
    return drawn.clip(-LARGEST_WEIGHT, LARGEST_WEIGHT).astype(np.int8)


def product(weights, rows, zero=0, scale=None):
    scale = np.ones(len(weights), np.float32) if scale is None else scale
    packed = pack(weights, scale, zero)
    assert packed is not None
    given = np.pad(rows, ((0, 0), (0, packed.shape[1] - rows.shape[1])))
    return PRODUCT.multiply(given, packed)[:, : len(weights)]


def expected(weights, rows, zero=0):
    return (rows.astype(np.int64) - zero) @ weights.T.astype(np.int64)


@pytest.mark.parametrize("zero", [0, 32, 128])
@pytest.mark.parametrize("shape", [(16, 8), (51, 130), (1, 9), (64, 1_024), (640, 640)])
def test_it_is_exact(generator, shape, zero):
    weights = gaussian(generator, *shape)
    for count in ROWS:
        rows = generator.integers(0, 256, (count, shape[1]), np.uint8)
        assert (product(weights, rows, zero) == expected(weights, rows, zero)).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_that_fill_sixteen_bits_are_exact(sign):
    """The largest inputs, and four weights that make 128; and one that is much too large."""
    weights = np.full((16, 256), sign * 32, np.int8)
    weights[3, :8] = sign * LARGEST_WEIGHT
    packed = pack(weights, np.ones(16, np.float32), 0)
    assert packed.columns.size
    rows = np.full((5, 256), 255, np.uint8)
    assert (product(weights, rows) == expected(weights, rows)).all()


def test_large_weights_of_both_signs_need_nothing_apart():
    weights = np.full((16, 64), LARGEST_WEIGHT, np.int8)
    weights[:, ::2] *= -1
    packed = pack(weights, np.ones(16, np.float32), 128)
    assert not packed.columns.size
    rows = np.tile(np.array([0, 255], np.uint8), 32)[None]
    assert (product(weights, rows, 128) == expected(weights, rows, 128)).all()


def test_few_of_trained_weights_are_multiplied_apart(generator):
    packed = pack(gaussian(generator, 1_024, 1_024), np.ones(1_024, np.float32), 0)
    assert len(packed.columns) < 0.01 * len(packed.panels) * 1_024


def test_weights_that_are_all_large_are_declined():
    weights = np.full((16, 64), LARGEST_WEIGHT, np.int8)
    assert pack(weights, np.ones(16, np.float32), 0) is None


def test_packing_leaves_the_weights_as_they_are(generator):
    weights = gaussian(generator, 32, 64, spread=30.0)
    before = weights.copy()
    pack(weights, np.ones(32, np.float32), 0)
    assert (weights == before).all()


def test_every_output_has_its_scale(generator):
    weights = gaussian(generator, 19, 40)
    scale = generator.uniform(0.001, 1.0, 19).astype(np.float32)
    rows = generator.integers(0, 256, (3, 40), np.uint8)
    whole = expected(weights, rows).astype(np.float32) * scale
    assert (product(weights, rows, scale=scale) == whole).all()
