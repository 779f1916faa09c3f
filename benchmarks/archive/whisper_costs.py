"""What the parts of one decode cost, by the length of the excerpt, and what listening costs.

    python -m benchmarks.archive.whisper_costs [--evaldata ../shared/evaldata]
        [--model tiny.en]
        [--seconds 1,2,4,8,15] [--threads 1] [--repeats 9] [--json FILE]

Each part is run ``--repeats`` times in a thread of its own, as the engine runs it; printed are the
medians in milliseconds, CPU then wall. ``scratch`` is a decode without a draft (and how many tokens
it gives); ``again`` one whose draft is right, the cheapest there is; ``grown`` one whose draft is
the hypothesis of the excerpt without its last 0.58 s, as streaming has it. ``pass 1`` and ``pass
12`` are the decoder over that many tokens, ``words n`` the vocabulary's logits of n of them.
``batch n`` is one call with n different excerpts of that length, each with its ``grown`` draft, by
the excerpt.
"""

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch

from benchmarks.conditions import conditions
from ssasr.engine.recognizer import RecognizerSettings
from ssasr.engine.whisper.alignment import token_frames
from ssasr.engine.whisper.decoding import LENGTH_STEP, PADDING, Request
from ssasr.engine.whisper.recognizer import WhisperRecognizer, create
from ssasr.protocol.recognition import SAMPLE_RATE, VAD_FRAME

GROWTH = 6 * 1_536
"""Samples between two decodes while somebody speaks, as the segment policy has it."""
Parts = dict[str, Callable[[], object]]


def speech(folder: Path, seconds: float, language: str) -> np.ndarray:
    """Clips of one category one after the other: speech without long silences."""
    lines = (folder / "manifest.dev.jsonl").read_text("utf-8").splitlines()
    pieces: list[np.ndarray] = []
    for clip in map(json.loads, lines):
        if clip["category"] == f"read_{language}" and sum(map(len, pieces)) < seconds * SAMPLE_RATE:
            samples, rate = soundfile.read(folder / clip["file"], dtype="float32")
            if rate == SAMPLE_RATE:
                pieces.append(samples)
    return np.concatenate(pieces)[: int(seconds * SAMPLE_RATE)]


def cost(part: Callable[[], object], repeats: int, share: int = 1) -> dict[str, float]:
    part()
    rows = []
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        part()
        rows.append((1e3 * (time.process_time() - cpu), 1e3 * (time.perf_counter() - wall)))
    cpu, wall = (statistics.median(column) / share for column in zip(*rows, strict=True))
    return {"cpu_ms": round(cpu, 2), "wall_ms": round(wall, 2)}


def decode_parts(recognizer: WhisperRecognizer, samples: np.ndarray) -> Parts:
    """The parts of one decode of ``samples``, and the whole of it with each kind of draft."""
    decoding = recognizer.decoding
    network = decoding.passes.network
    model, mel = network.model, network.mel
    padded = -(-(len(samples) + PADDING) // LENGTH_STEP) * LENGTH_STEP
    audio = torch.zeros(1, padded)
    audio[0, : len(samples)] = torch.from_numpy(samples)
    language = recognizer.languages[0]
    request = partial(Request, samples, language)
    hypothesis = decoding([request()])[0]
    earlier = decoding([Request(samples[:-GROWTH], language)])[0]
    features = mel(audio)
    vectors = model.encoder(features)
    cache = model.decoder.start(vectors, None, 64)
    count = len(hypothesis.tokens)
    states = torch.randn(1, 32, model.dims.text_width)

    def tokens_through(n: int) -> object:
        tokens, before = torch.full((1, n), 1000), torch.tensor([8])
        return model.decoder(tokens, before, cache, 8 + n, network.heads)

    return {
        "log-mel": lambda: mel(audio),
        "encoder": lambda: model.encoder(features),
        "cross k/v": lambda: model.decoder.start(vectors, None, 64),
        "pass 1": lambda: tokens_through(1),
        "pass 12": lambda: tokens_through(12),
        "words 1": lambda: model.decoder.logits(states[:, :1]),
        "words 12": lambda: model.decoder.logits(states[:, :12]),
        "alignment": lambda: token_frames(
            hypothesis.scores[:, : hypothesis.skip + count + 1], hypothesis.skip
        ),
        f"scratch ({count})": lambda: decoding([request()]),
        "grown": lambda: decoding([request(earlier.tokens)]),
        "again": lambda: decoding([request(hypothesis.tokens)]),
    }


def batches(recognizer: WhisperRecognizer, samples: np.ndarray, seconds: float) -> Parts:
    """Calls with 1 to 8 excerpts, all different."""
    decoding, language = recognizer.decoding, recognizer.languages[0]
    length = int(seconds * SAMPLE_RATE)
    requests = []
    for at in range(0, 8 * SAMPLE_RATE, SAMPLE_RATE):
        excerpt = samples[at : at + length]
        earlier = decoding([Request(excerpt[:-GROWTH], language)])[0]
        requests.append(Request(excerpt, language, earlier.tokens))
    return {f"batch {n}": partial(decoding, requests[:n]) for n in (1, 2, 4, 8)}


def listen_parts(recognizer: WhisperRecognizer, samples: np.ndarray) -> Parts:
    """One step of listening, 96 ms of n streams, and the end of a turn judged for n of them."""
    vad, turn = recognizer._vad, recognizer._smart_turn
    parts: Parts = {}
    for n in (1, 4, 10):
        frames = torch.from_numpy(samples[: n * 3 * VAD_FRAME]).view(n, 3, VAD_FRAME)
        state = vad.initial_state(n)
        parts[f"speech detector, {n}"] = partial(vad.listen, frames, state)
    for n in (1, 2):
        parts[f"Smart Turn, {n}"] = partial(turn.probability, [samples[: 8 * SAMPLE_RATE]] * n)
    return parts


def measure(arguments: argparse.Namespace, rows: list[dict]) -> None:
    settings = RecognizerSettings(arguments.model, device="cpu", threads=arguments.threads)
    recognizer = create(settings)
    recognizer.warm_up()
    lengths = [float(part) for part in arguments.seconds.split(",")]
    samples = speech(arguments.evaldata, max(lengths) + 8.0, "en")
    with torch.inference_mode():
        for seconds in lengths:
            parts = decode_parts(recognizer, samples[: int(seconds * SAMPLE_RATE)])
            for name, part in parts.items():
                rows.append({"s": seconds, "part": name, **cost(part, arguments.repeats)})
                show(rows[-1])
            for name, part in batches(recognizer, samples, seconds).items():
                share, repeats = int(name.split()[1]), max(1, arguments.repeats // 3)
                rows.append({"s": seconds, "part": name, **cost(part, repeats, share)})
                show(rows[-1])
        for name, part in listen_parts(recognizer, samples).items():
            rows.append({"s": "", "part": name, **cost(part, arguments.repeats)})
            show(rows[-1])


def show(row: dict) -> None:
    print("{s:>4} {part:<20} {cpu_ms:8.2f} {wall_ms:8.2f}".format(**row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--seconds", default="1,2,4,8,15")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    rows: list[dict] = []
    thread = threading.Thread(target=measure, args=(arguments, rows))
    thread.start()
    thread.join()
    if arguments.json:
        result = {**conditions(), "torch": torch.__version__, "whisper_costs": rows}
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
