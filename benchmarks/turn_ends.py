"""When turns would end, and how often in the middle of one, for rules over the same pauses.

    python -m benchmarks.turn_ends --keep FILE --offline FILE [--evaldata ../shared/evaldata]
        [--processes 1] [--json FILE]

Each English clip is a turn, followed by 1.3 s of its own room tone; its end is a true end, every
silence within it a false one. Half of those follow a sentence: read speech is hard on every rule;
so false ends are also counted without them, by an offline transcript (``whisper_sessions``). A
session that ends no turn by itself is asked, from 0.4 s of silence on, what the engine says; each
rule is then tried over that. For thresholds 0.2 to 0.9: the engine's confidence, Smart Turn times
the silence up to a second and 0.4 where the text is open (what it was before), and Smart Turn
alone; beside them a bare silence. All of them end a turn after 1.28 s. Family P's rule (text that
ends a sentence at 0.1 s) stands for itself. Shares of true ends within 0.3, 0.6 and 1 s, false ends
a minute of speech, and the spread of all that over five random halves of the speakers.
"""

import argparse
import json
import multiprocessing
import random
import zlib
from difflib import SequenceMatcher
from math import exp, log
from pathlib import Path

import numpy as np
from attrs import evolve, frozen

from benchmarks.conditions import conditions, publish
from benchmarks.whisper_quality import load_audio
from benchmarks.whisper_sessions import Session, clips_of, recogniser
from ssasr.engine.whisper.end_of_turn import CONSTANT, ENDED, SILENCE, SOUND, evidence, likelihood
from ssasr.engine.whisper.hypothesis_alignment import bare
from ssasr.protocol.recognition import SAMPLE_RATE, VAD_FRAME, Word
from ssasr.protocol.text import ends_sentence

QUERY = "end_of_turn_confidence_threshold=1&max_turn_silence=5000&min_turn_silence=400"
ROOM = 1.3
PAUSE, LONGEST = 0.4, 1.28
SHORTEST = 0.1
STEP = 0.096
OPEN_SENTENCE, SURE_AFTER = 0.4, 1.0
"""Of the rule before: what was left of Smart Turn's probability where the text does not end a
sentence; seconds of silence after which it counted in full."""
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
    sentence: bool = False
    """Whether a sentence ends there, as the offline transcript has it."""


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
    ends = sentence_ends(updates[-1].words, given.texts[clip["id"]])
    found = []
    edges = np.flatnonzero(np.diff([*map(int, speech), 1]))
    for first in edges[[bool(speech[at]) for at in edges]] + 1:
        following = [at for at in range(first, len(speech)) if speech[at]]
        length = (following[0] - first) * VAD_FRAME / SAMPLE_RATE if following else float("inf")
        if length >= SHORTEST:
            pause = _pause(speaker, first * VAD_FRAME, length, updates)
            found.append(evolve(pause, sentence=_ends_by(ends, first * VAD_FRAME)))
    return found, sum(speech) * VAD_FRAME / SAMPLE_RATE


def sentence_ends(words: tuple[Word, ...], offline: str) -> list[tuple[int, bool]]:
    """Of each word its middle, and whether the same one ends a sentence in the offline text."""
    theirs = offline.split()
    ours, known = [bare(word.text) for word in words], [bare(word) for word in theirs]
    ends = [False] * len(words)
    for block in SequenceMatcher(None, ours, known, autojunk=False).get_matching_blocks():
        for number in range(block.size):
            ends[block.a + number] = ends_sentence(theirs[block.b + number])
    return [((word.start + word.end) // 2, end) for word, end in zip(words, ends, strict=True)]


def _ends_by(ends: list[tuple[int, bool]], at: int) -> bool:
    """Whether the last word before that sample ends a sentence."""
    before = [end for middle, end in ends if middle <= at]
    return bool(before) and before[-1]


def _pause(speaker: str, begin: int, length: float, updates: list) -> Pause:
    def at(seconds: float):
        return next((u for u in updates if u.position >= begin + seconds * SAMPLE_RATE), None)

    def ended(update) -> bool:
        return bool(update and update.words) and ends_sentence(update.words[-1].text)

    last = begin + min(length, PAUSE + 2 * STEP) * SAMPLE_RATE
    asked = (u for u in updates if begin + PAUSE * SAMPLE_RATE <= u.position <= last)
    update, sound = next((u for u in asked if u.end_of_turn_confidence), None), 0.0
    if update is not None:
        silence = (update.position - begin) / SAMPLE_RATE / PAUSE
        sure = update.end_of_turn_confidence
        odds = log(sure / (1 - sure)) - SILENCE * silence - CONSTANT - ENDED * ended(update)
        sound = 1 / (1 + exp(-odds / SOUND))
    return Pause(speaker, length, sound, ended(update), ended(at(0.2)))


def ends_at(pause: Pause, threshold: float, kind: str) -> float:
    """Seconds of silence after which a rule ends the turn."""
    for silence in np.arange(PAUSE, LONGEST, STEP):
        if confidence(pause, float(silence), kind) >= threshold:
            return float(silence)
    return LONGEST


def confidence(pause: Pause, silence: float, kind: str) -> float:
    if kind == "smart_turn":
        return pause.sound
    if kind == "product":
        return pause.sound * (1 if pause.ended else OPEN_SENTENCE) * min(1.0, silence / SURE_AFTER)
    return likelihood(evidence(pause.sound, ended=pause.ended), silence / PAUSE)


def row(pauses: list[Pause], minutes: float, rule) -> dict:
    true = np.array([rule(one) for one in pauses if one.length == float("inf")])
    cut = [one for one in pauses if rule(one) <= one.length < float("inf")]
    within_sentences = sum(not one.sentence for one in cut)
    within = {f"within_{limit}": round(float((true <= limit).mean()), 3) for limit in (0.3, 0.6, 1)}
    mean = round(float(true.mean()), 3)
    return within | {
        "mean": mean, "false_a_minute": round(len(cut) / minutes, 2),
        "in_sentences": round(within_sentences / minutes, 2),
    }  # fmt: skip


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


def rules_over(found: list[tuple[str, list[Pause], float]]) -> dict:
    rules = {f"silence {wait}": table(found, lambda _: wait)  # noqa: B023
             for wait in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.28)}  # fmt: skip
    for kind in ("engine", "product", "smart_turn"):
        for threshold in THRESHOLDS:
            rules[f"{kind} {threshold}"] = table(
                found,
                lambda pause: ends_at(pause, threshold, kind),  # noqa: B023
            )
    rules["family P"] = table(found, lambda pause: 0.2 if pause.ended_early else 1.0)
    return rules


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--offline", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--clips", type=int)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    given.texts = json.loads(given.offline.read_text("utf-8"))
    clips = clips_of(given.evaldata)[: given.clips]
    with multiprocessing.get_context("spawn").Pool(given.processes, begin, (given,)) as pool:
        results = pool.map(pauses_of, clips, chunksize=1)
    found = [(clip.get("split_group") or clip["speaker"], *result)
             for clip, result in zip(clips, results, strict=True)]  # fmt: skip
    rules = rules_over(found)
    publish(conditions() | {"turns": len(clips), "rules": rules}, given.json)


if __name__ == "__main__":
    main()
