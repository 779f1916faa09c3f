"""An hour of digital silence as one stream: how many words, at what cost.

    python -m benchmarks.archive.whisper_silence [--model tiny.en] [--minutes 60] [--json FILE]

Zeros, chunk by chunk, into a segment that no turn ends; every answer on the way is looked at, not
only the last.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks.conditions import conditions, publish
from ssasr.engine.recognizer import RecognizerSettings, SegmentStart, Work
from ssasr.engine.whisper.recognizer import create
from ssasr.protocol.recognition import SAMPLE_RATE, StreamOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    recognizer = create(RecognizerSettings(given.model, device="cpu", threads=1))
    state, chunk = recognizer.new_state(StreamOptions(), SegmentStart(0)), recognizer.chunk
    silence, count = np.zeros(chunk, np.float32), given.minutes * 60 * SAMPLE_RATE // chunk
    begun, words, probability = time.process_time(), 0, 0.0
    for number in range(1, count + 1):
        final_at = number * chunk if number == count else None
        outcome = recognizer.step([Work(state, silence, final_at)])[0]
        assert not outcome.unfinished, "there is nothing to decode in silence"
        for heard in outcome.results:
            words = max(words, len(heard.words))
            probability = max(probability, *heard.speech, 0.0)
    result = {
        "words": words,
        "highest_speech_probability": round(probability, 4),
        "cpu_per_s": round((time.process_time() - begun) / (count * chunk / SAMPLE_RATE), 4),
    }
    publish(
        {**conditions(), "model": given.model, "minutes": given.minutes, "silence": result},
        given.json,
    )


if __name__ == "__main__":
    main()
