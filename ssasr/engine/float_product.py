"""Products of small float matrices for a processor, compiled by numba.

For attention: of a matrix of a few rows with one of some hundred. Libraries take as long for the
call as for the product, and promise no order of sums. Of a plain loop the compiler makes sums that
end across a vector, or that lie in memory. Here those of a tile stay in registers, and each is
added up in the order of the inner dimension, whatever the shape. What lies behind the second matrix
is fetched meanwhile: in attention it is the next one.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from ssasr.engine.compiled import compiled
from ssasr.engine.vector_code import F32, I64, LINE, VectorCode, has, tile_of

Floats = NDArray[np.float32]
_IS_WIDE = has("avx512f")
_VECTOR = 16 if _IS_WIDE else 8
"""Floats."""
_FLOATS = ir.VectorType(F32, _VECTOR)
ROWS, COLUMNS = 8 if _IS_WIDE else 4, 2 * _VECTOR
"""Of a tile: what the registers hold."""


@compiled
def multiply(a: Floats, b: Floats, out: Floats) -> None:
    """To ``out`` (rows, columns), a (rows, inner) times b (inner, columns). Rows are contiguous,
    and may lie apart."""
    rows, inner = a.shape
    columns = b.shape[1]
    if columns < COLUMNS:
        _multiply_few(a, b, out)
        return
    for first in range(0, rows, ROWS):
        left = min(rows - first, ROWS)
        given = (a.ctypes.data + first * a.strides[0], a.strides[0], left)
        for column in range(0, columns, COLUMNS):
            at = 4 * min(column, columns - COLUMNS)  # the last tile repeats some
            matrix = (b.ctypes.data + at, b.strides[0], inner)
            result = (out.ctypes.data + first * out.strides[0] + at, out.strides[0])
            if left == 1:
                _tile1(given, matrix, result)
            elif left == 2:
                _tile2(given, matrix, result)
            elif left <= 4:
                _tile4(given, matrix, result)
            else:
                _tile8(given, matrix, result)


@compiled
def _multiply_few(a: Floats, b: Floats, out: Floats) -> None:
    for i in range(len(a)):
        for j in range(b.shape[1]):
            out[i, j] = 0.0
        for k in range(len(b)):
            for j in range(b.shape[1]):
                out[i, j] += a[i, k] * b[k, j]


class _Tile(VectorCode):
    """The product of some rows and some columns. With fewer rows than the tile has, the last one is
    done again."""

    def __init__(self, builder: Any, rows: int, given: Any, matrix: Any, result: Any) -> None:
        """The groups are those that ``multiply`` makes."""
        super().__init__(builder)
        (first, stride, left), (self._matrix, self._stride, self._inner) = given, matrix
        numbers = [self.least(I64(row), builder.sub(left, I64(1))) for row in range(rows)]
        self._rows = [builder.add(first, builder.mul(stride, number)) for number in numbers]
        base, apart = result
        self._results = [builder.add(base, builder.mul(apart, number)) for number in numbers]
        self._size = builder.mul(self._inner, self._stride)
        self._places = [(row, half) for row in range(rows) for half in range(2)]

    def write(self) -> None:
        sums = [ir.Constant(_FLOATS, [0.0] * _VECTOR) for _ in self._places]
        sums = self.loop(I64(0), self._inner, sums, self._step)
        for (row, half), total in zip(self._places, sums, strict=True):
            self.store(total, self._results[row], 4 * _VECTOR * half)

    def _step(self, number: Any, sums: list[Any]) -> list[Any]:
        """A column of the rows times a row of the matrix."""
        line = self.builder.add(self._matrix, self.builder.mul(number, self._stride))
        halves = [self.load(line, _FLOATS, 4 * _VECTOR * half) for half in range(2)]
        for begin in range(0, 4 * COLUMNS, LINE):
            self.fetch(self.builder.add(line, self._size), begin)
        found = []
        for before, (row, half) in zip(sums, self._places, strict=True):
            one = self.load(self.offset(self._rows[row], number, 4), F32)
            arguments = [self.spread(one, _VECTOR), halves[half], before]
            found.append(self.call(f"llvm.fmuladd.v{_VECTOR}f32", _FLOATS, arguments))
        return found


_tile1, _tile2, _tile4, _tile8 = (tile_of(_Tile, rows) for rows in (1, 2, 4, 8))
