"""Instructions on vectors, as numba's compiler takes them: for loops that must keep their sums in
registers, which it does not see by itself."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

LINE = 64
"""Bytes that are fetched at once."""
I8, I16, I32, I64, F32 = *map(ir.IntType, (8, 16, 32, 64)), ir.FloatType()


def has(feature: str) -> bool:
    """Of the processor that code is made for, as LLVM calls it. Of one that ``NUMBA_CPU_NAME``
    names only what ``NUMBA_CPU_FEATURES`` adds is known."""
    if config.CPU_NAME is None:  # type: ignore[attr-defined]
        return bool(get_host_cpu_features().get(feature))
    return f"+{feature}" in (config.CPU_FEATURES or "").split(",")  # type: ignore[attr-defined]


class VectorCode:
    """Writes instructions; addresses are integers, in bytes."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def offset(self, base: Any, count: Any, size: int) -> Any:
        return self.builder.add(base, self.builder.mul(count, I64(size)))

    def load(self, address: Any, kind: Any, offset: int = 0) -> Any:
        address = self.builder.add(address, I64(offset))
        found = self.builder.load(self.builder.inttoptr(address, kind.as_pointer()))
        found.align = 1
        return found

    def store(self, value: Any, address: Any, offset: int) -> None:
        address = self.builder.add(address, I64(offset))
        pointer = self.builder.inttoptr(address, value.type.as_pointer())
        self.builder.store(value, pointer).align = 1

    def fetch(self, address: Any, offset: int) -> None:
        """Into the cache, if there is such an address."""
        pointer = self.builder.inttoptr(self.builder.add(address, I64(offset)), I8.as_pointer())
        arguments = [pointer, I32(0), I32(3), I32(1)]  # to read, near, data
        self.call("llvm.prefetch.p0", ir.VoidType(), arguments)

    def spread(self, number: Any, count: int) -> Any:
        """The number in all places of a vector."""
        kind = ir.VectorType(number.type, count)
        nothing, zeros = ir.Constant(kind, ir.Undefined), [0] * count
        one = self.builder.insert_element(nothing, number, I32(0))
        return self.builder.shuffle_vector(
            one, nothing, ir.Constant(ir.VectorType(I32, count), zeros)
        )

    def least(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    def call(self, name: str, kind: Any, arguments: list[Any]) -> Any:
        signature = ir.FunctionType(kind, [each.type for each in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, signature, name)
        return self.builder.call(function, arguments)

    def loop(
        self, begin: Any, end: Any, sums: list[Any], body: Callable[[Any, list[Any]], list[Any]]
    ) -> list[Any]:
        """``body`` gets the number and the sums so far, and gives those after it."""
        builder = self.builder
        before = builder.block
        head, inside, after = map(builder.append_basic_block, ("head", "inside", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        number, kept = builder.phi(I64), [builder.phi(each.type) for each in sums]
        builder.cbranch(builder.icmp_signed("<", number, end), inside, after)
        builder.position_at_end(inside)
        found = body(number, kept)
        following = builder.add(number, I64(1))
        builder.branch(head)
        values = zip([number, *kept], [begin, *sums], [following, *found], strict=True)
        for phi, first, then in values:
            phi.add_incoming(first, before)
            phi.add_incoming(then, inside)
        builder.position_at_end(after)
        return kept


def tile_of(code: Callable[..., Any], rows: int) -> Any:
    """For compiled loops: the function that ``code(builder, rows, *groups).write()`` writes, of
    three tuples."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        code(builder, rows, *(cgutils.unpack_tuple(builder, each) for each in arguments)).write()
        return context.get_dummy_value()

    def tile(_: Any, given: Any, matrix: Any, result: Any) -> Any:
        return types.void(given, matrix, result), generate

    return intrinsic(tile)
