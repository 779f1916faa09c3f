"""A product with weights of 7 bits for processors that have AVX2 and no VNNI, compiled by numba.

AVX2 multiplies 32 pairs of 8 bits at once and adds neighbours up in 16 bits (``vpmaddubsw``); a
multiplication by one brings those sums into 32 bits (``vpmaddwd``). Libraries do both for every 32
products, since more than two may not fit into 16 bits. Whether they do depends on the weights
alone: inputs are from 0 to 255, so the sum of four products fits if the positive ones of the four
weights add up to 128 at most, and so do the negative ones. Weights are 63 at most and most of them
small, so all but a few in ten thousand do. Here four products are added up in 16 bits, which saves
every second multiplication by one, and what is too much of a weight is multiplied apart. The sum is
exact, and so the same as any library's.

Layout: 16 outputs are a panel. Of a panel, 8 inputs lie together: for two times 8 outputs, their
first four inputs and then their last four. The next panel is fetched while one is used: few rows
use it for too short a time to wait for memory afterwards.
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numpy.typing import NDArray

from ssasr.engine.compiled import compiled
from ssasr.engine.native_kernel import array_at, as_tuple
from ssasr.engine.packed_product import PackedProduct
from ssasr.engine.vector_code import F32, I8, I16, I32, I64, LINE, VectorCode, tile_of

LARGEST_WEIGHT = 63
OUTPUTS, INPUTS, ROWS = 16, 8, 4
"""Of a panel, of a step, and of a tile: what the registers hold."""
_SUM = 128
"""Of the positive ones of four weights, or of the negative ones, at most: 255 × 128 < 2^15."""
_MOST_COLUMNS = 1 / 32
"""Of the inputs, multiplied apart, with which this is still worth while."""


class Weights(NamedTuple):
    """As the product takes them. Outputs and inputs are filled up with zeros to whole panels and
    steps."""

    panels: NDArray[np.int8]
    """(panels, steps, 2, 2, 8, 4)."""
    start: NDArray[np.int32]
    """(outputs,): what takes the zero of the inputs off."""
    scale: NDArray[np.float32]
    """(outputs,)."""
    bounds: NDArray[np.int64]
    """(panels + 1,): where each panel's columns begin, and the last one's end."""
    columns: NDArray[np.int64]
    """Inputs that some output of the panel multiplies apart."""
    apart: NDArray[np.int16]
    """(columns, 16, 2): by what, and 0."""
    operands: NDArray[np.int64]
    """Outputs, panels, steps, and the addresses of the others."""

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs, filled up."""
        return len(self.scale), int(self.panels.shape[1]) * INPUTS


def is_available() -> bool:
    """Whether this processor has the instructions."""
    return bool(get_host_cpu_features().get("avx2"))


def pack(integers: NDArray[np.int8], scale: NDArray[np.float32], zero: int) -> Weights | None:
    """integers (outputs, inputs), scale (outputs,); ``zero`` is taken off all inputs. None if too
    many of the integers are large."""
    outputs, inputs = integers.shape
    whole = np.pad(integers, ((0, -outputs % OUTPUTS), (0, -inputs % INPUTS)))
    outputs, inputs = whole.shape
    small, is_apart = whole.copy(), np.zeros((outputs // OUTPUTS, inputs), np.bool_)
    _take_apart(small, is_apart)
    panel, columns = np.nonzero(is_apart)
    if len(columns) > _MOST_COLUMNS * is_apart.size:
        return None
    apart = np.zeros((len(columns), OUTPUTS, 2), np.int16)
    rest = (whole - small).reshape(-1, OUTPUTS, inputs)
    apart[:, :, 0] = rest[panel, :, columns]
    filling = outputs - len(scale)
    fours = small.view(np.int32).reshape(-1, 2, 8, inputs // INPUTS, 2).transpose(0, 3, 1, 4, 2)
    arrays = (
        np.ascontiguousarray(fours).view(np.int8).reshape(*fours.shape, 4),
        (-zero * whole.sum(axis=1, dtype=np.int64)).astype(np.int32),
        np.pad(scale.astype(np.float32), (0, filling)),
        np.searchsorted(panel, np.arange(len(is_apart) + 1)),
        np.ascontiguousarray(columns),
        apart,
    )
    addresses = (each.ctypes.data for each in arrays)
    return Weights(*arrays, np.array((outputs, *fours.shape[:2], *addresses)))


@compiled
def _take_apart(weights: NDArray[np.int8], is_apart: NDArray[np.bool_]) -> None:
    """Make weights (outputs, inputs) smaller by what is too much of them, and note from which
    inputs of each panel that was: (panels, inputs)."""
    four = np.empty(4, np.int32)
    for output in range(len(weights)):
        for first in range(0, weights.shape[1], INPUTS):
            # The sums in 16 bits are of inputs 0, 1, 4 and 5 of a step, and of 2, 3, 6 and 7.
            for begin in (first, first + 2):
                above = below = 0
                for k in range(4):
                    four[k] = weights[output, begin + k + k // 2 * 2]
                    above, below = above + max(four[k], 0), below - min(four[k], 0)
                sign = 1 if above > below else -1
                excess = max(above, below) - _SUM
                while excess > 0:
                    largest = 0
                    for k in range(1, 4):
                        if four[k] * sign > four[largest] * sign:
                            largest = k
                    taken = min(excess, four[largest] * sign)
                    four[largest], excess = four[largest] - taken * sign, excess - taken
                    place = begin + largest + largest // 2 * 2
                    weights[output, place] = four[largest]
                    is_apart[output // OUTPUTS, place] = True


_OPERANDS = 9


@compiled
def _multiply(rows: int, count: int, operands: NDArray[np.int64], found: int) -> None:
    """``rows`` and ``found``: addresses."""
    outputs, panels, steps, values, start, scale, bounds_at, columns, apart = as_tuple(
        operands, _OPERANDS
    )
    inputs, bounds = steps * INPUTS, array_at(bounds_at, (panels + 1,), np.int64)
    blocks = (count + ROWS - 1) // ROWS
    for panel in range(panels):
        here = (
            values + panel * OUTPUTS * inputs,
            steps,
            start + panel * OUTPUTS * 4,
            scale + panel * OUTPUTS * 4,
            columns,
            apart,
            bounds[panel],
            bounds[panel + 1],
        )
        first = 0
        for block in range(blocks):
            last = (block + 1) * count // blocks
            given = (rows + first * inputs, inputs)
            result = (found + (first * outputs + panel * OUTPUTS) * 4, outputs * 4)
            if last - first == 4:
                _tile4(given, here, result)
            elif last - first == 3:
                _tile3(given, here, result)
            elif last - first == 2:
                _tile2(given, here, result)
            else:
                _tile1(given, here, result)
            first = last


PRODUCT = PackedProduct(_multiply)


# -- the tile --------------------------------------------------------------------------------------

_BYTES, _WORDS = ir.VectorType(I8, 32), ir.VectorType(I16, 16)
_INTEGERS, _FLOATS = ir.VectorType(I32, 8), ir.VectorType(F32, 8)
_VECTOR = 32
"""Bytes of any of them."""
_HALVES = OUTPUTS * 4 // _VECTOR
"""Vectors of a panel's outputs."""


class _Tile(VectorCode):
    """The product of some rows and a panel; the sums are in registers."""

    def __init__(self, builder: Any, rows: int, given: Any, here: Any, result: Any) -> None:
        """The groups are those that ``multiply`` makes."""
        super().__init__(builder)
        self._values, self._steps, self._start, self._scale, *apart = here
        self._columns, self._apart, self._begin, self._end = apart
        (inputs, stride), (outputs, result_stride) = given, result
        self._rows = [self.offset(inputs, stride, row) for row in range(rows)]
        self._results = [self.offset(outputs, result_stride, row) for row in range(rows)]
        self._places = [(row, half) for row in range(rows) for half in range(_HALVES)]

    def write(self) -> None:
        sums = [self.load(self._start, _INTEGERS, _VECTOR * half) for _, half in self._places]
        sums = self.loop(I64(0), self._steps, sums, self._step)
        sums = self.loop(self._begin, self._end, sums, self._column)
        for (row, half), total in zip(self._places, sums, strict=True):
            scale = self.load(self._scale, _FLOATS, _VECTOR * half)
            scaled = self.builder.fmul(self.builder.sitofp(total, _FLOATS), scale)
            self.store(scaled, self._results[row], _VECTOR * half)

    def _step(self, number: Any, sums: list[Any]) -> list[Any]:
        """Eight inputs."""
        size, ones = OUTPUTS * INPUTS, ir.Constant(_WORDS, [1] * 16)
        values = self.offset(self._values, number, size)
        for line in range(0, size, LINE):
            self.fetch(self.offset(values, self._steps, size), line)
        weights = [self.load(values, _BYTES, _VECTOR * each) for each in range(2 * _HALVES)]
        found = []
        for before, (row, half) in zip(sums, self._places, strict=True):
            inputs = self.offset(self._rows[row], number, INPUTS)
            first, last = (self._spread(self.load(inputs, I32, 4 * i), _BYTES) for i in range(2))
            pairs = self._in_16(first, weights[2 * half])
            quads = self.builder.add(pairs, self._in_16(last, weights[2 * half + 1]))
            found.append(self.builder.add(before, self._in_32(quads, ones)))
        return found

    def _column(self, number: Any, sums: list[Any]) -> list[Any]:
        """An input by what was too much of its weights."""
        which = self.load(self.offset(self._columns, number, 8), I64)
        apart = self.offset(self._apart, number, OUTPUTS * 4)
        found = []
        for before, (row, half) in zip(sums, self._places, strict=True):
            single = self.load(self.builder.add(self._rows[row], which), I8)
            inputs = self._spread(self.builder.zext(single, I32), _WORDS)
            product = self._in_32(inputs, self.load(apart, _WORDS, _VECTOR * half))
            found.append(self.builder.add(before, product))
        return found

    def _spread(self, number: Any, kind: Any) -> Any:
        return self.builder.bitcast(self.spread(number, 8), kind)

    def _in_16(self, inputs: Any, weights: Any) -> Any:
        return self.call("llvm.x86.avx2.pmadd.ub.sw", _WORDS, [inputs, weights])

    def _in_32(self, words: Any, others: Any) -> Any:
        return self.call("llvm.x86.avx2.pmadd.wd", _INTEGERS, [words, others])


_tile1, _tile2, _tile3, _tile4 = (tile_of(_Tile, rows) for rows in range(1, ROWS + 1))
