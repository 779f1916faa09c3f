"""Whether short answers are recognised better where Whisper is given the question before them.

    python -m benchmarks.previous_text [--evaldata ../shared/evaldata] [--model tiny.en]
        [--half dev|held|all] [--part k/n] [--json FILE]

An answer is what stands between two pauses in the English clips, six words at most. It is cut out
of the clip and decoded by itself: with nothing before it, after a question that says nothing of it,
after one in which the rare words of its clip occur (``named``; ``benchmarks.keyterms`` says which),
and after one in which those of another clip do (``misnamed``). ``names``, ``other names``: with
nothing before, but with the names in those two questions as weak key terms. ``terms``: with the
rare words as key terms.

*more_95*: errors more than with nothing before, in points, where speakers are drawn anew.
"""

import argparse
import random
from collections import defaultdict
from difflib import SequenceMatcher
from pathlib import Path

import torch
from attrs import define, fields, frozen

from benchmarks.conditions import conditions, publish
from benchmarks.keyterms import Case, Drafting, Encoder, alignment, cases
from benchmarks.stepping import step_until_done
from benchmarks.whisper_quality import load_audio, load_scorer
from ssasr.engine.recognizer import RecognizerSettings, SegmentStart, Work
from ssasr.engine.whisper.biasing import terms_of
from ssasr.engine.whisper.decoding import Request
from ssasr.engine.whisper.recognizer import WhisperRecognizer, create
from ssasr.protocol.names import names_in
from ssasr.protocol.recognition import SAMPLE_RATE, StreamOptions

PAUSE = SAMPLE_RATE // 4
EDGE = SAMPLE_RATE // 10
"""Samples of the pauses around it that an answer keeps."""
MOST_WORDS = 6
DRAWS = 1_000
SEED = 7
QUESTION = "Thank you. What would you like to say to that?"
NAMED = "Thank you. Did you say {}? What would you like to say to that?"


@define
class Answer:
    case: Case
    samples: object
    words: list[str]


@frozen
class Given:
    """Text before the answer, names and key terms."""

    text: str = ""
    names: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()


@define
class Totals:
    words: int = 0
    errors: int = 0
    rare: int = 0
    missed: int = 0


def answers(recognizer: WhisperRecognizer, case: Case, evaldata: Path, score) -> list[Answer]:
    """What the clip says between pauses, where its first and its last word are beyond doubt."""
    samples = load_audio(evaldata / case.clip["file"])[: 28 * SAMPLE_RATE]
    state = recognizer.new_state(StreamOptions(languages=("en",), offline=True), SegmentStart(0))
    words = step_until_done(recognizer, Work(state, samples, len(samples)))[-1].words
    said = score.norm(case.clip["reference"], "en")
    spelled = [" ".join(score.norm(word.text, "en")) for word in words]
    match = SequenceMatcher(None, said, spelled, autojunk=False)
    place = {b + n: a + n for a, b, size in match.get_matching_blocks() for n in range(size)}
    found, first = [], 0
    for last, word in enumerate(words):
        after = words[last + 1].start if last + 1 < len(words) else len(samples)
        if after - word.end < PAUSE:
            continue
        if last - first < MOST_WORDS and first in place and last in place:
            begin, end = max(words[first].start - EDGE, 0), word.end + EDGE
            found.append(Answer(case, samples[begin:end], said[place[first] : place[last] + 1]))
        first = last + 1
    return found


def given(answer: Answer, other: Case) -> dict[str, Given]:
    """By condition."""
    listed = tuple(answer.case.said)
    mine, others = (", ".join(name.title() for name in case.said) for case in (answer.case, other))
    right = NAMED.format(mine) if listed else QUESTION
    wrong = NAMED.format(others) if other.said else QUESTION
    return {
        "nothing": Given(),
        "question": Given(QUESTION),
        "named": Given(right),
        "misnamed": Given(wrong),
        "names": Given(names=names_in([right])),
        "other names": Given(names=names_in([wrong])),
        "terms": Given(terms=listed),
    }


def decode(recognizer: WhisperRecognizer, samples, known: Given) -> str:
    tokenizer = recognizer.vocabulary.tokenizer
    terms = terms_of(known.terms, tokenizer, recognizer.strength, known.names)
    before = tuple(tokenizer.encode(f" {known.text}")) if known.text else ()
    with torch.inference_mode():
        (found,) = recognizer.decoding([Request(samples, "en", terms=terms, prompt=before)])
    return tokenizer.decode(found.tokens)


def score_answer(answer: Answer, text: str, score) -> Totals:
    hypothesis = score.norm(text, "en")
    errors = sum(kind != "same" for kind, _ in alignment(answer.words, hypothesis))
    rare = [word for word in answer.words if word in answer.case.said]
    missed = sum(word not in hypothesis for word in rare)
    return Totals(len(answer.words), errors, len(rare), missed)


def total(totals: list[Totals]) -> Totals:
    return Totals(*(sum(getattr(one, each.name) for one in totals) for each in fields(Totals)))


def wer(totals: list[Totals]) -> float:
    one = total(totals)
    return 100 * one.errors / max(one.words, 1)


def rows(found: dict[str, dict[str, list[Totals]]]) -> list[dict]:
    """``found``: by condition, by speaker."""
    result = []
    for name, speakers in found.items():
        chance, more = random.Random(SEED), []
        for _ in range(DRAWS):
            drawn = chance.choices(sorted(speakers), k=len(speakers))
            mine, plain = ([one for speaker in drawn for one in each[speaker]]
                           for each in (speakers, found["nothing"]))  # fmt: skip
            more.append(wer(mine) - wer(plain))
        more.sort()
        every = [one for each in speakers.values() for one in each]
        one = total(every)
        result.append(
            {
                "given": name,
                "answers": len(every),
                "words": one.words,
                "wer": round(wer(every), 2),
                "more_95": [round(more[DRAWS * at // 1_000], 2) for at in (25, 975)],
                "rare_words": one.rare,
                "rare_missed": one.missed,
            }
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--half", choices=("dev", "held", "all"), default="all")
    parser.add_argument("--part", default="0/1", help="k/n: every n-th of the clips from k on")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    score = load_scorer(arguments.evaldata)
    recognizer = create(RecognizerSettings(arguments.model, device="cpu", threads=1))
    recognizer.warm_up()
    tokenizer = recognizer.vocabulary.tokenizer
    chosen = cases(arguments.evaldata, arguments.half, score,
                   lambda word: len(tokenizer.encode(" " + word)) == 1)  # fmt: skip
    chosen = [case for case in chosen if case.clip["reference"]]
    first, parts = map(int, arguments.part.split("/"))
    network = recognizer.decoding.passes.network
    network.encode = encoder = Encoder(network.encode)
    recognizer.decoding = drafting = Drafting(recognizer.decoding)
    found: dict[str, dict[str, list[Totals]]] = defaultdict(lambda: defaultdict(list))
    for number in range(first, len(chosen), parts):
        for answer in answers(recognizer, chosen[number], arguments.evaldata, score):
            encoder.known.clear()
            drafting.known.clear()
            for name, known in given(answer, chosen[number - 1]).items():
                said = decode(recognizer, answer.samples, known)
                found[name][answer.case.clip["speaker"]].append(score_answer(answer, said, score))
    about = {"half": arguments.half, "model": arguments.model}
    publish({**conditions(), **about, "previous_text": rows(found)}, arguments.json)


if __name__ == "__main__":
    main()
