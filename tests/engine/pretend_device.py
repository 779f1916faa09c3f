"""A device that is not there, and computes all the same.

Tensors on it say so, hold their numbers in a tensor of the CPU, and refuse to meet tensors of the
CPU in an operation, as a GPU's do. So what was never run on a GPU can be run to its end, numbers
and all, and a tensor that was forgotten on the host is an error here too.
"""

from functools import cache

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _DummyPrivateUse1Hook,
    _setup_privateuseone_for_python_backend,
)

from tests.engine.recorder import tensors

BETWEEN_DEVICES = ("aten::_to_copy", "aten::to.", "aten::copy_")


@cache
def pretend_device():
    """The device. Work on it within ``Pretending``."""
    _setup_privateuseone_for_python_backend("pretend", _Module(), _Hook())
    fallback = torch.library.Library("_", "IMPL", "PrivateUse1")
    fallback.fallback(lambda function, *args, **kwargs: _run(function, args, kwargs), "PrivateUse1")
    _libraries.append(fallback)  # it holds as long as this is kept
    return torch.device("pretend", 0)


_libraries = []


class _Module(_DummyBackendModule):
    """Not one that torch itself would look for: fake tensors would use it."""

    def is_available(self):
        return False


class _Hook(_DummyPrivateUse1Hook):
    def is_available(self):
        return False


class OnDevice(torch.Tensor):
    """``held``: where the numbers are."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, device=pretend_device(),
        )  # fmt: skip

    def __init__(self, held):
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})

    def __repr__(self):
        return f"OnDevice({self.held})"


class Pretending(TorchFunctionMode):
    """Functions that would go past the dispatcher."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.tensor and "device" in kwargs:
            device = kwargs.pop("device")
            return function(*args, **kwargs).to(device)
        if function is torch.Tensor.tolist and isinstance(args[0], OnDevice):
            return args[0].held.tolist()
        return function(*args, **kwargs)


def _run(function, args, kwargs):
    name = function.name()
    if name == "aten::_has_compatible_shallow_copy_type":
        return False
    given = tensors((args, kwargs))
    ours = [tensor for tensor in given if isinstance(tensor, OnDevice)]
    if ours and not name.startswith(BETWEEN_DEVICES):
        strays = [tensor for tensor in given if not isinstance(tensor, OnDevice) and tensor.ndim]
        assert not strays, f"{name} takes tensors of the host and of the device"
    args, kwargs = tree_map(_held, (args, kwargs))
    stays = bool(ours)
    if name.startswith("aten::copy_"):
        stays = isinstance(given[0], OnDevice)
    if kwargs.get("device") is not None:
        stays = kwargs["device"].type == "pretend"
        kwargs["device"] = torch.device("cpu")
    result = function(*args, **kwargs)
    if not stays:
        return result
    known = {id(tensor.held): tensor for tensor in ours}
    return tree_map(lambda leaf: known.get(id(leaf), _on_device(leaf)), result)


def _held(leaf):
    return leaf.held if isinstance(leaf, OnDevice) else leaf


def _on_device(leaf):
    if not isinstance(leaf, torch.Tensor):
        return leaf
    with torch.inference_mode(False):  # else a view could not be of a tensor from outside of it
        return OnDevice(leaf)
