"""A product with weights of 8 bits for processors with AVX-512 VNNI, and with AMX where there is
that as well, compiled by numba.

VNNI multiplies 64 pairs of 8 bits and adds four neighbours up in 32 (``vpdpbusd``), AMX sixteen
rows by sixteen outputs of 64 inputs (``tdpbusd``). With few rows the time is that of the weights,
which come from memory. A library reads them at half the memory's speed; here the next panel is
fetched while one is used. AMX takes over where rows are too many for one pass with VNNI.

Layout: 32 outputs are a panel, in two halves. Of a half, four inputs of 16 outputs lie together,
which is what either instruction takes.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import ir
from numpy.typing import NDArray

from ssasr.engine.compiled import compiled
from ssasr.engine.native_kernel import as_tuple
from ssasr.engine.packed_product import PackedProduct
from ssasr.engine.vector_code import F32, I8, I32, I64, LINE, VectorCode, has, tile_of

OUTPUTS, INPUTS = 32, 64
"""Of a panel, and what a row's inputs are filled up to a multiple of."""
ROWS = 12
"""Of the largest tile of VNNI: what the registers hold."""
TILE_ROWS = 16
"""Of a tile of AMX."""
_HALVES, _FOUR = 2, 4


class Weights(NamedTuple):
    """As the product takes them. Outputs and inputs are filled up with zeros to whole panels and
    steps."""

    panels: NDArray[np.int8]
    """(panels, halves, inputs / 4, 16, 4)."""
    start: NDArray[np.int32]
    """(outputs,): what takes the zero of the inputs off."""
    scale: NDArray[np.float32]
    """(outputs,)."""
    operands: NDArray[np.int64]
    """Outputs, inputs, the addresses of the others, and whether to use AMX."""

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs, filled up."""
        return len(self.scale), int(self.panels.shape[2]) * _FOUR


def is_available() -> bool:
    """Whether this processor has the instructions, and torch is not configured to do without
    (``ATEN_CPU_CAPABILITY``)."""
    return has("avx512vnni") and torch.backends.cpu.get_cpu_capability().startswith("AVX512")


@cache
def has_tiles() -> bool:
    """Whether it has AMX, and the system lets this process use it."""
    return has("amx-int8") and bool(torch._C._cpu._init_amx())


def pack(integers: NDArray[np.int8], scale: NDArray[np.float32], zero: int) -> Weights:
    """integers (outputs, inputs), scale (outputs,); ``zero`` is taken off all inputs."""
    outputs, inputs = integers.shape
    filling = -outputs % OUTPUTS
    whole = np.pad(integers, ((0, filling), (0, -inputs % INPUTS)))
    fours = whole.view(np.int32).reshape(-1, _HALVES, OUTPUTS // _HALVES, whole.shape[1] // _FOUR)
    panels = np.ascontiguousarray(fours.transpose(0, 1, 3, 2)).view(np.int8)
    arrays = (
        panels.reshape(*panels.shape[:3], OUTPUTS // _HALVES, _FOUR),
        (-zero * whole.sum(axis=1, dtype=np.int64)).astype(np.int32),
        np.pad(scale.astype(np.float32), (0, filling)),
    )
    addresses = (each.ctypes.data for each in arrays)
    return Weights(*arrays, np.array((*whole.shape, *addresses, has_tiles())))


_OPERANDS = 6


@compiled
def _multiply(rows: int, count: int, operands: NDArray[np.int64], found: int) -> None:
    """``rows`` and ``found``: addresses."""
    if operands[-1] != 0 and count > ROWS:
        _of_many_rows(rows, count, operands, found)
    else:
        _of_few_rows(rows, count, operands, found)


PRODUCT = PackedProduct(_multiply)


@compiled
def _of_few_rows(rows: int, count: int, operands: NDArray[np.int64], found: int) -> None:
    outputs, inputs, values, start, scale, _ = as_tuple(operands, _OPERANDS)
    blocks = (count + ROWS - 1) // ROWS
    for panel in range(0, outputs, OUTPUTS):
        here = (
            values + panel * inputs,
            inputs * OUTPUTS // _HALVES,
            start + 4 * panel,
            scale + 4 * panel,
        )
        for block in range(blocks):
            first, last = block * count // blocks, (block + 1) * count // blocks
            given = (rows + first * inputs, inputs, last - first)
            result = (found + 4 * (first * outputs + panel), 4 * outputs)
            _vectors(given, here, result)


@compiled
def _with_tiles(rows: int, count: int, operands: NDArray[np.int64], found: int) -> None:
    """Two tiles of rows at a time; the last one repeats some."""
    outputs, inputs, values, start, scale, _ = as_tuple(operands, _OPERANDS)
    high, sums = min(count, TILE_ROWS), np.empty((4, TILE_ROWS, 16), np.int32)
    shapes = _TILE_SHAPES.copy()
    shapes[_ROWS_OF_SUMS : _ROWS_OF_SUMS + _OF_WEIGHTS] = high
    _begin_tiles((shapes.ctypes.data,), (), ())
    for panel in range(0, outputs, OUTPUTS):
        here = (values + panel * inputs, inputs * OUTPUTS // _HALVES)
        ends = (start + 4 * panel, scale + 4 * panel)
        for begin in range(0, count, 2 * TILE_ROWS):
            first = min(begin, count - high)
            second = min(begin + TILE_ROWS, count - high)
            given = (rows + first * inputs, rows + second * inputs, inputs)
            to = found + 4 * panel
            result = (to + 4 * first * outputs, to + 4 * second * outputs, 4 * outputs)
            if first == second:
                _tiles1(given, here, (sums.ctypes.data,))
                _ends1((sums.ctypes.data, high), ends, result)
            else:
                _tiles2(given, here, (sums.ctypes.data,))
                _ends2((sums.ctypes.data, high), ends, result)
    _end_tiles((shapes.ctypes.data,), (), ())


_of_many_rows = _with_tiles if has("amx-int8") else _of_few_rows
"""Code with AMX is made only where there is such a thing."""


# -- VNNI ------------------------------------------------------------------------------------------

_INTEGERS, _FLOATS = ir.VectorType(I32, 16), ir.VectorType(F32, 16)
_VECTOR = 64
"""Bytes of either: a line, too."""


class _Vectors(VectorCode):
    """The product of some rows and a panel; the sums are in registers."""

    def __init__(self, builder: Any, most: int, given: Any, here: Any, result: Any) -> None:
        """The groups are those that ``_of_few_rows`` makes; ``most``: rows."""
        super().__init__(builder)
        (first, self._inputs, self._count), (self._values, self._half, *ends) = given, here
        self._start, self._scale = ends
        self._rows = [builder.add(first, builder.mul(self._inputs, I64(i))) for i in range(most)]
        self._results = [
            builder.add(result[0], builder.mul(result[1], I64(i))) for i in range(most)
        ]

    def write(self) -> None:
        for rows in range(1, len(self._rows) + 1):
            is_it = self.builder.icmp_signed("==", self._count, I64(rows))
            with self.builder.if_then(is_it):
                self._write(rows)

    def _write(self, rows: int) -> None:
        places = [(row, half) for row in range(rows) for half in range(_HALVES)]
        sums = [self.load(self._start, _INTEGERS, _VECTOR * half) for _, half in places]
        steps = self.builder.udiv(self._inputs, I64(_FOUR))
        sums = self.loop(I64(0), steps, sums, self._step)
        for (row, half), total in zip(places, sums, strict=True):
            scale = self.load(self._scale, _FLOATS, _VECTOR * half)
            scaled = self.builder.fmul(self.builder.sitofp(total, _FLOATS), scale)
            self.store(scaled, self._results[row], _VECTOR * half)

    def _step(self, number: Any, sums: list[Any]) -> list[Any]:
        """Four inputs."""
        weights = []
        for half in range(_HALVES):
            values = self.offset(self.offset(self._values, self._half, half), number, _VECTOR)
            self.fetch(self.offset(values, self._half, _HALVES), 0)
            weights.append(self.load(values, _INTEGERS))
        found = []
        for row in range(len(sums) // _HALVES):  # so that few inputs are in registers at a time
            inputs = self._rows[row]
            four = self.spread(self.load(self.offset(inputs, number, _FOUR), I32), 16)
            for half in range(_HALVES):
                given = [sums[_HALVES * row + half], four, weights[half]]
                found.append(self.call("llvm.x86.avx512.vpdpbusd.512", _INTEGERS, given))
        return found


_vectors = tile_of(_Vectors, ROWS)


# -- AMX -------------------------------------------------------------------------------------------

_NOTHING = ir.VoidType()
_TILE_BYTES = TILE_ROWS * _VECTOR
_TILES = 8
_OF_ROWS, _OF_WEIGHTS = 4, 6
"""The first registers with these; before them are the sums."""
_ROWS_OF_SUMS = 48


def _tile_shapes() -> NDArray[np.uint8]:
    """All tiles have 16 rows of 64 bytes. Intel's manual, LDTILECFG: a palette, then from byte 16
    on the bytes of a row, from byte 48 on the rows."""
    found = np.zeros(64, np.uint8)
    found[0] = 1
    found[16 : 16 + 2 * _TILES : 2] = _VECTOR
    found[_ROWS_OF_SUMS : _ROWS_OF_SUMS + _TILES] = TILE_ROWS
    return found


_TILE_SHAPES = _tile_shapes()


class _Tiles(VectorCode):
    """The integers of one tile of rows, or of two, and a panel: for each tile, both halves."""

    def __init__(self, builder: Any, tiles: int, given: Any, here: Any, result: Any) -> None:
        """The groups are those that ``_with_tiles`` makes."""
        super().__init__(builder)
        *rows, self._inputs = given
        self._rows, (self._values, self._half), (self._sums,) = rows[:tiles], here, result

    def write(self) -> None:
        registers = range(len(self._rows) * _HALVES)
        for register in registers:
            self._on("tilezero", register)
        self.loop(I64(0), self.builder.udiv(self._inputs, I64(INPUTS)), [], self._step)
        for register in registers:
            self._move("tilestored64", register, self._sums, register, I64(_VECTOR))

    def _step(self, number: Any, _: list[Any]) -> list[Any]:
        """64 inputs."""
        for half in range(_HALVES):
            values = self.offset(self.offset(self._values, self._half, half), number, _TILE_BYTES)
            self._move("tileloadd64", _OF_WEIGHTS + half, values, 0, I64(_VECTOR))
            for line in range(0, _TILE_BYTES, LINE):
                self.fetch(self.offset(values, self._half, _HALVES), line)
        for tile, row in enumerate(self._rows):
            at = self.offset(row, number, INPUTS)
            self._move("tileloadd64", _OF_ROWS + tile, at, 0, self._inputs)
            for half in range(_HALVES):
                self._on("tdpbusd", _HALVES * tile + half, _OF_ROWS + tile, _OF_WEIGHTS + half)
        return []

    def _on(self, name: str, *registers: int) -> None:
        self.call(f"llvm.x86.{name}", _NOTHING, [I8(each) for each in registers])

    def _move(self, name: str, register: int, base: Any, tile: int, stride: Any) -> None:
        at = self.builder.add(base, I64(_TILE_BYTES * tile))
        pointer = self.builder.inttoptr(at, I8.as_pointer())
        self.call(f"llvm.x86.{name}", _NOTHING, [I8(register), pointer, stride])


class _Ends(VectorCode):
    """What ``_Tiles`` found, as floats, to where it belongs."""

    def __init__(self, builder: Any, tiles: int, given: Any, here: Any, result: Any) -> None:
        """The groups are those that ``_with_tiles`` makes."""
        super().__init__(builder)
        (self._sums, self._rows), (start, scale) = given, here
        *results, self._apart = result
        self._results = results[:tiles]
        halves = [_VECTOR * half for half in range(_HALVES)]
        self._start = [self.load(start, _INTEGERS, half) for half in halves]
        self._scale = [self.load(scale, _FLOATS, half) for half in halves]

    def write(self) -> None:
        self.loop(I64(0), self._rows, [], self._row)

    def _row(self, number: Any, _: list[Any]) -> list[Any]:
        sums = self.offset(self._sums, number, _VECTOR)
        below = self.builder.mul(number, self._apart)
        for tile, result in enumerate(self._results):
            for half in range(_HALVES):
                found = self.load(sums, _INTEGERS, _TILE_BYTES * (_HALVES * tile + half))
                whole = self.builder.sitofp(self.builder.add(found, self._start[half]), _FLOATS)
                scaled = self.builder.fmul(whole, self._scale[half])
                self.store(scaled, self.builder.add(result, below), _VECTOR * half)
        return []


class _Begin(VectorCode):
    """Gives the tiles of this thread their shapes."""

    def __init__(self, builder: Any, _: int, given: Any, here: Any, result: Any) -> None:
        super().__init__(builder)
        (self._shapes,) = given

    def write(self) -> None:
        pointer = self.builder.inttoptr(self._shapes, I8.as_pointer())
        self.call("llvm.x86.ldtilecfg", _NOTHING, [pointer])


class _End(VectorCode):
    """Gives the tiles up. It takes their shapes, so that these are in memory until then."""

    def __init__(self, builder: Any, _: int, given: Any, here: Any, result: Any) -> None:
        super().__init__(builder)

    def write(self) -> None:
        self.call("llvm.x86.tilerelease", _NOTHING, [])


_tiles1, _tiles2 = (tile_of(_Tiles, tiles) for tiles in (1, 2))
_ends1, _ends2 = (tile_of(_Ends, tiles) for tiles in (1, 2))
_begin_tiles, _end_tiles = tile_of(_Begin, 0), tile_of(_End, 0)
