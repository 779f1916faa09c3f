"""How many live streams one device carries: cache-aware FastConformer RNN-T, random weights.

    python -m benchmarks.gpu_streams --device cuda:0 --out benchmarks/results/gpu_streams.json
    python -m benchmarks.gpu_streams --device cpu --size small --chunks 160 --most 16 --seconds 3

For each chunk size it looks for the most streams that keep up: every stream has its own phase,
chunks become due by the clock, whatever is due is stepped at once, up to the rows that one step
takes: ends of segments first, then the longest overdue, as the engine's scheduler chooses. Segments
end at random and are finalised. Kept up means: p95 of (answer - due) of a step under half
a chunk, p95 of (final words - end of the segment's audio) within --ttfs-ms, and nothing overdue by
a chunk at the end. The weights are random, with the blank's bias set so that a stream emits about
--rate tokens a second: the work is that of the real model, the words are not. Then the reference
implementation (transformers), same weights, same device, as large a batch as it can carry, all rows
started together, features given. See ``archive/fastconformer_device.md`` for the limits.
"""

import argparse
import heapq
import json
import platform
import random
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from attrs import asdict, define, field, frozen

from benchmarks.conditions import conditions
from benchmarks.gpu_profile import Profile, profile_step
from benchmarks.gpu_reference import ReferenceFigures, measure_reference
from benchmarks.random_fastconformer import (
    Audio,
    calibrate,
    make_recognizer,
    model_config,
    random_model,
)
from ssasr.engine.devices import choose_device, choose_dtype
from ssasr.engine.fastconformer.recognizer import Segment
from ssasr.engine.fastconformer.transducer import Model
from ssasr.engine.recognizer import SegmentStart, Work
from ssasr.protocol.recognition import SAMPLE_RATE, StreamOptions
from ssasr.runtime.garbage import collect_rarely

FRAME_MS = 80


# -- streams by the clock ------------------------------------------------------------------------


@frozen
class Figures:
    """One trial."""

    streams: int
    max_batch: int
    """Rows that one step takes."""
    chunk_ms: int
    seconds: float
    kept_up: bool
    step_ms: dict[str, float]
    """Answer minus due time of a chunk."""
    batch_ms: dict[str, float]
    """One call of ``step``."""
    ttfs_ms: dict[str, float]
    """Last words minus due time of the segment's last audio."""
    finals: int
    mean_batch: float
    overdue_ms: float
    """The longest overdue chunk at the end."""
    tokens_per_second: float
    rtfx: float
    """Seconds of audio for each second that the device and its thread were busy."""
    vram_gb: float
    watts: float | None


@define
class _Live:
    """A stream of the trial."""

    number: int
    state: Segment
    step: int = 0
    steps_left: int = 0
    tokens: int = 0
    samples: int = 0


@define
class _Log:
    late: list[float] = field(factory=list)
    batches: list[float] = field(factory=list)
    sizes: list[int] = field(factory=list)
    finals: list[float] = field(factory=list)
    watts: list[float] = field(factory=list)
    tokens: int = 0


def trial(recognizer, streams: int, seconds: float, settle: float) -> Figures:
    """``streams`` by the clock for ``seconds``, after ``settle`` seconds that do not count."""
    chunk_s = recognizer.chunk / SAMPLE_RATE
    audio, dice, log = Audio(recognizer.chunk), random.Random(0), _Log()
    begin = time.perf_counter() + 0.05
    due = [
        (begin + dice.random() * chunk_s, n, _fresh(recognizer, n, dice, shortest=0.0))
        for n in range(streams)
    ]
    heapq.heapify(due)
    counting, stop = begin + settle, begin + settle + seconds
    while (now := time.perf_counter()) < stop:
        if due[0][0] > now:
            time.sleep(max(0.0, due[0][0] - now))
            continue
        ready = _chosen(due, now, recognizer.max_batch)
        works = [_work(live, audio, recognizer.chunk) for _, _, live in ready]
        recognizer.step(works)
        done = time.perf_counter()
        for (when, number, live), work in zip(ready, works, strict=True):
            _record(log, live, work, done - when, counted=when >= counting)
            if work.final_at is not None:
                live = _fresh(recognizer, number, dice)
            heapq.heappush(due, (when + chunk_s, number, live))
        if now >= counting:
            log.batches.append(done - now)
            log.sizes.append(len(ready))
    overdue = max(0.0, time.perf_counter() - due[0][0])
    for _, _, live in due:
        recognizer.release(live.state)
    return _figures(recognizer, streams, seconds, log, overdue)


def _chosen(due: list, now: float, most: int) -> list:
    """What the next step takes out of ``due``."""
    ready = []
    while due and due[0][0] <= now:
        ready.append(heapq.heappop(due))
    # Stable: of either kind the longest overdue comes first.
    ready.sort(key=lambda entry: entry[2].steps_left > 1)
    for entry in ready[most:]:
        heapq.heappush(due, entry)
    return ready[:most]


def _fresh(recognizer, number: int, dice: random.Random, shortest: float = 1.0) -> _Live:
    """A new segment of up to eight seconds."""
    chunk_s = recognizer.chunk / SAMPLE_RATE
    steps = max(1, round(dice.uniform(shortest, 8.0) / chunk_s))
    state = recognizer.new_state(StreamOptions(), SegmentStart(0))
    return _Live(number, state, dice.randrange(1000), steps)


def _work(live: _Live, audio: Audio, chunk: int) -> Work:
    live.step += 1
    live.steps_left -= 1
    samples = audio.chunk(live.number, live.step)
    live.samples += len(samples)
    if live.steps_left > 0:
        return Work(live.state, samples)
    # A segment ends anywhere in a chunk.
    left_out = chunk - (1 + live.number * 997 % chunk)
    live.samples -= left_out
    return Work(live.state, samples[: chunk - left_out], live.samples)


def _record(log: _Log, live: _Live, work: Work, late: float, *, counted: bool) -> None:
    tokens = len(live.state.transcript._tokens)
    if counted:
        log.late.append(late)
        log.tokens += tokens - live.tokens
        if work.final_at is not None:
            log.finals.append(late)
    live.tokens = tokens


def _figures(recognizer, streams: int, seconds: float, log: _Log, overdue: float) -> Figures:
    chunk_s = recognizer.chunk / SAMPLE_RATE
    step = percentiles(log.late)
    cuda = torch.cuda.is_available()
    return Figures(
        streams,
        recognizer.max_batch,
        round(1000 * chunk_s),
        seconds,
        step["p95"] < 500 * chunk_s and overdue < chunk_s,
        step,
        percentiles(log.batches),
        percentiles(log.finals),
        len(log.finals),
        sum(log.sizes) / max(1, len(log.sizes)),
        1000 * overdue,
        log.tokens / streams / seconds,
        sum(log.sizes) * chunk_s / max(1e-9, sum(log.batches)),
        torch.cuda.max_memory_reserved() / 1e9 if cuda else 0.0,
        power(),
    )


def percentiles(seconds: list[float]) -> dict[str, float]:
    """In milliseconds; infinite where nothing was measured."""
    if not seconds:
        return {"p50": float("inf"), "p95": float("inf"), "p99": float("inf")}
    values = np.percentile(np.array(seconds) * 1000, [50, 95, 99])
    return {name: round(float(v), 2) for name, v in zip(("p50", "p95", "p99"), values, strict=True)}


def power() -> float | None:
    """Watts that the device draws now, if it can be read."""
    command = ["nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits"]
    try:
        out = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
        return float(out.split()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def search(model: Model, chunk_frames: int, options: argparse.Namespace) -> list[Figures]:
    """Trials up to the first that fails, doubling; then halving the gap three times."""
    trials: list[Figures] = []
    good, bad, streams = 0, None, min(options.start, options.most)
    recognizer = make_recognizer(model, chunk_frames, options.most)
    collect_rarely()  # as an engine does
    while True:
        found = trial(recognizer, streams, options.seconds, options.settle)
        trials.append(found)
        kept_up = keeps_up(found, options)
        print_trial(found, kept_up)
        if kept_up:
            good = streams
        else:
            bad = streams
        if bad is None and streams == options.most:
            return trials
        if bad is not None and (bad - good <= max(1, bad // 8)):
            return trials
        streams = min(2 * streams, options.most) if bad is None else (good + bad) // 2


def keeps_up(found: Figures, options: argparse.Namespace) -> bool:
    """The whole criterion."""
    return found.kept_up and found.ttfs_ms["p95"] <= options.ttfs_ms


def print_trial(found: Figures, kept_up: bool) -> None:
    """One line."""
    step, ttfs = found.step_ms, found.ttfs_ms
    print(
        f"  N={found.streams:5d}  {'kept up' if kept_up else 'fell behind':11s}"
        f"  step p50/p95/p99 {step['p50']:.1f}/{step['p95']:.1f}/{step['p99']:.1f} ms"
        f"  TTFS {ttfs['p50']:.1f}/{ttfs['p95']:.1f}/{ttfs['p99']:.1f} ms"
        f"  batch {found.mean_batch:.0f} in {found.batch_ms['p50']:.1f} ms"
        f"  RTFx {found.rtfx:.0f}  {found.tokens_per_second:.1f} tokens/s"
        f"  {found.vram_gb:.1f} GB  {found.watts or '-'} W",
        flush=True,
    )


# -- the whole report ----------------------------------------------------------------------------


@frozen
class Report:
    """Everything about one chunk size."""

    chunk_ms: int
    rate_unpaced: float
    best: Figures | None
    trials: list[Figures]
    reference: ReferenceFigures | None
    profile: Profile


def main() -> None:
    """See the top of this file."""
    options = arguments()
    device = choose_device(options.device)
    dtype = choose_dtype(device)
    about = {
        "device": device_name(device),
        "commit": commit(),
        "torch": torch.__version__,
        "dtype": str(dtype),
        "size": options.size,
        "vocabulary": options.vocabulary,
        "threads": torch.get_num_threads(),
    }
    print(" ".join(f"{name}={value}" for name, value in about.items()), flush=True)
    model = random_model(model_config(options.size, options.vocabulary), device, dtype)
    reports = [report(model, chunk_ms // FRAME_MS, options) for chunk_ms in options.chunks]
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "command": conditions()["command"],
            "about": about,
            "reports": [asdict(each) for each in reports],
        }
        options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def report(model: Model, chunk_frames: int, options: argparse.Namespace) -> Report:
    """One chunk size, printed as it goes."""
    print(f"chunk {chunk_frames * FRAME_MS} ms", flush=True)
    rate = calibrate(model, options.rate, chunk_frames)
    print(f"  {rate:.1f} tokens/s a stream, unpaced", flush=True)
    trials = search(model, chunk_frames, options)
    good = [found for found in trials if keeps_up(found, options)]
    best = max(good, key=lambda found: found.streams, default=None)
    print(f"  most streams that kept up: {best.streams if best else 0}", flush=True)
    profile = profile_step(model, chunk_frames, min(best.streams if best else 1, options.batch))
    print(f"  {profile}", flush=True)
    reference = None
    if options.reference:
        reference = measure_reference(model, chunk_frames, options.most, options.reference_chunks)
        print(f"  {reference}", flush=True)
    return Report(chunk_frames * FRAME_MS, rate, best, trials, reference, profile)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", choices=["full", "small"], default="full")
    parser.add_argument("--vocabulary", type=int, default=1025, help="13088 for the multilingual")
    parser.add_argument("--chunks", type=int, nargs="+", default=[80, 160, 320, 560, 1120])
    parser.add_argument("--seconds", type=float, default=20.0, help="counted time of a trial")
    parser.add_argument("--settle", type=float, default=3.0, help="time before that")
    parser.add_argument("--start", type=int, default=256, help="streams of the first trial")
    parser.add_argument("--most", type=int, default=4096, help="slots; bounds the search")
    parser.add_argument("--batch", type=int, default=512, help="rows of the profiled step")
    parser.add_argument("--ttfs-ms", type=float, default=300.0)
    parser.add_argument("--rate", type=float, default=4.0, help="tokens a second and stream")
    parser.add_argument("--reference-chunks", type=int, default=12)
    parser.add_argument("--no-reference", dest="reference", action="store_false")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def device_name(device: torch.device) -> str:
    """As the device or the system calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu {platform.machine()}"


def commit() -> str:
    """The checkout's commit, with a mark if it has been changed."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


if __name__ == "__main__":
    main()
