"""What a stream costs, and what a device's figures allow (``archive/fastconformer_device.md``).

    python -m benchmarks.fastconformer_limits
    python -m benchmarks.fastconformer_limits --memory-gb 24 --bandwidth-tb 0.3 --tflops 121

Defaults are the data sheet of one H100 SXM (80 GB, 3.35 TB/s, 989 TFLOP/s bfloat16 dense). Nothing
is measured here, but the program itself is counted: it runs on tensors without numbers, and every
operation says what it would read, write and multiply, as if nothing stayed in a cache from one to
the next. What a row adds is the difference between two batch sizes; the rest, weights nearly all of
it, is read once a step, and a step takes only so many rows.
"""

import argparse
import math

import torch
from attrs import frozen
from torch.nn import functional as fn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.random_fastconformer import model_config
from ssasr.engine.fastconformer.graphs import iterations_guess
from ssasr.engine.fastconformer.program import Column, Inputs, Program
from ssasr.engine.fastconformer.recognizer import SileroDetector, largest_batch, make_layout
from ssasr.engine.fastconformer.slots import Layout, Slots
from ssasr.engine.fastconformer.transducer import Model
from ssasr.engine.vad import SileroVad

FRAME_S = 0.08
META = torch.device("meta")
GATHERED = {"index", "gather", "embedding"}
SCATTERED = {"index_copy_", "index_put_", "scatter_"}


def tensors(tree) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def size(tree) -> int:
    """Bytes; of what is repeated by its strides, once."""
    return sum(
        min(t.numel() * t.itemsize, t.untyped_storage().nbytes() - t.storage_offset() * t.itemsize)
        for t in tensors(tree)
    )


class Kernels(TorchDispatchMode):
    """Counts the operations that are no views, and the bytes they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = [t.untyped_storage()._cdata for t in tensors((args, kwargs))]
        fresh = any(t.untyped_storage()._cdata not in given for t in tensors(result))
        if fresh or func._schema.is_mutable:
            self.note(func.name().split("::")[1].split(".")[0], args, kwargs, result)
        return result

    def note(self, name, args, kwargs, result) -> None:
        self.count += 1
        if name in GATHERED:
            self.bytes += 2 * size(result) + size(args[1:])
        elif name in SCATTERED:
            self.bytes += 2 * size(args[-1]) + size(args[1:-1])
        else:
            self.bytes += size((args, kwargs)) + size(result)


class OneKernelForAttention(TorchFunctionMode):
    """As on CUDA: queries, keys, values and mask are read once, the answer is written once."""

    def __init__(self, kernels: Kernels) -> None:
        super().__init__()
        self._kernels = kernels

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        before = self._kernels.count, self._kernels.bytes
        result = func(*args, **kwargs)
        if func is fn.scaled_dot_product_attention:
            self._kernels.count, self._kernels.bytes = before
            self._kernels.note("attention", args, kwargs, result)
        return result


@frozen
class Cost:
    """Of one step, or of one row of it."""

    flops: float
    bytes: float
    kernels: int


@torch.no_grad()
def step(model: Model, layout: Layout, rows: int) -> Cost:
    """The step as it is recorded, one more look at the device not included."""
    with META:
        detector = SileroDetector(SileroVad())
    program = Program(model, Slots.allocate(layout, META, torch.bfloat16), detector)
    inputs = Inputs(
        torch.zeros(rows, len(Column), dtype=torch.int64, device=META),
        torch.zeros(rows, layout.chunk, device=META),
    )
    kernels, flops = Kernels(), FlopCounterMode(display=False)
    with OneKernelForAttention(kernels), flops, kernels:
        running = program.encode(inputs)
        for _ in range(iterations_guess(layout.chunk_frames)):
            program.advance(running)
        program.finish(running)
    return Cost(flops.get_total_flops(), kernels.bytes, kernels.count)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vocabulary", type=int, default=1025)
    parser.add_argument("--chunks", type=int, nargs="+", default=[80, 160, 320, 560, 1120])
    parser.add_argument("--memory-gb", type=float, default=80.0)
    parser.add_argument("--bandwidth-tb", type=float, default=3.35)
    parser.add_argument("--tflops", type=float, default=989.0)
    options = parser.parse_args()
    with META:
        model = Model(model_config("full", options.vocabulary)).bfloat16()
    parameters = sum(p.numel() for p in model.parameters())
    weights = 2 * parameters
    print(f"parameters {parameters / 1e6:.0f} M, {weights / 1e9:.2f} GB in bfloat16")
    print("chunk  kernels  moved/step  state/stream  needed, moved/chunk  GFLOP/chunk"
          "  streams by memory, bandwidth, compute")  # fmt: skip
    for chunk_frames in (chunk_ms // 80 for chunk_ms in options.chunks):
        layout, many = (make_layout(model, n, chunk_frames) for n in (1, 32))
        state = layout.bytes_per_stream(torch.bfloat16) * many.slots / 32
        few, most = (step(model, layout, rows) for rows in (64, 128))
        moved, flops = (most.bytes - few.bytes) / 64, (most.flops - few.flops) / 64
        once = few.bytes - 64 * moved
        encoder = layout.config.encoder
        read, written = 2 * layout.left + encoder.conv_context, 3 * chunk_frames
        needed = 2 * encoder.num_hidden_layers * encoder.hidden_size * (read + written)
        # Half a chunk's time for steps of everyone: the criterion of gpu_streams.py, at worst.
        half = chunk_frames * FRAME_S / 2
        by_memory = (options.memory_gb * 1e9 - weights - 6e9) / state
        rows = largest_batch(make_layout(model, 10_000, chunk_frames))
        by_bandwidth = half * options.bandwidth_tb * 1e12 / (moved + once / rows)
        by_compute = half * options.tflops * 1e12 * 0.5 / flops
        bounds = [math.floor(bound) for bound in (by_memory, by_bandwidth, by_compute)]
        print(
            f"{80 * chunk_frames:5d}  {few.kernels:7d}  {once / 1e9:7.2f} GB  {state / 1e6:9.2f} MB"
            f"  {needed / 1e6:6.2f} {moved / 1e6:9.2f} MB  {flops / 1e9:11.2f}"
            f"        {bounds[0]:7d} {bounds[1]:7d} {bounds[2]:7d}"
        )


if __name__ == "__main__":
    main()
