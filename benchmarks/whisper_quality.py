"""Quality and cost of one stream: the recogniser driven directly, audio in real time on a clock of
its own.

    python -m benchmarks.whisper_quality [--evaldata ../shared/evaldata] [--model tiny.en]
        [--categories read_en,spontaneous_en] [--clips 20] [--threads 1] [--clock wall|cpu]
        [--half dev|held|all] [--part k/n] [--json FILE]

The clock advances to the arrival of each chunk, and by the measured time of each step, so lags are
those of a machine that does nothing else; with ``--clock cpu`` (one thread) by the CPU time that
the step used, which other work on the machine disturbs less. Offline is the whole
clip (30 s at most) with Whisper's full context and the same weights, told the language; with
``--detect-language`` also not told it (``offline_detected_wer``). Lags are of all words that were
final in the end, and (``right_…``) of those among them that were really said, as
``peers/compare.py`` has them. The scorer and normaliser are the evaluation folder's (needs
num2words and zhconv).
"""

import argparse
import importlib.util
import json
import random
import time
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from attrs import define, field

from benchmarks.conditions import conditions
from benchmarks.stepping import step_until_done
from ssasr.engine.recognizer import RecognizerSettings, SegmentStart, Work
from ssasr.engine.whisper.decoding import Request
from ssasr.engine.whisper.recognizer import WhisperRecognizer, create
from ssasr.protocol.modes import MODES
from ssasr.protocol.recognition import SAMPLE_RATE, StreamOptions

TAIL = SAMPLE_RATE
"""Silence after each clip, in which a session would find the end of the turn."""
BINS = 10


@define
class Totals:
    """Sums of one category."""

    clips: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    errors: int = 0
    offline_errors: int = 0
    offline_detected_errors: int | None = None
    words: int = 0
    said: int = 0
    broken: int = 0
    first: list[float] = field(factory=list)
    right_first: list[float] = field(factory=list)
    final: list[float] = field(factory=list)
    right_final: list[float] = field(factory=list)
    ttfs: list[float] = field(factory=list)
    confidence: list[tuple[float, bool]] = field(factory=list)


@define
class Run:
    """What one stream said and when."""

    words: tuple = ()
    first: dict = field(factory=dict)
    final: dict = field(factory=dict)
    broken: int = 0
    cpu: float = 0.0
    ttfs: float = 0.0


def load_scorer(folder: Path):
    spec = importlib.util.spec_from_file_location("score", folder / "score.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_audio(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    return mono.astype(np.float32)


def stream(
    recognizer: WhisperRecognizer, samples: np.ndarray, options: StreamOptions, measure
) -> Run:
    """Word receipt times are in seconds of the virtual clock."""
    audio = np.concatenate([samples, np.zeros(TAIL, np.float32)])
    run, clock, told = Run(), 0.0, ()
    state = recognizer.new_state(options, SegmentStart(0))
    chunk = recognizer.chunk
    whole = len(audio) // chunk * chunk
    for at in range(0, whole + 1, chunk):
        ended = at == whole
        arrived = (len(audio) if ended else at + chunk) / SAMPLE_RATE
        work = Work(state, audio[at : at + chunk], len(audio) if ended else None)
        begun, cpu = measure(), time.process_time()
        heard = step_until_done(recognizer, work)
        run.cpu += time.process_time() - cpu
        clock = max(clock, arrived) + measure() - begun
        words = heard[-1].words
        run.broken += words[: len(told)] != told
        told = tuple(word for word in words if word.final)
        for number, word in enumerate(words):
            run.first.setdefault((number, word.text.casefold().strip(".,!?;:")), clock)
            if word.final:
                run.final.setdefault(number, clock)
    run.ttfs = clock - len(audio) / SAMPLE_RATE
    run.words = words
    return run


def offline(recognizer: WhisperRecognizer, samples: np.ndarray, language: str | None) -> str:
    """``language``: None to detect it."""
    with torch.inference_mode():
        request = Request(samples[: 30 * SAMPLE_RATE], language)
        hypothesis = recognizer.decoding([request], padding=30 * SAMPLE_RATE)[0]
    return recognizer.vocabulary.tokenizer.decode(hypothesis.tokens)


def pairs(reference: list[str], hypothesis: list[str]) -> list[tuple[int, int]]:
    """Equal words of an alignment with the fewest errors: (index, index)."""
    table = np.zeros((len(reference) + 1, len(hypothesis) + 1), dtype=int)
    table[:, 0], table[0] = range(len(reference) + 1), range(len(hypothesis) + 1)
    for i, word in enumerate(reference, 1):
        for j, other in enumerate(hypothesis, 1):
            table[i, j] = min(
                table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (word != other)
            )
    found, i, j = [], len(reference), len(hypothesis)
    while i and j:
        if table[i, j] == table[i - 1, j - 1] + (reference[i - 1] != hypothesis[j - 1]):
            i, j = i - 1, j - 1
            if reference[i] == hypothesis[j]:
                found.append((i, j))
        elif table[i, j] == table[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1
    return found[::-1]


def correct_words(reference: list[str], hypothesis: list[str]) -> list[bool]:
    """Which words of the hypothesis that alignment finds right."""
    right = {index for _, index in pairs(reference, hypothesis)}
    return [index in right for index in range(len(hypothesis))]


def add(
    totals: Totals, clip: dict, run: Run, offline_text: str, score, detected: str | None = None
) -> None:
    """``detected``: what offline decoding that is not told the language makes of the clip."""
    language = "en" if clip["language"] == "none" else clip["language"]
    reference = score.norm(clip["reference"], language)
    joiner = "" if language in score.CJK else " "
    hypothesis = score.norm(joiner.join(word.text for word in run.words), language)
    totals.clips += 1
    totals.seconds += clip["duration"] + TAIL / SAMPLE_RATE
    totals.cpu += run.cpu
    totals.said += len(run.words)
    totals.broken += run.broken
    totals.words += len(reference)
    totals.errors += score.dist(reference, hypothesis)
    totals.offline_errors += score.dist(reference, score.norm(offline_text, language))
    if detected is not None:
        errors = score.dist(reference, score.norm(detected, language))
        totals.offline_detected_errors = (totals.offline_detected_errors or 0) + errors
    totals.ttfs.append(run.ttfs)
    each = [score.norm(word.text, language) for word in run.words]
    right = iter(correct_words(reference, [part for parts in each for part in parts]))
    for number, (word, parts) in enumerate(zip(run.words, each, strict=True)):
        end = word.end / SAMPLE_RATE
        first = run.first[number, word.text.casefold().strip(".,!?;:")] - end
        final = run.final[number] - end
        totals.first.append(first)
        totals.final.append(final)
        marks = [next(right) for _ in parts]
        if marks:
            totals.confidence.append((word.confidence, all(marks)))
        if marks and all(marks):
            totals.right_first.append(first)
            totals.right_final.append(final)


def merge(parts: list[Totals]) -> Totals:
    whole = Totals()
    for part in parts:
        for name in ("clips", "seconds", "cpu", "errors", "offline_errors", "words", "said"):
            setattr(whole, name, getattr(whole, name) + getattr(part, name))
        if part.offline_detected_errors is not None:
            before = whole.offline_detected_errors or 0
            whole.offline_detected_errors = before + part.offline_detected_errors
        whole.broken += part.broken
        for name in ("first", "final", "right_first", "right_final", "ttfs", "confidence"):
            getattr(whole, name).extend(getattr(part, name))
    return whole


def report(name: str, totals: Totals) -> dict:
    row = {"category": name, "clips": totals.clips, "audio_s": round(totals.seconds, 1)}
    if totals.words:
        row["wer"] = round(100 * totals.errors / totals.words, 2)
        row["offline_wer"] = round(100 * totals.offline_errors / totals.words, 2)
        row["ratio"] = round(totals.errors / max(1, totals.offline_errors), 3)
        if (others := totals.offline_detected_errors) is not None:
            row["offline_detected_wer"] = round(100 * others / totals.words, 2)
            row["ratio_detected"] = round(totals.errors / max(1, others), 3)
    else:
        row["words_per_minute"] = round(60 * totals.said / totals.seconds, 2)
    row["final_words_broken"] = totals.broken
    for key in ("first", "final", "right_first", "right_final", "ttfs"):
        if values := getattr(totals, key):
            row[f"{key}_p50"], row[f"{key}_p95"] = np.percentile(values, [50, 95]).round(3).tolist()
    row["cpu_per_s"] = round(totals.cpu / totals.seconds, 3)
    return row


def calibration(pairs: list[tuple[float, bool]]) -> list[dict]:
    rows = []
    for number in range(BINS):
        low, high = number / BINS, (number + 1) / BINS
        inside = [p for p in pairs if low <= p[0] < high or (number == BINS - 1 and p[0] >= high)]
        if inside:
            claimed, right = np.mean([p[0] for p in inside]), np.mean([p[1] for p in inside])
            rows.append({"bin": f"{low:.1f}", "words": len(inside), "claimed": round(claimed, 3),
                         "right": round(right, 3)})  # fmt: skip
    return rows


def held_out(clip: dict) -> bool:
    """Half of the speakers are left alone while settings are chosen."""
    return zlib.crc32(str(clip.get("split_group") or clip["id"]).encode()) % 2 == 1


def clips_of(evaldata: Path, half: str) -> list[dict]:
    """Those of the manifest with a reference, be it empty, in one half of the speakers or all."""
    lines = (evaldata / "manifest.dev.jsonl").read_text("utf-8").splitlines()
    clips = [clip for clip in map(json.loads, lines) if clip["reference"] is not None]
    return [clip for clip in clips if half == "all" or held_out(clip) == (half == "held")]


def chosen(arguments: argparse.Namespace, english: bool) -> list[dict]:
    clips = clips_of(arguments.evaldata, arguments.half)
    if english:
        clips = [clip for clip in clips if clip["language"] in ("en", "none")]
    if arguments.categories:
        wanted = arguments.categories.split(",")
        clips = [clip for clip in clips if clip["category"] in wanted]
    random.Random(3).shuffle(clips)
    first, parts = map(int, arguments.part.split("/"))
    return clips[: arguments.clips][first::parts]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--categories", default="")
    parser.add_argument("--clips", type=int, default=None)
    parser.add_argument("--half", choices=("dev", "held", "all"), default="all",
                        help="settings are chosen on one half of the speakers only")  # fmt: skip
    parser.add_argument("--part", default="0/1", help="k/n: every n-th of the clips from k on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--detect-language", action="store_true", help="do not force it")
    parser.add_argument("--mode", choices=list(MODES), default=None)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.clock == "cpu" and arguments.threads != 1:
        parser.error("--clock cpu needs --threads 1: it adds up what threads use side by side")
    return arguments


def main() -> None:
    arguments = parse()
    measure = time.process_time if arguments.clock == "cpu" else time.perf_counter
    score = load_scorer(arguments.evaldata)
    settings = RecognizerSettings(arguments.model, device="cpu", threads=arguments.threads)
    recognizer = create(settings)
    recognizer.warm_up()
    totals: dict[str, Totals] = defaultdict(Totals)
    for clip in chosen(arguments, english=recognizer.languages == ("en",)):
        samples = load_audio(arguments.evaldata / clip["file"])
        known = clip["language"] if clip["language"] in recognizer.languages else "en"
        forced = () if arguments.detect_language else (known,)
        options = StreamOptions(languages=forced, mode=arguments.mode)
        run = stream(recognizer, samples, options, measure)
        text = offline(recognizer, samples, known)
        detected = offline(recognizer, samples, None) if arguments.detect_language else None
        add(totals[clip["category"]], clip, run, text, score, detected)
    rows = [report(name, totals[name]) for name in sorted(totals)]
    speech = [part for part in totals.values() if part.words]
    if len(speech) > 1:
        rows.append(report("ALL with speech", merge(speech)))
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    reliability = calibration(merge(speech).confidence)
    for row in reliability:
        print("confidence", "  ".join(f"{key} {value}" for key, value in row.items()))
    if arguments.json:
        result = {**conditions(), "torch": torch.__version__, "whisper_quality": rows,
                  "reliability": reliability}  # fmt: skip
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
