"""A second pass over a finished text: would it find key terms that decoding did not write?

    python -m benchmarks.second_pass --counts FILE [--half dev] [--json FILE]

``--counts``: what ``benchmarks.keyterms`` kept of live sessions, the words with how sure the
model was of each. In every text, words that sound like a term of the list, by one of several
measures, and that the model was unsure of are replaced by it: the likest first, one edit a place.
``alike`` and ``unsure`` are the bounds: how like a term words must be, from 0 to 1, and how sure
the model may have been of them, on average.

Settings that edit nothing are left out.

*after terms*: texts that were decoded with the list already. *instead*: those decoded without one.
*found*: terms said that are written now and were not; *made_up*: terms that are written now and
were not said, *made_up_absent* those of lists of absent terms; *edits*: all; *other_errors_more*:
errors of the other words.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from pathlib import Path

import jellyfish
from attrs import asdict, define
from rapidfuzz.distance import JaroWinkler, Levenshtein

from benchmarks.conditions import conditions, publish
from benchmarks.keyterms import Case, Totals, Written, add, cases
from benchmarks.whisper_quality import load_scorer
from ssasr.engine.recognizer import RecognizerSettings
from ssasr.engine.whisper.hypothesis_alignment import bare
from ssasr.engine.whisper.recognizer import create

ALIKE = (0.7, 0.8, 0.9)
UNSURE = (0.5, 0.7, 1.0)


def by_letters(one: str, other: str) -> float:
    return Levenshtein.normalized_similarity(one, other)


def by_sound(one: str, other: str, code: Callable[[str], str] = jellyfish.metaphone) -> float:
    """Half by letters: a code of sounds leaves out most vowels."""
    if not (one.isascii() and other.isascii()):
        return by_letters(one, other)
    sounds = Levenshtein.normalized_similarity(code(one), code(other))
    return (by_letters(one, other) + sounds) / 2


MEASURES: dict[str, Callable[[str, str], float]] = {
    "letters": by_letters,
    "Jaro-Winkler": JaroWinkler.similarity,
    "Metaphone": by_sound,
    "NYSIIS": lambda one, other: by_sound(one, other, jellyfish.nysiis),
}
"""jellyfish's codes of sounds, and how like two of them are."""


@define
class Text:
    """``decoded``: the words with the list; ``plain``: without one."""

    case: Case
    listed: tuple[str, ...]
    absent: bool
    decoded: Written
    plain: Written


@define
class Effect:
    texts: int = 0
    seconds: float = 0.0
    said: int = 0
    missed: int = 0
    edits: int = 0
    found: int = 0
    made_up: int = 0
    absent_seconds: float = 0.0
    made_up_absent: int = 0
    other_errors_more: int = 0


@cache
def likeness(measure: str, one: str, other: str) -> float:
    return MEASURES[measure](one, other)


@cache
def places(
    words: tuple[tuple[str, float], ...], listed: tuple[str, ...], measure: str
) -> list[tuple[float, float, int, int, str]]:
    """(likeness, sureness, first, last, term) of all that might be a term, the likest first."""
    spelled = [bare(word) for word, _ in words]
    terms = [(term, "".join(map(bare, term.split())), len(term.split())) for term in listed]
    found = []
    for first in range(len(words)):
        for last in range(first, min(first + max(size for *_, size in terms) + 1, len(words))):
            letters = "".join(spelled[first : last + 1])
            sure = sum(word[1] for word in words[first : last + 1]) / (last + 1 - first)
            for term, key, size in terms:
                if letters != key and last - first <= size:
                    alike = likeness(measure, letters, key)
                    if alike >= min(ALIKE):
                        found.append((alike, sure, first, last, term))
    return sorted(found, key=lambda each: -each[0])


def edited(words: Written, found, alike: float, unsure: float) -> tuple[str, int]:
    """The text after the pass, and how many places were edited."""
    texts = [word for word, _ in words]
    taken: set[int] = set()
    edits = 0
    for likeness_of_it, sure, first, last, term in found:
        span = set(range(first, last + 1))
        if likeness_of_it >= alike and sure <= unsure and not taken & span:
            taken |= span
            edits += 1
            texts[first : last + 1] = [term, *[""] * (last - first)]
    return " ".join(filter(None, texts)), edits


def texts_of(path: Path, known: list[Case]) -> Iterator[Text]:
    """Of the runs with 100 terms."""
    by_clip = {case.clip["id"]: case for case in known}
    plain: dict[str, Written] = {}
    for line in path.read_text().splitlines():
        count = json.loads(line)["count"]
        written = [tuple(word) for word in count["written"]]
        if not count["terms"]:
            plain[count["clip"]] = written
        elif count["terms"] == 100:
            case = by_clip[count["clip"]]
            case = Case(case.clip, [], case.others) if count["absent"] else case
            yield Text(case, case.terms(100), count["absent"], written, plain[count["clip"]])


def measured(texts: list[Text], how: str, score) -> Iterator[dict]:
    words = [text.decoded if how == "after terms" else text.plain for text in texts]
    before = [scored(text, joined(said), score) for text, said in zip(texts, words, strict=True)]
    for measure, alike, unsure in product(MEASURES, ALIKE, UNSURE):
        effect = Effect()
        for text, said, was in zip(texts, words, before, strict=True):
            now, edits = edited(said, places(tuple(said), text.listed, measure), alike, unsure)
            note(effect, text.absent, was, scored(text, now, score) if edits else was, edits)
        hours = effect.absent_seconds / 3_600
        per_hour = round(effect.made_up_absent / hours, 1) if hours else None
        if not effect.edits and not effect.made_up_absent:
            continue
        row = {"how": how, "measure": measure, "alike": alike, "unsure": unsure}
        yield row | asdict(effect) | {"made_up_absent_per_hour": per_hour}


def joined(words: Written) -> str:
    return " ".join(word for word, _ in words)


def scored(text: Text, written: str, score) -> Totals:
    totals = Totals()
    add(totals, text.case, written, text.listed, score)
    return totals


def note(effect: Effect, absent: bool, was: Totals, now: Totals, edits: int) -> None:
    if absent:
        effect.absent_seconds += now.seconds
        effect.made_up_absent += now.made_up - was.made_up
        return
    effect.texts += 1
    effect.seconds += now.seconds
    effect.said += now.said
    effect.missed += was.said - was.right
    effect.edits += edits
    effect.found += now.right - was.right
    effect.made_up += now.made_up - was.made_up
    effect.other_errors_more += now.errors - was.errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--counts", type=Path, required=True)
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--half", choices=("dev", "held", "all"), default="dev")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    score = load_scorer(arguments.evaldata)
    recognizer = create(RecognizerSettings(arguments.model, device="cpu", threads=1))
    tokenizer = recognizer.vocabulary.tokenizer
    known = cases(arguments.evaldata, arguments.half, score,
                  lambda word: len(tokenizer.encode(" " + word)) == 1)  # fmt: skip
    texts = list(texts_of(arguments.counts, known))
    rows = [row for how in ("after terms", "instead") for row in measured(texts, how, score)]
    about = {"half": arguments.half, "model": arguments.model}
    publish({**conditions(), **about, "second_pass": rows}, arguments.json)


if __name__ == "__main__":
    main()
