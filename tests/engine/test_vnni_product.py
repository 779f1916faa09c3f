"""Our product with VNNI and AMX is exact, whatever the weights, the inputs and the numbers of both.

Where the processor lacks one of them, its part is skipped."""

import numpy as np
import pytest

from ssasr.engine import vnni_product
from ssasr.engine.vnni_product import PRODUCT, has_tiles, pack

pytestmark = pytest.mark.skipif(
    not vnni_product.is_available(), reason="this processor has no VNNI"
)
ROWS = (1, 2, 3, 5, 7, 8, 12, 13, 15, 16, 17, 32, 33, 50, 112)


@pytest.fixture(params=["VNNI", "AMX"], autouse=True)
def instructions(request, monkeypatch):
    if request.param == "AMX" and not has_tiles():
        pytest.skip("this processor has no AMX")
    monkeypatch.setattr(vnni_product, "has_tiles", lambda: request.param == "AMX")


@pytest.mark.parametrize("zero", [0, 32, 128])
@pytest.mark.parametrize("shape", [(16, 8), (51, 130), (1, 9), (96, 1_024), (640, 640)])
def test_it_is_exact(shape, zero):
    generator = np.random.default_rng(0)
    weights = generator.integers(-127, 128, shape, np.int8)
    packed = pack(weights, np.ones(len(weights), np.float32), zero)
    for count in ROWS:
        rows = generator.integers(0, 256, (count, shape[1]), np.uint8)
        given = np.pad(rows, ((0, 0), (0, packed.shape[1] - shape[1])))
        expected = (rows.astype(np.int64) - zero) @ weights.T.astype(np.int64)
        assert (PRODUCT.multiply(given, packed)[:, : len(weights)] == expected).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_operands_fit(sign):
    weights = np.full((32, 4_096), sign * 127, np.int8)
    rows = np.full((20, 4_096), 255, np.uint8)
    found = PRODUCT.multiply(rows, pack(weights, np.ones(32, np.float32), 0))
    assert (found == sign * 127 * 255 * 4_096).all()


def test_each_output_has_its_scale():
    weights, scale = np.ones((64, 64), np.int8), np.arange(64, dtype=np.float32) / 8
    rows = np.ones((20, 64), np.uint8)
    assert (PRODUCT.multiply(rows, pack(weights, scale, 0)) == 64 * scale).all()


def test_it_is_not_used_where_torch_is_to_do_without(monkeypatch):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    assert not vnni_product.is_available()
