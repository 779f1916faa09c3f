"""One step of a full batch under the profiler, against what the memory of the device could do."""

import time

import torch
from attrs import frozen
from torch.profiler import ProfilerActivity, profile

from benchmarks.random_fastconformer import Audio, make_recognizer
from benchmarks.recognizer_steps import NoDevice
from ssasr.engine.fastconformer.slots import Layout
from ssasr.engine.fastconformer.transducer import Model
from ssasr.engine.recognizer import SegmentStart, Work
from ssasr.protocol.recognition import StreamOptions


@frozen
class Profile:
    """``kernels``: on a CPU, operators. ``needed_gb``: weights once, each row's state read once and
    its new part written once. ``floor_ms``: that over the measured copy bandwidth."""

    rows: int
    host_us: float
    """Processor time of the host's bookkeeping, a row, every third with a token: the same step
    without the device (``recognizer_steps``)."""
    host_quiet_us: float
    """The same without tokens."""
    step_ms: float
    kernel_ms: float
    kernels: int
    needed_gb: float
    copy_gb_s: float
    floor_ms: float
    slowest: tuple[tuple[str, float], ...]


def profile_step(model: Model, chunk_frames: int, rows: int) -> Profile:
    """The median of five unprofiled steps, and one profiled."""
    device = model.device
    recognizer = make_recognizer(model, chunk_frames, rows)
    audio = Audio(recognizer.chunk)
    rows = min(rows, recognizer.max_batch)
    states = [recognizer.new_state(StreamOptions(), SegmentStart(0)) for _ in range(rows)]

    def step(number: int) -> float:
        begin = time.perf_counter()
        recognizer.step([Work(s, audio.chunk(i, number)) for i, s in enumerate(states)])
        return 1000 * (time.perf_counter() - begin)

    # Enough steps for every stream to have its whole left context.
    for number in range(recognizer._layout.left // chunk_frames + 2):
        step(number)
    step_ms = sorted(step(100 + number) for number in range(5))[2]
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as record:
        step(200)
    kernel_ms, kernels, slowest = _kernels(record, device)
    needed = needed_bytes(model, recognizer._layout, rows) / 1e9
    bandwidth = copy_bandwidth(device) / 1e9
    return Profile(
        rows,
        round(host_microseconds(recognizer, audio, states, saying=True), 1),
        round(host_microseconds(recognizer, audio, states, saying=False), 1),
        round(step_ms, 3),
        round(kernel_ms, 3),
        kernels,
        round(needed, 3),
        round(bandwidth, 1),
        round(1000 * needed / bandwidth, 3),
        slowest,
    )


def host_microseconds(recognizer, audio: Audio, states: list, *, saying: bool) -> float:
    """The median of twenty steps, divided by their rows."""
    runner, taken = recognizer._runner, []
    recognizer._runner = NoDevice(runner, recognizer._layout, len(states), saying)
    for number in range(20):
        works = [Work(s, audio.chunk(i, number)) for i, s in enumerate(states)]
        begin = time.process_time()
        recognizer.step(works)
        taken.append(time.process_time() - begin)
    recognizer._runner = runner
    return 1e6 * sorted(taken)[10] / len(states)


def _kernels(record, device: torch.device) -> tuple[float, int, tuple[tuple[str, float], ...]]:
    """Milliseconds and number of kernels, and the eight that take most; operators on a CPU."""
    total, count, times = 0.0, 0, {}
    for event in record.key_averages():
        on_device = event.device_type.name == "CUDA"
        if on_device != (device.type == "cuda"):
            continue
        spent = event.self_device_time_total if on_device else event.self_cpu_time_total
        total, count = total + spent, count + event.count
        times[event.key] = times.get(event.key, 0.0) + spent
    top = sorted(times.items(), key=lambda item: -item[1])[:8]
    return total / 1000, count, tuple((name[:60], round(spent / 1000, 3)) for name, spent in top)


def needed_bytes(model: Model, layout: Layout, rows: int) -> int:
    """Bytes that a step cannot do without."""
    encoder, size = layout.config.encoder, model.dtype.itemsize
    weights = sum(p.numel() for p in model.parameters()) * size
    read = 2 * layout.left + encoder.conv_context
    written = 3 * layout.chunk_frames
    numbers = rows * encoder.num_hidden_layers * encoder.hidden_size * (read + written)
    return weights + numbers * size


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written, of a large copy."""
    size = 2**30 if device.type == "cuda" else 2**27
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(5):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begin = time.perf_counter()
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size / best
