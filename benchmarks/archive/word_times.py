"""Word times of a stream against a forced alignment of the transcript by another recogniser.

    python -m benchmarks.archive.word_times [--evaldata ../shared/evaldata]
        [--model tiny.en] [--clips 40]
        [--half dev|held|all] [--times FILE] [--json FILE]

The reference is CMU PocketSphinx (GMM-HMM, 10 ms frames; ``pip install pocketsphinx``, the wheel
has the model and the dictionary), which is given the transcript and knows nothing of Whisper. It is
no hand alignment: its own error is some 20 to 30 ms. Clips with a word that its dictionary lacks
are left out. A word counts when an alignment of the texts with the fewest errors pairs it with the
same word; the stream's words are final ones, from the streaming path. ``--times`` also writes the
reference times, for ``peers``.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from pocketsphinx import Decoder

from benchmarks.conditions import conditions
from benchmarks.whisper_quality import SAMPLE_RATE, chosen, load_audio, pairs, stream
from ssasr.engine.recognizer import RecognizerSettings
from ssasr.engine.whisper.recognizer import create
from ssasr.protocol.recognition import StreamOptions

FRAME_S = 0.01


def aligned(decoder: Decoder, samples: np.ndarray, text: str) -> list[tuple[str, float, float]]:
    """(word, start s, end s) of every word of the transcript; [] if it cannot be aligned."""
    words = text.lower().replace("-", " ").split()
    words = [word.strip(".,!?;:\"'()") for word in words]
    if not words or any(decoder.lookup_word(word) is None for word in words):
        return []
    try:
        decoder.set_align_text(" ".join(words))
        decoder.start_utt()
        pcm = (np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes()
        decoder.process_raw(pcm, no_search=False, full_utt=True)
        decoder.end_utt()
    except RuntimeError:  # the beam lost the path
        return []
    found = [
        (segment.word.partition("(")[0], segment.start_frame * FRAME_S,
         (segment.end_frame + 1) * FRAME_S)
        for segment in decoder.seg() or []
        if segment.word[0] not in "<[+"
    ]  # fmt: skip
    return found if [word for word, _, _ in found] == words else []


def plain(word: str) -> str:
    return "".join(character for character in word.casefold() if character.isalnum())


def errors(truth, words) -> tuple[list[float], list[float]]:
    """Signed errors of starts and of ends, in seconds."""
    matched = pairs([plain(word) for word, _, _ in truth], [plain(word.text) for word in words])
    starts = [words[j].start / SAMPLE_RATE - truth[i][1] for i, j in matched]
    return starts, [words[j].end / SAMPLE_RATE - truth[i][2] for i, j in matched]


def row(name: str, values: list[float]) -> dict:
    size = np.abs(values)
    p50, p95 = np.percentile(size, [50, 95])
    return {f"{name}_p50_ms": round(1e3 * p50), f"{name}_p95_ms": round(1e3 * p95),
            f"{name}_median_signed_ms": round(1e3 * float(np.median(values)))}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--categories", default="read_en,spontaneous_en")
    parser.add_argument("--clips", type=int, default=40, help="that can be aligned")
    parser.add_argument("--half", choices=("dev", "held", "all"), default="all")
    parser.add_argument("--times", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    wanted, arguments.clips, arguments.part = arguments.clips, None, "0/1"
    recognizer = create(RecognizerSettings(arguments.model, device="cpu", threads=1))
    decoder = Decoder(lm=None, loglevel="FATAL")
    truth, starts, ends = {}, [], []
    for clip in chosen(arguments, english=True):
        samples = load_audio(arguments.evaldata / clip["file"])
        reference = aligned(decoder, samples, clip["reference"])
        if not reference:
            continue
        truth[clip["id"]] = reference
        if not arguments.times:
            run = stream(recognizer, samples, StreamOptions(languages=("en",)), time.process_time)
            more, last = errors(reference, run.words)
            starts += more
            ends += last
        if len(truth) == wanted:
            break
    if arguments.times:
        arguments.times.write_text(json.dumps(truth))
        print(f"{len(truth)} clips aligned")
        return
    result = {**conditions(), "word_times": True, "clips": len(truth),
              "words": len(starts), **row("start", starts), **row("end", ends)}  # fmt: skip
    print("  ".join(f"{key} {value}" for key, value in result.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
