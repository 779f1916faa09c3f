"""Products of few rows, whatever the shape, and whatever is beside them."""

import numpy as np
import pytest

from ssasr.engine.float_product import COLUMNS, ROWS, multiply

SHAPES = [
    (rows, inner, columns)
    for rows in (1, 2, 3, ROWS - 1, ROWS, ROWS + 1, 3 * ROWS)
    for inner, columns in ((1, 3), (128, COLUMNS - 1), (128, COLUMNS), (77, 128), (5, COLUMNS + 9))
]


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def floats(generator, *shape):
    return generator.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_product(generator, shape):
    rows, inner, columns = shape
    a, b = floats(generator, rows, inner), floats(generator, inner, columns)
    out = np.empty((rows, columns), np.float32)
    multiply(a, b, out)
    expected = a.astype(np.float64) @ b
    assert np.abs(out - expected).max() <= 1e-6 * (np.abs(a) @ np.abs(b)).max()


def test_a_part_of_a_matrix_is_read_and_written_and_nothing_beside_it(generator):
    a, b = floats(generator, 9, 40), floats(generator, 50, 200)
    out = np.full((11, 100), 7.0, np.float32)
    multiply(a[1:8, :32], b[4:36, 20:90], out[2:9, 10:80])
    assert out[2:9, 10:80] == pytest.approx(a[1:8, :32] @ b[4:36, 20:90], abs=1e-4)
    out[2:9, 10:80] = 7.0
    assert (out == 7.0).all()


def test_a_row_and_a_column_do_not_know_their_company(generator):
    a, b = floats(generator, 13, 64), floats(generator, 64, 3 * COLUMNS + 5)
    whole = np.empty((13, b.shape[1]), np.float32)
    multiply(a, b, whole)
    for row in range(13):
        alone = np.empty((1, COLUMNS), np.float32)
        multiply(a[row : row + 1], b[:, 5 : 5 + COLUMNS], alone)
        assert (alone[0] == whole[row, 5 : 5 + COLUMNS]).all()
