"""A ``GraphRecorder`` for machines without a device: strict where CUDA is strict.

It notes every operation of a function with the tensors it was given, and a replay does the same
operations on the same memory again; Python runs no second time. What CUDA forbids while it records
is an assertion here. Until the first replay the results hold nothing that could be used. Copies
and replays happen as late as they may: not before somebody waits for them.
"""

from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ssasr.engine.graphs import CapturedGraph

FORBIDDEN = {
    "aten::_local_scalar_dense": "a value was looked at",
    "aten::lift_fresh": "a tensor was made of host data",
    "aten::nonzero": "a shape depends on values",
    "aten::masked_select": "a shape depends on values",
    "aten::unique_dim": "a shape depends on values",
}


RESHAPING = {"aten::transpose_", "aten::squeeze_", "aten::unsqueeze_", "aten::t_"}
"""They change a tensor and not its memory: once is enough."""
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


def tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def memory(tree):
    return {tensor.untyped_storage()._cdata for tensor in tensors(tree)}


class CaptureRules(TorchDispatchMode):
    """Raises where a capture would fail, or would freeze what should vary."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.name().split(".")[0]
        assert name not in FORBIDDEN, FORBIDDEN[name]
        if name in INDEXING:
            kinds = {index.dtype for index in tensors(args[1])}
            assert torch.bool not in kinds, "a shape depends on values"
        result = func(*args, **kwargs)
        devices = {tensor.device for tensor in tensors((args, kwargs, result))}
        assert len(devices) <= 1, f"{name} takes and gives tensors of {devices}"
        self.note(func, args, kwargs, result)
        return result

    def note(self, func, args, kwargs, result):
        """Nothing."""


class _Journal(CaptureRules):
    """The operations, each with the tensors that it made rather than was given."""

    def __init__(self):
        super().__init__()
        self.notes = []

    def note(self, func, args, kwargs, result):
        if func.name() in RESHAPING:
            return
        given = memory((args, kwargs))
        # As they are now, should they be reshaped later.
        made = [t.detach() if not memory(t) & given else None for t in tensors(result)]
        self.notes.append((func, args, kwargs, made))

    def forget(self):
        """Spoil what was made: a recording computes nothing."""
        for tensor in (tensor for note in self.notes for tensor in note[3] if tensor is not None):
            if tensor.dtype == torch.bool:
                tensor.logical_not_()
            else:
                tensor.fill_(torch.nan if tensor.is_floating_point() else 2**30)

    def play(self):
        for func, args, kwargs, made in self.notes:
            for place, new in zip(made, tensors(func(*args, **kwargs)), strict=True):
                if place is not None:
                    place.copy_(new)


class _Late(TorchDispatchMode):
    """Puts off copies that nobody waits for."""

    def __init__(self, recorder):
        super().__init__()
        self._recorder = recorder

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten.copy_.default and (args[2:] or (False,))[0]:
            self._recorder.queue.append(lambda: func(*args, **kwargs))
            return args[0]
        if memory((args, kwargs)) - self._recorder.host:
            self._recorder.catch_up()  # work of the device, in its turn
        return func(*args, **kwargs)


class LateRecorder:
    """See ``engine.graphs.GraphRecorder``. ``replays``, ``waits``: how many there have been."""

    def __init__(self):
        self.queue, self.host, self.replays, self.waits = [], set(), 0, 0
        self._kept = []

    def pinned(self, *shape, dtype):
        tensor = torch.zeros(shape, dtype=dtype)
        self._kept.append(tensor)
        self.host |= memory(tensor)
        return tensor

    @contextmanager
    def working(self):
        with _Late(self):
            yield

    @torch.no_grad()
    def capture(self, function):
        self.synchronize()
        function()
        with _Journal() as journal:
            result = function()
        journal.forget()

        def replay():
            self.replays += 1
            self.queue.append(journal.play)

        return CapturedGraph(result, replay, function)

    def synchronize(self):
        self.waits += 1
        self.catch_up()

    @torch.no_grad()
    def catch_up(self):
        """Do what was put off."""
        queue, self.queue[:] = list(self.queue), []
        with torch.utils._python_dispatch._disable_current_modes():
            for work in queue:
                work()
