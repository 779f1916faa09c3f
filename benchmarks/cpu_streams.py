"""Streams of a FastConformer on a CPU: ours in 8 bits and in float32, and what else runs such a
model, on the same random weights of the published size, in one run.

    python -m benchmarks.cpu_streams [--streams 1,4,16,32]
        [--ways int8,float32,onnxruntime,onnxruntime_each,transformers]
        [--chunks 160,560,1120] [--seconds 10] [--threads 1] [--minutes N]
        [--json FILE]

``int8`` and ``float32`` are the whole recogniser: audio in, features, speech detector, encoder,
decoding of some four tokens a second and stream. The others are the encoder alone, features given:
``onnxruntime`` runs one step of it exported with its caches as inputs and outputs, as sherpa-onnx
does, in dynamic 8 bits (weights uint8, as its export scripts have it; products alone, to which
pointwise convolutions belong here): all streams in one batch, with one scale of the inputs for all
of them. ``onnxruntime_each`` runs the same a session at a time; sherpa-onnx's own server takes five
of them at once unless told otherwise (``--max-batch-size``). ``transformers`` runs its own modules
with its own caches, whose rows must have started together.
``int8_of_it``: CPU of ``int8`` with as many streams, in parts of a row's own.

Each way with each chunk is a process of its own; the weights are made once and kept in ``--work``.
With ``--minutes`` nothing is begun after so many: what ``--json`` has by then is kept, and the same
command goes on with the rest. CPU seconds of
all threads for a second of audio (median over the steps), p95 of a step's wall-clock time, and the
process's memory at the end. The roof is the rate of plain products of the encoder's shapes with as
many rows as a step has, weights from memory, taken just before; ``of_roof``: the time that the
encoder's products would take at that rate, of the whole. Wall-clock times mean something on a quiet
machine only.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from math import inf
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as fn

from benchmarks.conditions import conditions, publish
from benchmarks.random_fastconformer import (
    Audio,
    make_recognizer,
    model_config,
    random_model,
)
from ssasr.engine import kernels
from ssasr.engine.fastconformer.encoder import Attention, Encoder, Span
from ssasr.engine.fastconformer.quantized import packed, rounded
from ssasr.engine.fastconformer.transducer import Joint, Model
from ssasr.engine.recognizer import SegmentStart, Work
from ssasr.protocol.recognition import StreamOptions
from ssasr.runtime.huge_pages import use_huge_pages

WAYS = ("int8", "float32", "onnxruntime", "onnxruntime_each", "transformers")
VOCABULARY = 1_025
TOKENS_A_SECOND = 4.0
FRAMES_A_SECOND = 12.5
Step = Callable[[], object]


# -- the weights -----------------------------------------------------------------------------------


def load(path: Path, size: str) -> Model:
    """The random model that ``path`` keeps, made and put there if it does not."""
    if not path.exists():
        model = random_model(model_config(size, VOCABULARY), torch.device("cpu"), torch.float32)
        torch.save(model.state_dict(), path)
    with torch.device("meta"):
        model = Model(model_config(size, VOCABULARY))
    model.load_state_dict(torch.load(path, mmap=True), assign=True)
    return model.eval().requires_grad_(False)


def load_int8(path: Path, size: str, rows: int) -> Model:
    """The same in 8 bits, as an engine maps it from its cache. ``rows``: of a usual step."""
    kept = path.with_suffix(f".{kernels.int8_limit()}.pt")
    if not kept.exists():
        model = load(path, size)
        torch.save(rounded(model.state_dict().items(), model), kept)
    with torch.device("meta"):
        model = Model(model_config(size, VOCABULARY))
    model = packed(model, torch.load(kept, mmap=True), rows)
    use_huge_pages()
    return model


class PacedJoint(Joint):
    """The same product; the blank then wins in all but some frames: those whose best token is so
    far ahead of it that there are ``TOKENS_A_SECOND``, one a frame at most (the model's limit is
    set to one). Random weights alone are silent or never stop."""

    def __init__(self, joint: Joint, blank: int) -> None:
        torch.nn.Module.__init__(self)
        self.head, self._blank, self._margins = joint.head, blank, []
        self.bias: float | None = None

    def forward(self, frames: torch.Tensor, summary: torch.Tensor) -> torch.Tensor:
        scores = super().forward(frames, summary)
        if self.bias is None:
            ahead = scores[..., : self._blank].amax(-1) - scores[..., self._blank]
            self._margins.append(ahead.flatten())
            scores[..., self._blank] += 1e4
        else:
            scores[..., self._blank] += self.bias
        return scores

    def settle(self) -> None:
        """After some audio."""
        share = 1.0 - TOKENS_A_SECOND / FRAMES_A_SECOND
        self.bias = float(torch.cat(self._margins).quantile(share))


# -- the ways --------------------------------------------------------------------------------------


def ours(model: Model, streams: int, chunk_frames: int) -> Step:
    recognizer = make_recognizer(model, chunk_frames, streams, warm=False)
    audio = Audio(recognizer.chunk)
    states = [recognizer.new_state(StreamOptions(), SegmentStart(0)) for _ in range(streams)]
    number = 0

    def step() -> object:
        nonlocal number
        number += 1
        works = [Work(s, audio.chunk(i, number)) for i, s in enumerate(states)]
        return recognizer.step(works)

    assert isinstance(model.joint, PacedJoint)
    while model.joint.bias is None:
        for _ in range(max(2, 60 // (streams * chunk_frames))):
            step()
        model.joint.settle()
    return step


def paced(model: Model) -> Model:
    model.joint = PacedJoint(model.joint, model.config.blank_token_id)
    object.__setattr__(model.config, "max_symbols_per_step", 1)
    return model


def transformers_step(model: Model, streams: int, chunk_frames: int) -> Step:
    from benchmarks.gpu_reference import to_reference

    reference = getattr(model, "reference", None) or to_reference(model)
    model.reference = reference
    bins, state = model.config.encoder.num_mel_bins, [None, None]

    def step() -> object:
        first = state[0] is None
        frames = 8 * chunk_frames - 7 * first
        found = reference.get_audio_features(
            torch.randn(streams, frames, bins) * 2 - 6,
            past_key_values=state[0],
            padding_cache=state[1],
            num_lookahead_tokens=chunk_frames - 1,
            use_cache=True,
        )
        state[:] = found.past_key_values, found.padding_cache
        return found

    return step


class ExportedStep(torch.nn.Module):
    """A step of the encoder with its caches as tensors: (layers, batch, left, 2 dim) and (layers,
    batch, context, dim)."""

    def __init__(self, encoder: Encoder, chunk_frames: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("relative", encoder.relative_keys(chunk_frames))

    def forward(self, mel, first, attention, convolution):
        past = _Past(attention, convolution)
        span = Span(first, torch.full_like(first, 2**40))
        frames = self.encoder(mel, span, past, self.relative)
        return frames, torch.stack(past.attention_after), torch.stack(past.convolution_after)


class _Past:
    def __init__(self, attention, convolution):
        self._attention, self._convolution = attention, convolution
        self.attention_after, self.convolution_after = [], []

    def attention(self, layer, new):
        whole = torch.cat([self._attention[layer], new], 1)
        self.attention_after.append(whole[:, new.shape[1] :])
        return whole

    def convolution(self, layer, new):
        whole = torch.cat([self._convolution[layer], new], 1)
        self.convolution_after.append(whole[:, new.shape[1] :])
        return whole


def _shifted_scores(self, queries, relative, keys):
    """``Attention._position_scores`` with operations that ONNX has: Transformer-XL's shift."""
    batch, count = queries.shape[:2]
    table = ((queries + self.bias_v).transpose(1, 2) @ relative) * self.head_size**-0.5
    width = relative.shape[2]
    shifted = fn.pad(table, (1, 0)).reshape(batch, self.heads, width + 1, count)
    return shifted[:, :, 1:].reshape(batch, self.heads, count, width)[..., :keys]


def export(model: Model, chunk_frames: int, folder: Path) -> Path:
    """The encoder's step in dynamic 8 bits."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole, small = folder / f"step{chunk_frames}.onnx", folder / f"step{chunk_frames}.int8.onnx"
    if small.exists():
        return small
    folder.mkdir(exist_ok=True)
    Attention._position_scores = _shifted_scores
    names = ["mel", "first", "attention", "convolution"]
    arguments = _inputs(model, 2, chunk_frames)
    batched = {"mel": {0: "n"}, "first": {0: "n"}, "attention": {1: "n"}, "convolution": {1: "n"}}
    torch.onnx.export(
        ExportedStep(model.encoder, chunk_frames), tuple(arguments), str(whole), input_names=names,
        output_names=["frames", "attention_after", "convolution_after"], dynamic_axes=batched,
        opset_version=17, dynamo=False,
    )  # fmt: skip
    quantize_dynamic(
        whole, small, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QUInt8,
        use_external_data_format=True, extra_options={"MatMulConstBOnly": True},
    )  # fmt: skip
    return small


def _inputs(model: Model, streams: int, chunk_frames: int) -> list[torch.Tensor]:
    encoder = model.config.encoder
    layers, dim = encoder.num_hidden_layers, encoder.hidden_size
    return [
        torch.randn(streams, 8 * chunk_frames + 7, encoder.num_mel_bins) * 2 - 6,
        torch.full((streams,), 1_000),
        torch.randn(layers, streams, encoder.left_frames(chunk_frames), 2 * dim),
        torch.randn(layers, streams, encoder.conv_context, dim),
    ]


def onnxruntime_step(folder: Path, threads: int, batch: int | None, model: Model, streams: int,
                     chunk_frames: int) -> Step:  # fmt: skip
    """``batch``: streams of one call; None: all."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(export(model, chunk_frames, folder), options)
    names, batch = ("mel", "first", "attention", "convolution"), batch or streams

    def inputs() -> dict:
        tensors = _inputs(model, batch, chunk_frames)
        return {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}

    given = [inputs() for _ in range(streams // batch)]

    def step() -> object:
        for each in given:
            frames, each["attention"], each["convolution"] = session.run(None, each)
        return frames

    return step


# -- measuring -------------------------------------------------------------------------------------


def measure(step: Step, streams: int, chunk_frames: int, seconds: float) -> dict:
    audio = streams * chunk_frames / FRAMES_A_SECOND
    step()
    cpu, wall = [], []
    while len(cpu) < 3 or sum(cpu) < seconds:
        began = time.process_time(), time.perf_counter()
        step()
        cpu.append(time.process_time() - began[0])
        wall.append(time.perf_counter() - began[1])
    return {
        "streams": streams,
        "chunk_ms": 80 * chunk_frames,
        "cpu_per_audio_s": round(statistics.median(cpu) / audio, 4),
        "cpu_per_audio_s_best": round(min(cpu) / audio, 4),
        "step_p95_ms": round(1000 * float(np.percentile(wall, 95)), 1),
        "steps": len(cpu),
    }


def shapes(model: Model) -> list[tuple[int, int, int]]:
    """(inputs, outputs, how many) of the encoder's products."""
    encoder = model.config.encoder
    dim, inner, layers = encoder.hidden_size, encoder.intermediate_size, encoder.num_hidden_layers
    per_layer = [(dim, inner, 2), (inner, dim, 2), (dim, 3 * dim, 1), (dim, dim, 2),
                 (dim, 2 * dim, 1)]  # fmt: skip
    return [(a, b, layers * n) for a, b, n in per_layer]


def roof(model: Model, rows: int, *, int8: bool) -> float:
    """CPU seconds that the encoder's products take for so many rows, each shape with the fastest
    kernel there is, and weights that come from memory: as many as the model's, in turn."""
    best = [inf] * len(shapes(model))
    for make in kernels.exact_makers(kernels.int8_limit()) if int8 else (None,):
        products = [_products(make, rows, *shape) for shape in shapes(model)]
        for _ in range(3):
            best = [min(b, _seconds(jobs)) for b, jobs in zip(best, products, strict=True)]
    return sum(best)


def _products(make, rows: int, inputs: int, outputs: int, times: int) -> list[Step]:
    weight, x = torch.randn(outputs, inputs), torch.randint(0, 256, (rows, inputs)).float()
    if make is None:
        return [partial(fn.linear, x, weight.clone()) for _ in range(times)]
    kept, small = kernels.rounded(weight), x.to(torch.uint8)
    return [partial(make(kept.integers, kept.scale), small) for _ in range(times)]


def _seconds(jobs: list[Step]) -> float:
    began = time.process_time()
    for job in jobs:
        job()
    return time.process_time() - began


@torch.inference_mode()
def run_way(given: argparse.Namespace) -> list[dict]:
    """In a process of its own."""
    path, rows = given.work / f"{given.size}.pt", []
    (chunk_ms,) = given.chunks
    model = load_int8(path, given.size, 2 * chunk_ms // 80) if given.way == "int8" else None
    model = model or load(path, given.size)
    if given.way in ("int8", "float32"):
        paced(model)
    for streams in given.streams:
        rows.append({"way": given.way, **figures(given, model, streams, chunk_ms // 80)})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def figures(given: argparse.Namespace, model: Model, streams: int, chunk_frames: int) -> dict:
    least = roof(model, streams * chunk_frames, int8=given.way != "float32")
    onnxruntime = partial(onnxruntime_step, given.work / given.size, given.threads)
    step = {
        "transformers": transformers_step,
        "onnxruntime": partial(onnxruntime, None),
        "onnxruntime_each": partial(onnxruntime, 1),
    }.get(given.way, ours)(model, streams, chunk_frames)
    row = measure(step, streams, chunk_frames, given.seconds)
    audio = streams * chunk_frames / FRAMES_A_SECOND
    row["of_roof"] = round(least / audio / row["cpu_per_audio_s"], 3)
    row["rss_mb"] = resident() >> 20
    return row


def resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--ways", default=",".join(WAYS), type=lambda text: text.split(","))
    parser.add_argument("--streams", type=numbers, default=[1, 4, 16, 32])
    parser.add_argument("--chunks", type=numbers, default=[160, 560, 1_120])
    parser.add_argument("--seconds", type=float, default=10.0, help="of CPU for each figure")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--work", type=Path, default=Path("/tmp/cpu_streams"))
    parser.add_argument("--minutes", type=float, default=inf)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.work.mkdir(parents=True, exist_ok=True)
    if given.way:
        json.dump(run_way(given), sys.stdout)
        return
    load(given.work / f"{given.size}.pt", given.size)
    rows, until = earlier(given.json), time.monotonic() + 60 * given.minutes
    for way, chunk_ms, streams in missing(given, rows):
        if time.monotonic() > until:
            return
        asked = ["--way", way, "--chunks", str(chunk_ms), "--streams", ",".join(map(str, streams))]
        command = [sys.executable, "-m", "benchmarks.cpu_streams", *sys.argv[1:], *asked]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        rows += json.loads(done.stdout)
        rows.sort(key=lambda row: (row["chunk_ms"], row["streams"], WAYS.index(row["way"])))
        compare(rows)
        about = {"load_average": round(os.getloadavg()[0], 1), "threads": given.threads}
        publish(conditions() | about | {"cpu_streams": rows}, given.json)


def earlier(path: Path | None) -> list[dict]:
    """Figures of a run that was not finished."""
    return json.loads(path.read_text())["cpu_streams"] if path and path.exists() else []


def compare(rows: list[dict]) -> None:
    """Each row gets ``int8_of_it``, where there is such a row."""
    int8 = {(row["chunk_ms"], row["streams"]): row for row in rows if row["way"] == "int8"}
    for row in rows:
        if mine := int8.get((row["chunk_ms"], row["streams"])):
            row["int8_of_it"] = round(mine["cpu_per_audio_s"] / row["cpu_per_audio_s"], 2)


def missing(given: argparse.Namespace, rows: list[dict]) -> Iterator[tuple[str, int, list[int]]]:
    """Way, chunk and numbers of streams that there are no figures for; all ways of a chunk follow
    each other, since they are compared."""
    there = {(row["way"], row["chunk_ms"], row["streams"]) for row in rows}
    for chunk_ms, way in product(given.chunks, given.ways):
        streams = [each for each in given.streams if (way, chunk_ms, each) not in there]
        if streams:
            yield way, chunk_ms, streams


if __name__ == "__main__":
    main()
