"""What the products of our own have in common: how Python calls one, and how compiled loops do."""

from functools import cache
from typing import Any, Protocol

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ssasr.engine.native_kernel import NativeKernel, array_at, kernel_function, new_floats


class PackedWeights(Protocol):
    """In the order that the product wants, filled up with zeros to what it takes at once."""

    @property
    def operands(self) -> NDArray[np.int64]:
        """For compiled loops: how many outputs there are, and whatever else the product needs, as
        the addresses of its arrays."""

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs, filled up."""


@frozen
class PackedProduct:
    """``write``: compiled, gets the address of rows, how many there are, the operands, which are an
    array, and the address of the result."""

    write: Any

    def multiply(self, rows: NDArray[np.uint8], weights: PackedWeights) -> NDArray[np.float32]:
        """rows (rows, inputs) to (rows, outputs), both filled up and C-contiguous."""
        found = np.empty((len(rows), weights.shape[0]), np.float32)
        self.write(rows.ctypes.data, len(rows), weights.operands, found.ctypes.data)
        return found

    def native(self, weights: PackedWeights) -> NativeKernel:
        """The same for compiled loops, where nothing is filled up."""
        function = _function(self.write, len(weights.operands))
        return NativeKernel.of(function.address, weights.operands, weights)


@cache
def _function(write: Any, size: int) -> Any:
    """``size``: of the operands."""

    @kernel_function
    def multiply(operands: int, rows: int, count: int) -> int:
        given = array_at(operands, (size,), np.int64)
        found = new_floats(count, given[0])
        if found.tensor != 0:
            write(rows, count, given, found.values.ctypes.data)
        return int(found.tensor)

    return multiply
