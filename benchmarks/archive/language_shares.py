"""How far Whisper's language detection can be trusted after how much speech.

    python -m benchmarks.archive.language_shares [--evaldata ../shared/evaldata]
        [--model multilingual]
        [--half dev|held|all] [--english 40] [--prompts LANGUAGE=FOLDER ...] [--json FILE]

Each clip is heard as a segment hears it: an excerpt from just before the first speech to the moment
at which so much speech has been heard, decoded without a language. For each amount: how often the
likeliest language is right, and the same of those whose share is at least a threshold. Then what
``segment`` makes of it: asked again and again until a share reaches the threshold, and at last
taken as it is. English would outnumber the others; ``--english`` clips of it at most.

With ``--prompts``, recordings that are in no evaluation folder instead, 30 of each language: how
many are right when nothing was spoken before, or their own language, or (mean) another of them. In
the Debian packages ``asterisk-core-sounds-{en,es,fr,it,ru}-wav`` are such.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch

from benchmarks.conditions import conditions, publish
from benchmarks.whisper_quality import clips_of, load_audio
from ssasr.engine.recognizer import RecognizerSettings
from ssasr.engine.vad import SileroVad
from ssasr.engine.whisper.decoding import Request
from ssasr.engine.whisper.language import ASK_AGAIN, SURE_AFTER, SURE_ANYHOW
from ssasr.engine.whisper.placement import LEAD
from ssasr.engine.whisper.recognizer import create
from ssasr.engine.whisper.segment import CHUNK
from ssasr.engine.whisper.speech_buffer import SpeechBuffer
from ssasr.models import catalogue
from ssasr.protocol.recognition import SAMPLE_RATE

EARLY = SURE_AFTER // 2
AMOUNTS = (EARLY, *range(SURE_AFTER, SURE_ANYHOW + 1, ASK_AGAIN))
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
LONGEST = 28.0
BEFORE = (EARLY, SURE_AFTER, SURE_AFTER + ASK_AGAIN, 2 * SURE_AFTER)
"""Amounts of speech at which it is asked what the language before is worth."""
PROMPTS = 30
SHORTEST = 24_000
"""Bytes of a recording that is no single word."""


def excerpts(vad: SileroVad, samples: np.ndarray) -> dict[int, np.ndarray]:
    """Amount of speech heard -> what a segment would decode then."""
    device = torch.device("cpu")
    frames = samples[: len(samples) // 512 * 512].reshape(1, -1, 512)
    with torch.inference_mode():
        speech, _ = vad.detect(torch.from_numpy(frames), vad.initial_state(1, device))
    speech_buffer = SpeechBuffer(0)
    speech_buffer.receive(samples, speech[0].tolist())
    found: dict[int, np.ndarray] = {}
    begin = None
    for position in range(CHUNK, len(samples) + 1, CHUNK):
        speech_buffer.advance(position)
        if begin is None and speech_buffer.spoken:
            begin = max(0, position - CHUNK - LEAD)
        for amount in AMOUNTS:
            if speech_buffer.spoken >= amount:
                found.setdefault(amount, samples[begin:position])
    return found


def chosen(given: argparse.Namespace, languages: tuple[str, ...]) -> list[dict]:
    clips = [clip for clip in clips_of(given.evaldata, given.half) if clip["reference"]]
    clips = [c for c in clips if c["language"] in languages and c["duration"] <= LONGEST]
    english = [clip for clip in clips if clip["language"] == "en"][: given.english]
    return [clip for clip in clips if clip["language"] != "en"] + english


def by_amount(heard: list[dict]) -> list[dict]:
    rows = []
    for amount in AMOUNTS:
        guesses = [clip["guesses"][amount] for clip in heard if amount in clip["guesses"]]
        if not guesses:
            continue
        row = {"speech_s": amount / SAMPLE_RATE, "clips": len(guesses)}
        for threshold in (0.0, *THRESHOLDS):
            sure = [right for right, share in guesses if share >= threshold]
            row[f"at_least_{threshold}"] = f"{sum(sure)} of {len(sure)}"
        rows.append(row)
    return rows


def settled(heard: list[dict], threshold: float) -> dict:
    """What comes of asking until the threshold is reached."""
    wrong, when = 0, []
    for clip in heard:
        asked = [(at, *guess) for at, guess in clip["guesses"].items() if at >= SURE_AFTER]
        if asked:
            at, right, _ = next((one for one in asked if one[2] >= threshold), asked[-1])
            wrong += not right
            when.append(at / SAMPLE_RATE)
    return {"threshold": threshold, "clips": len(when), "wrong": wrong,
            "speech_s_mean": round(float(np.mean(when)), 2),
            "at_once": sum(at == SURE_AFTER / SAMPLE_RATE for at in when)}  # fmt: skip


def recordings(given: argparse.Namespace) -> list[tuple[str, Path]]:
    """Drawn from the folders, without those that the evaluation folder has from the same source."""
    manifest = (given.evaldata / "manifest.dev.jsonl").read_text("utf-8").splitlines()
    used = {Path(json.loads(line).get("source_path") or "").stem for line in manifest}
    chance, drawn = random.Random(7), []
    for entry in given.prompts:
        language, _, folder = entry.partition("=")
        paths = [path for path in sorted(Path(folder).glob("*.wav")) if path.stem not in used]
        paths = [path for path in paths if path.stat().st_size > SHORTEST]
        drawn += [(language, path) for path in chance.sample(paths, min(PROMPTS, len(paths)))]
    return drawn


def worth_of_before(given: argparse.Namespace, decoding, vad: SileroVad) -> list[dict]:
    drawn = recordings(given)
    languages = sorted({language for language, _ in drawn})
    counts = {at: {"recordings": 0, "alone": 0, "same": 0, "other": 0} for at in BEFORE}
    for language, path in drawn:
        for amount, samples in excerpts(vad, load_audio(path)).items():
            if amount not in BEFORE:
                continue
            before = [None, language, *(name for name in languages if name != language)]
            asked = [Request(samples, None, language_before=name) for name in before]
            with torch.inference_mode():
                alone, same, *others = [one.language == language for one in decoding(asked)]
            row = counts[amount]
            row["recordings"] += 1
            row["alone"] += alone
            row["same"] += same
            row["other"] += sum(others) / len(others)
    return [{"speech_s": at / SAMPLE_RATE, **row, "other": round(row["other"], 1)}
            for at, row in counts.items()]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--model", default="multilingual")
    parser.add_argument("--half", choices=("dev", "held", "all"), default="dev")
    parser.add_argument("--english", type=int, default=40)
    parser.add_argument("--prompts", nargs="+", metavar="LANGUAGE=FOLDER", default=())
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    recognizer = create(RecognizerSettings(given.model, device="cpu", threads=1))
    vad = SileroVad.load(catalogue.resolve("silero-vad", pull=False).weights, torch.device("cpu"))
    if given.prompts:
        rows = worth_of_before(given, recognizer.decoding, vad)
        publish({**conditions(), "model": given.model, "language_before": rows}, given.json)
        return
    heard = []
    for clip in chosen(given, recognizer.languages):
        guesses = {}
        for amount, samples in excerpts(vad, load_audio(given.evaldata / clip["file"])).items():
            with torch.inference_mode():
                found = recognizer.decoding([Request(samples, None)])[0]
            guesses[amount] = (found.language == clip["language"], found.language_confidence)
        heard.append({"language": clip["language"], "guesses": guesses})
    result = {}
    for name, part in (
        ("english", [clip for clip in heard if clip["language"] == "en"]),
        ("others", [clip for clip in heard if clip["language"] != "en"]),
    ):
        policies = [settled(part, threshold) for threshold in THRESHOLDS]
        result[name] = {"by_speech": by_amount(part), "settled": policies}
    publish({**conditions(), "model": given.model, "language_shares": result}, given.json)


if __name__ == "__main__":
    main()
