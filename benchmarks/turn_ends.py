"""When turns would end, and how often in the middle of one, for rules over the same pauses.

    python -m benchmarks.turn_ends --keep FILE [--evaldata ../shared/evaldata] [--processes 1]
        [--json FILE]

Each English clip is a turn, followed by 1.3 s of its own room tone; its end is a true end, every
silence within it a false one (some of those end a sentence: read speech is hard on every rule). A
session that ends no turn by itself is asked, from 0.4 s of silence on, what the engine says; each
rule is then tried over that. For thresholds 0.2 to 0.9: the engine's confidence as it is (grows
with the silence), what it was before it grew, and Smart Turn alone; beside them a bare silence.
All of them end a turn after 1.28 s. Family P's rule (text that ends a sentence at 0.1 s) stands
for itself. Shares of true ends within 0.3, 0.6 and 1 s, false ends a minute of speech, and of both
the spread over five random halves of the speakers.
"""

import argparse
import multiprocessing
import random
import zlib
from pathlib import Path

import numpy as np
from attrs import frozen

from benchmarks.conditions import conditions, publish
from benchmarks.whisper_quality import load_audio
from benchmarks.whisper_sessions import Session, clips_of, recogniser
from ssasr.engine.whisper.recognizer import OPEN_SENTENCE, SENTENCE_ENDS
from ssasr.engine.whisper.segment import SURE_AFTER
from ssasr.protocol.recognition import SAMPLE_RATE, VAD_FRAME

QUERY = "end_of_turn_confidence_threshold=1&max_turn_silence=5000&min_turn_silence=400"
ROOM = 1.3
PAUSE, LONGEST = 0.4, 1.28
SHORTEST = 0.1
STEP = 0.096
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@frozen
class Pause:
    """``length``: seconds until speech goes on, infinite at the end of the turn. ``sound``: Smart
    Turn's probability at 0.4 s, ``ended``: whether the text ended a sentence then."""

    speaker: str
    length: float
    sound: float
    ended: bool
    ended_early: bool
    """The same at 0.2 s, when the words before it are there."""


def room_tone(samples: np.ndarray, seed: int) -> np.ndarray:
    """The quietest tenths of a second in any order: digital silence would give the end away."""
    frames = samples[: len(samples) // 1_600 * 1_600].reshape(-1, 1_600)
    quiet = frames[np.argsort(frames.std(axis=1))[:3]]
    order = np.random.default_rng(seed).integers(len(quiet), size=int(ROOM * 10))
    return quiet[order].reshape(-1)


_here: list = []


def begin(given: argparse.Namespace) -> None:
    number = multiprocessing.current_process().name.rpartition("-")[2]
    _here[:] = [given, *recogniser(given.keep.with_name(f"{given.keep.name}.{number}"))]


def pauses_of(clip: dict) -> tuple[list[Pause], float]:
    """The pauses of a clip, and its seconds of speech."""
    given, recognizer, kept = _here
    samples = load_audio(given.evaldata / clip["file"])
    tail = room_tone(samples, zlib.crc32(clip["id"].encode()))
    updates: list = []
    Session(recognizer, QUERY).run(np.concatenate([samples, tail]), update=updates.append)
    kept.base.commit()
    speech, speaking = [], False
    for probability in (one for update in updates for one in update.speech):
        speaking = probability >= (0.25 if speaking else 0.4)
        speech.append(speaking)
    speaker = clip.get("split_group") or clip["speaker"]
    found = []
    edges = np.flatnonzero(np.diff([*map(int, speech), 1]))
    for first in edges[[bool(speech[at]) for at in edges]] + 1:
        following = [at for at in range(first, len(speech)) if speech[at]]
        length = (following[0] - first) * VAD_FRAME / SAMPLE_RATE if following else float("inf")
        if length >= SHORTEST:
            found.append(_pause(speaker, first * VAD_FRAME, length, updates))
    return found, sum(speech) * VAD_FRAME / SAMPLE_RATE


def _pause(speaker: str, begin: int, length: float, updates: list) -> Pause:
    def at(seconds: float):
        return next((u for u in updates if u.position >= begin + seconds * SAMPLE_RATE), None)

    def ended(update) -> bool:
        return bool(update and update.words) and update.words[-1].text[-1] in SENTENCE_ENDS

    last = begin + min(length, PAUSE + 2 * STEP) * SAMPLE_RATE
    asked = (u for u in updates if begin + PAUSE * SAMPLE_RATE <= u.position <= last)
    update, sound = next((u for u in asked if u.end_of_turn_confidence), None), 0.0
    if update is not None:
        silence = (update.position - begin) / SAMPLE_RATE
        sound = update.end_of_turn_confidence / min(1.0, silence / (SURE_AFTER * PAUSE))
        sound = min(1.0, sound if ended(update) else sound / OPEN_SENTENCE)
    return Pause(speaker, length, sound, ended(update), ended(at(0.2)))


def ends_at(pause: Pause, threshold: float, kind: str) -> float:
    """Seconds of silence after which a rule ends the turn."""
    value = pause.sound if kind == "smart_turn" or pause.ended else OPEN_SENTENCE * pause.sound
    for silence in np.arange(PAUSE, LONGEST, STEP):
        grown = min(1.0, silence / (SURE_AFTER * PAUSE)) if kind == "grown" else 1.0
        if value * grown >= threshold:
            return float(silence)
    return LONGEST


def row(pauses: list[Pause], minutes: float, rule) -> dict:
    true = np.array([rule(one) for one in pauses if one.length == float("inf")])
    false = sum(rule(one) <= one.length for one in pauses if one.length < float("inf"))
    within = {f"within_{limit}": round(float((true <= limit).mean()), 3) for limit in (0.3, 0.6, 1)}
    mean = round(float(true.mean()), 3)
    return within | {"mean": mean, "false_a_minute": round(false / minutes, 2)}


def table(found: list[tuple[str, list[Pause], float]], rule) -> dict:
    speakers = sorted({speaker for speaker, _, _ in found})
    halves = []
    for number in range(5):
        half = set(random.Random(number).sample(speakers, len(speakers) // 2))
        kept = [one for one in found if one[0] in half]
        halves.append(row([p for _, many, _ in kept for p in many],
                          sum(seconds for _, _, seconds in kept) / 60, rule))  # fmt: skip
    whole = row([p for _, many, _ in found for p in many],
                sum(seconds for _, _, seconds in found) / 60, rule)  # fmt: skip
    spread = {key: [min(h[key] for h in halves), max(h[key] for h in halves)] for key in whole}
    return whole | {"halves": spread}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--clips", type=int)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    clips = clips_of(given.evaldata)[: given.clips]
    with multiprocessing.get_context("spawn").Pool(given.processes, begin, (given,)) as pool:
        results = pool.map(pauses_of, clips, chunksize=1)
    found = [(clip.get("split_group") or clip["speaker"], *result)
             for clip, result in zip(clips, results, strict=True)]  # fmt: skip
    rules = {f"silence {wait}": table(found, lambda _: wait)  # noqa: B023
             for wait in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.28)}  # fmt: skip
    for kind in ("grown", "before", "smart_turn"):
        for threshold in THRESHOLDS:
            rules[f"{kind} {threshold}"] = table(
                found,
                lambda pause: ends_at(pause, threshold, kind),  # noqa: B023
            )
    rules["family P"] = table(found, lambda pause: 0.2 if pause.ended_early else 1.0)
    publish(conditions() | {"turns": len(clips), "rules": rules}, given.json)


if __name__ == "__main__":
    main()
