"""When turns would end, and how often in the middle of one, for rules over the same pauses.

    python -m benchmarks.turn_ends --keep FILE --offline FILE [--evaldata ../shared/evaldata]
        [--processes 1] [--json FILE]

Each English clip is a turn, followed by 1.3 s of its own room tone; its end is a true end, every
silence within it a false one. More than half of those follow a sentence: read speech is hard on
every rule; so false ends are also counted without them, by an offline transcript
(``whisper_sessions``). A session that ends no turn by itself, and decodes at pauses only, is asked
from 0.4 s of silence on what the engine says; each rule is then tried over that: the engine's
confidence, for thresholds 0.2 to 0.9 and family P's; the same with coefficients that were fitted
on the other speakers (five folds); what it was before, of the full stop alone; Smart Turn alone; a
bare silence. Family P judges a pause at 0.2 s, by the same text and nearly the same sound. All of
them end a turn after 1.28 s, P after 1 s.

Shares of true ends within 0.3, 0.6 and 1 s; ``wait``: the mean silence before them, ``sentence``
before those where a sentence ends within a clip; false ends a minute of speech. Intervals: 95 % of
a bootstrap over speakers. ``fitted``: silence, closing mark, sound and the constant, as
``ssasr/engine/whisper/end_of_turn.py`` has the first three, of each fold and of all speakers.
"""

import argparse
import json
import multiprocessing
import random
import zlib
from collections.abc import Callable, Iterable
from difflib import SequenceMatcher
from math import exp, inf, log
from pathlib import Path

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from benchmarks.conditions import conditions, publish
from benchmarks.whisper_quality import load_audio
from benchmarks.whisper_sessions import Session, clips_of, over_clips, recogniser
from ssasr.engine.whisper import recognizer as engine
from ssasr.engine.whisper.end_of_turn import (
    CLOSING,
    CONSTANT,
    LIKELIEST,
    OPEN,
    SILENCE,
    SOUND,
)
from ssasr.engine.whisper.hypothesis_alignment import bare
from ssasr.protocol.recognition import SAMPLE_RATE, VAD_FRAME, Update, Word
from ssasr.protocol.text import ends_sentence

QUERY = "end_of_turn_confidence_threshold=1&max_turn_silence=5000&min_turn_silence=400"
ROOM = 1.3
PAUSE, LONGEST, LONGEST_P = 0.4, 1.28, 1.0
SHORTEST, SETTLED = 0.1, 0.2
STEP = 0.096
BEFORE = (3.11, 2.16, 0.15, -4.87)
"""Silence, full stop, sound and constant of the model before: it knew whether there was a full
stop, and nothing of how sure the decoder was."""
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LIMITS = (0.3, 0.6, 1)
FOLDS, DRAWS = 5, 1_000


@frozen
class Pause:
    """``length``: seconds until speech goes on, infinite at the end of the turn. ``sound``: Smart
    Turn's probability at 0.4 s, or at the end of a shorter pause; ``closing``: as
    ``Segment.closing``."""

    speaker: str
    length: float
    sound: float
    closing: float | None
    sentence: bool = False
    """Whether a sentence ends there, as the offline transcript has it."""

    @property
    def features(self) -> tuple[float, float]:
        likely = min(max(self.sound, 1 - LIKELIEST), LIKELIEST)
        text = OPEN if self.closing is None else max(self.closing, OPEN)
        return text, log(likely / (1 - likely))


class _Judged:
    """Stands before ``end_of_turn.evidence`` and keeps what it was asked."""

    def __init__(self) -> None:
        self.last: tuple[float, float | None] = (0.5, None)
        self._evidence = engine.evidence  # type: ignore[attr-defined]

    def __call__(self, sound: float, closing: float | None) -> float:
        self.last = sound, closing
        return self._evidence(sound, closing)


class _AtPauses:
    """Stands in a recogniser's ``PartialInterval``: no decode while somebody speaks."""

    factor = 10**6


def room_tone(samples: np.ndarray, seed: int) -> np.ndarray:
    """The quietest tenths of a second in any order: digital silence would give the end away."""
    frames = samples[: len(samples) // 1_600 * 1_600].reshape(-1, 1_600)
    quiet = frames[np.argsort(frames.std(axis=1))[:3]]
    order = np.random.default_rng(seed).integers(len(quiet), size=int(ROOM * 10))
    return quiet[order].reshape(-1)


_here: list = []


def begin(given: argparse.Namespace) -> None:
    number = multiprocessing.current_process().name.rpartition("-")[2]
    recognizer, kept = recogniser(given.keep.with_name(f"{given.keep.name}.{number}"))
    recognizer._interval = _AtPauses()
    judged = _Judged()
    engine.evidence = judged  # type: ignore[attr-defined]
    _here[:] = [given, recognizer, kept, judged]


def pauses_of(clip: dict) -> tuple[list[Pause], float]:
    """The pauses of a clip, and its seconds of speech."""
    given, recognizer, kept, judged = _here
    samples = load_audio(given.evaldata / clip["file"])
    tail = room_tone(samples, zlib.crc32(clip["id"].encode()))
    updates: list[tuple[Update, tuple[float, float | None]]] = []

    def note(update: Update) -> None:
        updates.append((update, judged.last))

    Session(recognizer, QUERY).run(np.concatenate([samples, tail]), update=note)
    kept.base.commit()
    speech, speaking = [], False
    for probability in (one for update, _ in updates for one in update.speech):
        speaking = probability >= (0.25 if speaking else 0.4)
        speech.append(speaking)
    speaker = clip.get("split_group") or clip["speaker"]
    ends = sentence_ends(updates[-1][0].words, given.texts[clip["id"]])
    found = []
    edges = np.flatnonzero(np.diff([*map(int, speech), 1]))
    for first in edges[[bool(speech[at]) for at in edges]] + 1:
        following = [at for at in range(first, len(speech)) if speech[at]]
        length = (following[0] - first) * VAD_FRAME / SAMPLE_RATE if following else inf
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
    """As it was judged; one that was too short for that as if there were no sound."""
    last = begin + min(length, PAUSE + 2 * STEP) * SAMPLE_RATE
    asked = [one for one in updates if begin + PAUSE * SAMPLE_RATE <= one[0].position <= last]
    found = next((judged for update, judged in asked if update.end_of_turn_confidence), None)
    if found is not None:
        return Pause(speaker, length, *found)
    return Pause(speaker, length, 0.5, 0.0)


Rule = Callable[[Pause], float]
Coefficients = tuple[float, float, float, float]
NOW: Coefficients = (SILENCE, CLOSING, SOUND, CONSTANT)


def odds(pause: Pause, silence: float, by: Coefficients) -> float:
    text, sound = pause.features
    return by[0] * silence + by[1] * text + by[2] * sound + by[3]


def ends_at(pause: Pause, likely: Callable[[Pause, float], float], threshold: float) -> float:
    """Seconds of silence after which a rule of family U ends the turn."""
    for silence in np.arange(PAUSE, LONGEST, STEP):
        if likely(pause, float(silence)) >= threshold:
            return float(silence)
    return LONGEST


def ends_at_p(pause: Pause, threshold: float) -> float:
    """The same for family P: only where the text ends a sentence."""
    for silence in np.arange(SETTLED, LONGEST_P, STEP):
        if pause.closing is not None and _logistic(odds(pause, silence, NOW)) >= threshold:
            return float(silence)
    return LONGEST_P


def _logistic(value: float) -> float:
    return 1 / (1 + exp(-value))


def now(pause: Pause, silence: float) -> float:
    return _logistic(odds(pause, silence, NOW))


def before(pause: Pause, silence: float) -> float:
    by_silence, full_stop, by_sound, constant = BEFORE
    sound = by_sound * pause.features[1]
    ended = full_stop * (pause.closing is not None)
    return _logistic(by_silence * silence + ended + sound + constant)


# -- fitting ---------------------------------------------------------------------------------------


def fit(pauses: Iterable[Pause]) -> Coefficients:
    """A logistic regression over the pauses at each step that they lasted: whether the turn or a
    sentence ends there. Newton's method, with a little decay."""
    rows, ends = [], []
    for pause in pauses:
        for silence in np.arange(SETTLED, min(pause.length, LONGEST), STEP):
            rows.append((silence, *pause.features, 1.0))
            ends.append(pause.length == inf or pause.sentence)
    given, wanted, by = np.array(rows), np.array(ends, float), np.zeros(4)
    decay = np.diag([2.0, 2.0, 2.0, 1e-6])
    for _ in range(50):
        found = 1 / (1 + np.exp(-given @ by))
        slope = given.T @ (found - wanted) + decay @ by
        by -= np.linalg.solve((given.T * (found * (1 - found))) @ given + decay, slope)
    return tuple(by.round(3).tolist())


def folds(speakers: Iterable[str], seed: int = 0) -> dict[str, int]:
    shuffled = sorted(set(speakers))
    random.Random(seed).shuffle(shuffled)
    return {speaker: number % FOLDS for number, speaker in enumerate(shuffled)}


# -- counting --------------------------------------------------------------------------------------


@frozen
class Clip:
    speaker: str
    pauses: list[Pause]
    minutes: float


def counted(clips: list[Clip], rule: Rule) -> dict[str, NDArray[np.float64]]:
    """Of each speaker what adds up: true ends, those within each limit, seconds waited for them;
    ends of sentences, seconds waited; false ends, those within sentences; minutes of speech."""
    found: dict[str, NDArray[np.float64]] = {}
    for clip in clips:
        sums = found.setdefault(clip.speaker, np.zeros(10))
        sums[9] += clip.minutes
        for pause in clip.pauses:
            wait = rule(pause)
            if pause.length == inf:
                sums[:5] += [1, *(wait <= limit for limit in LIMITS), wait]
            elif pause.sentence and pause.length >= PAUSE:
                sums[5:7] += [1, wait]
            if wait <= pause.length < inf:
                sums[7:9] += [1, not pause.sentence]
    return found


def row(sums: NDArray[np.float64]) -> dict[str, float]:
    true, *within, wait, sentences, waited, false, in_sentences, minutes = sums.tolist()
    return {
        **{f"within_{limit}": one / true for limit, one in zip(LIMITS, within, strict=True)},
        "wait": wait / true, "sentence": waited / max(sentences, 1),
        "false_a_minute": false / minutes, "in_sentences": in_sentences / minutes,
    }  # fmt: skip


def table(clips: list[Clip], rule: Rule) -> dict:
    found = counted(clips, rule)
    each, chance = np.stack([found[name] for name in sorted(found)]), np.random.default_rng(1)
    drawn = [row(each[chance.integers(len(each), size=len(each))].sum(0)) for _ in range(DRAWS)]
    whole = {key: round(value, 3) for key, value in row(each.sum(0)).items()}
    spread = {
        key: np.percentile([one[key] for one in drawn], [2.5, 97.5]).round(2).tolist()
        for key in ("wait", "false_a_minute", "in_sentences")
    }
    return whole | {"intervals": spread}


def rules_over(clips: list[Clip], others: Callable[[str], Coefficients]) -> dict:
    """``others``: coefficients that were fitted without that speaker."""
    fitted_less = fit(pause for clip in clips for pause in clip.pauses)[3] - CONSTANT

    def unseen(pause: Pause, silence: float) -> float:
        return _logistic(odds(pause, silence, others(pause.speaker)) - fitted_less)

    def smart_turn(pause: Pause, _: float) -> float:
        return pause.sound

    kinds = {"engine": now, "engine, unseen": unseen, "before": before, "smart_turn": smart_turn}
    rules: dict[str, Rule] = {
        f"silence {wait}": lambda _, wait=wait: wait
        for wait in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.28)
    }
    for name, kind in kinds.items():
        for threshold in THRESHOLDS:
            rules[f"{name} {threshold}"] = lambda pause, kind=kind, threshold=threshold: ends_at(
                pause, kind, threshold
            )
    for threshold in THRESHOLDS[:5]:
        rules[f"family P {threshold}"] = lambda pause, threshold=threshold: ends_at_p(
            pause, threshold
        )
    rules["family P, before"] = lambda pause: LONGEST_P if pause.closing is None else SETTLED
    return {name: table(clips, rule) for name, rule in rules.items()}


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
    wanted = clips_of(given.evaldata)[: given.clips]
    results = over_clips(pauses_of, wanted, begin, given)
    clips = [Clip(clip.get("split_group") or clip["speaker"], pauses, seconds / 60)
             for clip, (pauses, seconds) in zip(wanted, results, strict=True)]  # fmt: skip
    place = folds(clip.speaker for clip in clips)
    fitted = [fit(pause for clip in clips if place[clip.speaker] != fold for pause in clip.pauses)
              for fold in range(FOLDS)]  # fmt: skip
    rules = rules_over(clips, lambda speaker: fitted[place[speaker]])
    fitted.append(fit(pause for clip in clips for pause in clip.pauses))
    publish(conditions() | {"turns": len(clips), "fitted": fitted, "rules": rules}, given.json)


if __name__ == "__main__":
    main()
