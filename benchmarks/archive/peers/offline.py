"""Texts of the English clips by an offline decoder that is not ours, for ``whisper_sessions``.

    peers/environment.sh /tmp/peers
    /tmp/peers/bin/python offline.py --model ~/.cache/ssasr/models/tiny.en --texts /tmp/offline.json
        [--evaldata ../shared/evaldata]

faster-whisper with ssasr's own weights: float32, greedy, one thread, no voice activity, no text of
the window before. Goes on where a run before it stopped.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile
import soxr
from faster_whisper import WhisperModel

RATE = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts", type=Path, required=True)
    given = parser.parse_args()
    model = WhisperModel(given.model, device="cpu", compute_type="float32", cpu_threads=1)
    texts = json.loads(given.texts.read_text("utf-8")) if given.texts.exists() else {}
    lines = (given.evaldata / "manifest.dev.jsonl").read_text("utf-8").splitlines()
    for clip in map(json.loads, lines):
        if clip["language"] != "en" or clip["id"] in texts:
            continue
        samples, rate = soundfile.read(
            given.evaldata / clip["file"], dtype="float32", always_2d=True
        )
        mono = samples.mean(axis=1)
        mono = mono if rate == RATE else soxr.resample(mono, rate, RATE)
        segments, _ = model.transcribe(
            mono.astype(np.float32), language="en", beam_size=1, temperature=0.0,
            condition_on_previous_text=False,
        )  # fmt: skip
        texts[clip["id"]] = " ".join(segment.text.strip() for segment in segments)
        given.texts.write_text(json.dumps(texts, indent=1), "utf-8")


if __name__ == "__main__":
    main()
