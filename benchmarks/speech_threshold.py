"""The probability at which a frame counts as speech for the recogniser: first words of quiet
recordings saved, against words made up where nobody speaks.

    python -m benchmarks.speech_threshold [--evaldata ../shared/evaldata] [--model tiny.en]
        [--thresholds 0.5,0.4,0.3,0.2] [--levels 0,-20,-30,-40] [--speakers 24] [--json FILE]

One clip of each speaker of English (10 s at most), as it is and made quieter by so many dB in
16-bit samples, and all clips without speech. Speakers are in two halves: a threshold is chosen on
the first and judged on the second. A first word is right if the transcript begins with it.
"""

import argparse
import json
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmarks.conditions import conditions, publish
from benchmarks.stepping import step_until_done
from benchmarks.whisper_quality import TAIL, load_audio, load_scorer
from ssasr.engine.recognizer import RecognizerSettings, SegmentStart, Work
from ssasr.engine.whisper.recognizer import WhisperRecognizer, create
from ssasr.protocol.recognition import StreamOptions

LONGEST = 10.0
"""Seconds of a clip of speech."""
SPOKEN = ("read_en", "spontaneous_en", "telephony_8k_en")
LEVELS_OF_NOISE = (0, -20)
"""dB at which the clips without speech are heard."""


def quieter(samples: np.ndarray, decibels: int) -> np.ndarray:
    """As 16-bit samples have it."""
    scaled = np.round(samples * 10 ** (decibels / 20) * 32_767)
    return (scaled / 32_768).astype(np.float32)


def transcribed(recognizer: WhisperRecognizer, samples: np.ndarray, threshold: float) -> str:
    audio = np.concatenate([samples, np.zeros(TAIL, np.float32)])
    state = recognizer.new_state(StreamOptions(vad_threshold=threshold), SegmentStart(0))
    chunk, answers = recognizer.chunk, []
    for at in range(0, len(audio), chunk):
        last = at + chunk >= len(audio)
        work = Work(state, audio[at : at + chunk], len(audio) if last else None)
        answers = step_until_done(recognizer, work) or answers
    return " ".join(word.text for word in answers[-1].words)


def chosen(evaldata: Path, speakers: int) -> tuple[list[dict], list[dict]]:
    """A clip of each of so many speakers, and the clips without speech."""
    lines = (evaldata / "manifest.dev.jsonl").read_text().splitlines()
    clips = [json.loads(line) for line in lines]
    spoken: dict[str, dict] = {}
    for clip in sorted(clips, key=lambda clip: zlib.crc32(clip["id"].encode())):
        if clip["category"] in SPOKEN and clip["reference"] and clip["duration"] <= LONGEST:
            spoken.setdefault(clip["speaker"], clip)
    return list(spoken.values())[:speakers], [c for c in clips if c["reference"] == ""]


def half(clip: dict) -> str:
    return "chosen_on" if zlib.crc32(clip["speaker"].encode()) % 2 else "judged_on"


def speech(
    recognizer: WhisperRecognizer, clips: list[dict], evaldata: Path, levels, thresholds
) -> dict:
    score = load_scorer(evaldata)
    counts: dict = defaultdict(lambda: defaultdict(int))
    for clip in clips:
        samples = load_audio(evaldata / clip["file"])
        reference = score.norm(clip["reference"], "en")
        for level in levels:
            quiet = quieter(samples, level)
            for threshold in thresholds:
                said = score.norm(transcribed(recognizer, quiet, threshold), "en")
                count = counts[f"{half(clip)} {level} dB {threshold}"]
                count["clips"] += 1
                count["first_words"] += said[:1] == reference[:1]
                count["words"] += len(reference)
                count["errors"] += score.dist(reference, said)
    return {name: dict(count) for name, count in sorted(counts.items())}


def totals(spoken: dict, made_up: dict) -> dict:
    """By threshold, over all levels and both halves: first words right, errors, words made up."""
    sums: dict = defaultdict(lambda: defaultdict(int))
    for name, count in spoken.items():
        for what in ("clips", "first_words", "words", "errors"):
            sums[name.rpartition(" ")[2]][what] += count[what]
    for name, words in made_up.items():
        sums[name.rpartition(" ")[2]]["made_up"] += words
    return {
        "first_words_right": {at: f"{n['first_words']} of {n['clips']}" for at, n in sums.items()},
        "errors": {at: f"{n['errors']} of {n['words']}" for at, n in sums.items()},
        "made_up": {at: n["made_up"] for at, n in sums.items()},
    }


def no_speech(recognizer: WhisperRecognizer, clips: list[dict], evaldata: Path, thresholds) -> dict:
    made_up: dict = defaultdict(int)
    for clip in clips:
        samples = load_audio(evaldata / clip["file"])
        for level in LEVELS_OF_NOISE:
            for threshold in thresholds:
                words = transcribed(recognizer, quieter(samples, level), threshold).split()
                made_up[f"{clip['category']} {level} dB {threshold}"] += len(words)
    return dict(sorted(made_up.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--thresholds", default="0.5,0.4,0.3,0.2")
    parser.add_argument("--levels", default="0,-20,-30,-40")
    parser.add_argument("--speakers", type=int, default=24)
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    recognizer = create(RecognizerSettings(given.model, device="cpu", threads=1))
    thresholds = [float(each) for each in given.thresholds.split(",")]
    levels = [int(each) for each in given.levels.split(",")]
    clips, silent = chosen(given.evaldata, given.speakers)
    result = {
        "speech": speech(recognizer, clips, given.evaldata, levels, thresholds),
        "no_speech_words": no_speech(recognizer, silent, given.evaldata, thresholds),
        "no_speech_minutes": round(sum(clip["duration"] for clip in silent) / 60, 2),
    }
    summary = totals(result["speech"], result["no_speech_words"])
    publish({**conditions(), "model": given.model, "by_threshold": summary, **result}, given.json)


if __name__ == "__main__":
    main()
