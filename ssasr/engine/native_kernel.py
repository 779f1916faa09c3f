"""Products that compiled loops call by themselves, without the interpreter.

A layer between its products takes microseconds, and every call that Python makes waits for the
interpreter's lock when it returns: two steps side by side and an event loop took a third longer for
it. So a kernel is also a C function of (operands, rows, their number), addresses the first two,
whose answer is a new tensor. For oneDNN that is torch's own: the C interface which it keeps stable
for what AOTInductor compiles (``torch/csrc/inductor/aoti_torch/c/shim.h``). Whatever has no such
function is called back, in Python.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple
from weakref import finalize

import numpy as np
import torch
from attrs import define, field
from llvmlite import ir
from numba import types
from numba.core.decorators import cfunc
from numba.extending import intrinsic
from numba.np.numpy_support import carray
from numba.np.unsafe.ndarray import to_fixed_tuple
from numpy.typing import NDArray
from torch import Tensor

from ssasr.engine.compiled import compiled
from ssasr.engine.vector_code import I64
from ssasr.telemetry.logs import get_logger

_LOG = get_logger(__name__)

Floats = NDArray[np.float32]
as_tuple: Any = to_fixed_tuple
"""Of an array and its length, in compiled code. Typed as what numba makes of it, its arguments are
wrong."""
_SIGNATURE = types.int64(types.int64, types.int64, types.int64)
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


class Call(NamedTuple):
    """Addresses of a kernel's function and of what it is given."""

    function: int
    operands: int


class Result(NamedTuple):
    """Until it is freed."""

    values: Floats
    """(rows, outputs)."""
    tensor: int


@define(eq=False)
class NativeKernel:
    """A kernel as compiled loops call it, while this object lives."""

    call: Call
    _kept: tuple[object, ...] = field(repr=False)
    """What the addresses lead to."""

    @classmethod
    def of(
        cls, function: int, operands: Sequence[int] | NDArray[np.int64], *kept: object
    ) -> "NativeKernel":
        """``function``: an address; ``kept``: what it and the operands need."""
        array = np.array(operands, np.int64)
        return cls(Call(function, array.ctypes.data), (array, kept))

    @classmethod
    def from_python(
        cls, kernel: Callable[[Tensor], Tensor], inputs: int, dtype: type[np.uint8 | np.float32]
    ) -> "NativeKernel":
        """Of a kernel that takes (rows, inputs) of that type."""
        kind = ctypes.c_uint8 if dtype is np.uint8 else ctypes.c_float

        def multiply(_: int, rows: int, count: int) -> int:
            given = np.ctypeslib.as_array((kind * (count * inputs)).from_address(rows))
            try:
                result = kernel(torch.from_numpy(given).view(count, inputs))
                return _new_handle(result.contiguous())
            except Exception as error:  # no exception gets through compiled code
                _LOG.error("a kernel failed", reason=repr(error))
                return 0

        function = _CALLBACK(multiply)
        address = ctypes.cast(function, ctypes.c_void_p).value
        assert address is not None, "a function has an address"
        return cls.of(address, (), function)


def kernel_function(multiply: Callable[[int, int, int], int]) -> Any:
    """A decorator: the function of a kernel, compiled, with its ``address``; lasts as long as what
    it returns. ``multiply``: of the addresses of operands and of rows, and how many rows there are,
    to the address of a tensor, or 0 if it fails."""
    return cfunc(_SIGNATURE)(multiply)


@compiled
def multiply(call: Call, rows: NDArray[Any], outputs: int) -> Result:
    """rows (rows, inputs), C-contiguous. Raises RuntimeError if the kernel fails."""
    tensor: int = _call(call.function, call.operands, rows.ctypes.data, len(rows))
    if tensor == 0:
        raise RuntimeError("a product failed")
    return Result(array_at(_data(tensor), (len(rows), outputs), np.float32), tensor)


@compiled
def free(result: Result) -> None:
    """Its values are gone."""
    _delete(result.tensor)


@compiled
def array_at(address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """What lies there; C-contiguous."""
    return carray(_pointer(address), shape, dtype)


def _to_pointer(_: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


def _to_call(_: Any, function: Any, operands: Any, rows: Any, count: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(I64, [I64] * 3)
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])

    return _SIGNATURE.return_type(types.int64, *_SIGNATURE.args), generate


_pointer: Any = intrinsic(_to_pointer)
_call: Any = intrinsic(_to_call)


# -- torch's C interface ---------------------------------------------------------------------------


_LIBRARY = ctypes.CDLL(torch._C.__file__)
"""Names are looked for in what it needs, too."""


def _function(name: str, *arguments: Any) -> Any:
    """Answers 0 if all went well."""
    found = getattr(_LIBRARY, f"aoti_torch_{name}")
    found.restype, found.argtypes = ctypes.c_int32, arguments
    return found


_ADDRESS, _INT, _LONG = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
_delete = _function("delete_tensor_object", _ADDRESS)
_get_data = _function("get_data_ptr", _ADDRESS, _ADDRESS)
_from_blob = _function(
    "create_tensor_from_blob",
    _ADDRESS, _LONG, _ADDRESS, _ADDRESS, _LONG, _INT, _INT, _INT, _ADDRESS,
)  # fmt: skip
_empty = _function(
    "empty_strided", _LONG, _ADDRESS, _ADDRESS, _INT, _INT, _INT, _ADDRESS
)  # fmt: skip
_UINT8, _FLOAT32 = (
    getattr(_LIBRARY, f"aoti_torch_dtype_{each}")() for each in ("uint8", "float32")
)
_CPU = _LIBRARY.aoti_torch_device_type_cpu()


def _new_handle(tensor: Tensor) -> int:
    """Of a reference that is to be deleted."""
    (capsule,) = torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors([tensor])
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    found: int = pointer(capsule, None)
    return found


@compiled
def _data(tensor: int) -> int:
    found = np.zeros(1, np.int64)
    if tensor != 0:
        _get_data(tensor, found.ctypes.data)
    return int(found[0])


@compiled
def new_floats(rows: int, columns: int) -> Result:
    """Not filled. Its tensor is 0 where there is no memory for it."""
    given = np.array((rows, columns, columns, 1, 0))  # read below, so not freed before the call
    sizes = given.ctypes.data
    _empty(2, sizes, sizes + 16, _FLOAT32, _CPU, -1, sizes + 32)
    return Result(array_at(_data(given[4]), (rows, columns), np.float32), given[4])


# -- oneDNN ----------------------------------------------------------------------------------------

_FORMAT, _NOTHING = ctypes.c_int32(_FLOAT32), ctypes.create_string_buffer(b"none")
_FORMAT_AT, _NOTHING_AT = ctypes.addressof(_FORMAT), ctypes.addressof(_NOTHING)


def onednn(packed: Tensor, scale: Tensor, zero: int, inputs: int) -> NativeKernel | None:
    """Of ``torch.ops.onednn.qlinear_pointwise`` of uint8 rows with a step of one. ``packed``: by
    ``qlinear_prepack``; ``scale`` of each output. None where torch has no such function."""
    if not hasattr(_LIBRARY, "aoti_torch_cpu__qlinear_pointwise_tensor"):
        return None
    others = (torch.tensor(1.0), torch.tensor(zero, dtype=torch.int32), packed, scale,
              torch.zeros(len(scale), dtype=torch.int32))  # fmt: skip
    handles = tuple(map(_new_handle, others))
    kernel = NativeKernel.of(_onednn_function().address, (inputs, *handles))
    finalize(kernel, lambda: [_delete(each) for each in handles])
    return kernel


@cache
def _onednn_function() -> Any:
    linear = _function(
        "cpu__qlinear_pointwise_tensor",
        *[_ADDRESS] * 7, ctypes.c_double, _LONG, _ADDRESS, _ADDRESS, _ADDRESS, _LONG, _ADDRESS,
        _ADDRESS,
    )  # fmt: skip

    @kernel_function
    def multiply(operands: int, rows: int, count: int) -> int:
        array = array_at(operands, (6,), np.int64)
        inputs, step, zero, weight, scale, zeros = as_tuple(array, 6)
        given = np.array((count, inputs, inputs, 1, 0, 0))  # read below, so not freed before
        sizes = given.ctypes.data
        _from_blob(rows, 2, sizes, sizes + 16, 0, _UINT8, _CPU, -1, sizes + 32)
        linear(
            given[4], step, zero, weight, scale, zeros, 0, 1.0, 0, _FORMAT_AT, _NOTHING_AT, 0, 0,
            _NOTHING_AT, sizes + 40,
        )  # fmt: skip
        _delete(given[4])
        return int(given[5])

    return multiply
