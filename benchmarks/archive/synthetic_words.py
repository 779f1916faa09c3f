"""Word times where the truth is known: sentences of a speech synthesiser that says where each word
begins.

    python -m benchmarks.archive.synthetic_words [--model tiny.en] [--threads 1] [--json FILE]

Needs eSpeak NG's library (Debian's ``libespeak-ng1``) and ``pip install pocketsphinx``, whose
forced alignment is measured beside: it is the reference for real speech (``word_times.py``). The
sentences are the first of the Harvard list (IEEE, 1969), in four voices at three speeds. The first
word of each is left out, since silence before it tells where it begins.
"""

import argparse
import ctypes
import json
import time
from pathlib import Path

import numpy as np
import soxr
from attrs import frozen
from pocketsphinx import Decoder

from benchmarks.archive.word_times import aligned, errors
from benchmarks.conditions import conditions
from benchmarks.whisper_quality import SAMPLE_RATE, stream
from ssasr.engine.recognizer import RecognizerSettings
from ssasr.engine.whisper.recognizer import create
from ssasr.protocol.recognition import StreamOptions

SENTENCES = """\
The birch canoe slid on the smooth planks.
Glue the sheet to the dark blue background.
It is easy to tell the depth of a well.
These days a chicken leg is a rare dish.
Rice is often served in round bowls.
The juice of lemons makes fine punch.
The box was thrown beside the parked truck.
The hogs were fed chopped corn and garbage.
Four hours of steady work faced us.
A large size in stockings is hard to sell.
The boy was there when the sun rose.
A rod is used to catch pink salmon.
The source of the huge river is the clear spring.
Kick the ball straight and follow through.
Help the woman get back to her feet.
A pot of tea helps to pass the evening.
Smoky fires lack flame and heat.
The soft cushion broke the man's fall.
The salt breeze came across from the sea.
The girl at the booth sold fifty bonds.""".splitlines()
VOICES = (b"en-us", b"en-gb", b"en-us+m3", b"en-us+f2")
SPEEDS = (140, 150, 160)
NOISE = 1e-3


class _Event(ctypes.Structure):
    """``espeak_EVENT`` of eSpeak NG 1.51; ``id`` is a union of eight bytes."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
RETRIEVAL, LIST_END, WORD, RATE, UTF8 = 1, 0, 1, 1, 1
"""Of ``speak_lib.h``: output mode, event types, parameter, flag."""


@frozen
class Timed:
    """A word as ``word_times.errors`` takes it."""

    text: str
    start: int
    end: int


class Synthesiser:
    def __init__(self) -> None:
        self._library = ctypes.CDLL("libespeak-ng.so.1")
        self._rate = self._library.espeak_Initialize(RETRIEVAL, 0, None, 0)
        self._audio: list[np.ndarray] = []
        self._words: list[tuple[int, int, int]] = []
        self._callback = _Callback(self._take)
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples, count, events) -> int:
        if count > 0:
            self._audio.append(np.ctypeslib.as_array(samples, (count,)).copy())
        number = 0
        while events[number].type != LIST_END:
            event = events[number]
            if event.type == WORD:
                self._words.append((event.text_position - 1, event.length, event.sample))
            number += 1
        return 0

    def say(self, text: str, voice: bytes, speed: int):
        """float32 at 16 kHz, and (word, start s, end s)."""
        self._audio.clear()
        self._words.clear()
        self._library.espeak_SetVoiceByName(voice)
        self._library.espeak_SetParameter(RATE, speed, 0)
        spoken = text.encode()
        self._library.espeak_Synth(spoken, len(spoken) + 1, 0, 1, 0, UTF8, None, None)
        self._library.espeak_Synchronize()
        audio = np.concatenate(self._audio).astype(np.float32) / 32_768
        starts = [sample / self._rate for _, _, sample in self._words]
        ends = [*starts[1:], len(audio) / self._rate]
        names = [text[at : at + length] for at, length, _ in self._words]
        resampled = soxr.resample(audio, self._rate, SAMPLE_RATE).astype(np.float32)
        return resampled, list(zip(names, starts, ends, strict=True))


def figures(values: list[float]) -> dict:
    array = np.array(values)
    p50, p95 = np.percentile(np.abs(array), [50, 95])
    return {
        "words": len(values),
        "signed_median_ms": round(1e3 * float(np.median(array)), 1),
        "error_p50_ms": round(1e3 * float(p50), 1),
        "error_p95_ms": round(1e3 * float(p95), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    settings = RecognizerSettings(arguments.model, device="cpu", threads=arguments.threads)
    recognizer = create(settings)
    recognizer.warm_up()
    synthesiser, aligner = Synthesiser(), Decoder(loglevel="FATAL")
    noise = np.random.default_rng(0)
    ours: list[float] = []
    reference: list[float] = []
    for number, text in enumerate(SENTENCES):
        voice, speed = VOICES[number % len(VOICES)], SPEEDS[number % len(SPEEDS)]
        speech, words = synthesiser.say(text, voice, speed)
        lead = 0.6 + 0.05 * (number % 7)
        audio = np.concatenate([np.zeros(int(lead * SAMPLE_RATE), np.float32), speech])
        audio += noise.normal(0, NOISE, len(audio)).astype(np.float32)
        truth = [(word, start + lead, end + lead) for word, start, end in words][1:]
        run = stream(recognizer, audio, StreamOptions(languages=("en",)), time.process_time)
        ours += errors(truth, run.words)[0]
        forced = [
            Timed(word, int(start * SAMPLE_RATE), int(end * SAMPLE_RATE))
            for word, start, end in aligned(aligner, audio, text)
        ]
        reference += errors(truth, forced)[0]
    rows = {arguments.model: figures(ours), "pocketsphinx, forced": figures(reference)}
    for name, row in rows.items():
        print(name, "  ".join(f"{key} {value}" for key, value in row.items()))
    if arguments.json:
        result = {**conditions(), "word_starts": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
