"""Key terms that nobody says: how often one is written all the same, and which words change.

    python -m benchmarks.absent_terms [--evaldata ../shared/evaldata] [--model tiny.en] [--lists 2]
        [--part k/n] [--more FOLDER] [--counts FILE] [--json FILE]
    python -m benchmarks.absent_terms --merge FILE --json FILE

Every recording of the development set in a language that the model knows, with a transcript or
without, is decoded as a file is: without a list; with lists of 100 terms, none of which is said and
no two of which share one; with 100 that cannot occur; and with the first list at a strength of 0.
The terms are rare words and key terms of the whole set (``benchmarks.keyterms``), drawn by a seed;
a term that the transcript holds is left out, and where there is none, one that is written without
a list. ``--more``: a folder of further English recordings (``*.wav``), such as the prompts in
Debian's ``asterisk-core-sounds-en-wav``.

Those that cannot occur are twelve consonants in a row, or words in a script that no language of the
set is written in. *changed*: words that differ from those in the same place without a list;
*clips_changed*: recordings with such a word. *made_up*: terms written.
"""

import argparse
import json
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

from attrs import define, fields

from benchmarks.conditions import conditions, publish
from benchmarks.keyterms import Drafting, Encoder, cases, counted, occurrences
from benchmarks.stepping import step_until_done
from benchmarks.whisper_quality import load_audio, load_scorer
from ssasr.engine.recognizer import RecognizerSettings, SegmentStart, Work
from ssasr.engine.whisper.recognizer import WhisperRecognizer, create
from ssasr.protocol.recognition import SAMPLE_RATE, StreamOptions, Word

SEED = 7
LENGTH = 100
CONSONANTS = "bcdfghjklmnpqrstvwxz"
SCRIPTS = ("\u0905\u0939", "\u10d0\u10f0", "\u0e01\u0e2e", "\u03b1\u03c9")
"""First and last letter of Devanagari, Georgian, Thai and Greek."""
WINDOW = 28 * SAMPLE_RATE
"""What is decoded at once of a longer recording."""


@define
class Count:
    """One recording with one list; ``given``: none, absent, impossible or strength 0."""

    group: str
    given: str
    seconds: float = 0.0
    words: int = 0
    changed: int = 0
    clips_changed: int = 0
    made_up: int = 0


def group(clip: dict) -> str:
    if clip["language"] == "none":
        return "no speech"
    if clip["category"].startswith("telephony"):
        return "telephone"
    return "English" if clip["language"] == "en" else "other languages"


def clips(arguments: argparse.Namespace, languages: tuple[str, ...]) -> list[dict]:
    lines = (arguments.evaldata / "manifest.dev.jsonl").read_text("utf-8").splitlines()
    found = [dict(clip, path=arguments.evaldata / clip["file"]) for clip in map(json.loads, lines)]
    known = [clip for clip in found if clip["language"] in (*languages, "none")]
    more = sorted(arguments.more.rglob("*.wav")) if arguments.more else []
    known += [
        {
            "id": path.stem,
            "language": "en",
            "category": "telephony",
            "reference": None,
            "path": path,
        }
        for path in more
    ]
    first, parts = map(int, arguments.part.split("/"))
    return known[first::parts]


def impossible() -> tuple[str, ...]:
    chance = random.Random(SEED)
    consonants = ["".join(chance.choices(CONSONANTS, k=12)) for _ in range(LENGTH // 2)]
    foreign = []
    for number in range(LENGTH - len(consonants)):
        first, last = map(ord, SCRIPTS[number % len(SCRIPTS)])
        foreign.append("".join(chr(chance.randint(first, last)) for _ in range(8)))
    return (*consonants, *foreign)


def written(
    recognizer: WhisperRecognizer, samples, language: str, terms: tuple[str, ...]
) -> list[Word]:
    """As of a file, window by window."""
    options = StreamOptions(languages=(language,), keyterms=terms, offline=True)
    words: list[Word] = []
    for at in range(0, len(samples), WINDOW):
        part = samples[at : at + WINDOW]
        state = recognizer.new_state(options, SegmentStart(0))
        words += step_until_done(recognizer, Work(state, part, len(part)))[-1].words
    return words


def text(words: list[Word]) -> str:
    return " ".join(word.text for word in words)


def absent(pool: list[str], clip: dict, plain: str, score) -> list[str]:
    """The terms of the pool that are not said, in an order of the recording's own."""
    said = score.norm(clip["reference"] if clip["reference"] is not None else plain, "en")
    also = {" ".join(score.norm(term, "en")) for term in clip.get("keyterms") or []}
    spelled = {term: score.norm(term, "en") for term in pool}
    left = [term for term, phrase in spelled.items()
            if not occurrences(said, phrase) and " ".join(phrase) not in also]  # fmt: skip
    random.Random(zlib.crc32(clip["id"].encode())).shuffle(left)
    return left


def compare(count: Count, plain: list[Word], other: list[Word], terms, score) -> list[str]:
    """Fill in the count; the terms that are written."""
    count.words = len(plain)
    count.changed = abs(len(plain) - len(other))
    count.changed += sum(one.text != two.text for one, two in zip(plain, other, strict=False))
    count.clips_changed = int(count.changed > 0)
    spelled = score.norm(text(other), "en")
    phrases = {term: score.norm(term, "en") for term in terms}  # none of other scripts
    made_up = []
    for term, phrase in phrases.items():
        times = len(occurrences(spelled, phrase)) if phrase else text(other).count(term)
        made_up += [term] * times
    count.made_up = len(made_up)
    return made_up


def measured(arguments: argparse.Namespace) -> Iterator[Count]:
    score = load_scorer(arguments.evaldata)
    recognizer = create(RecognizerSettings(arguments.model, device="cpu", threads=1))
    recognizer.warm_up()
    usual, tokenizer = recognizer.strength, recognizer.vocabulary.tokenizer
    known = cases(arguments.evaldata, "all", score,
                  lambda word: len(tokenizer.encode(" " + word)) == 1)  # fmt: skip
    pool = sorted({term for case in known for term in (*case.said, *case.others)})
    network = recognizer.decoding.passes.network
    network.encode = encoder = Encoder(network.encode)
    recognizer.decoding = drafting = Drafting(recognizer.decoding)
    for clip in clips(arguments, recognizer.languages):
        encoder.known.clear()
        drafting.known.clear()
        samples = load_audio(clip["path"])
        language = "en" if clip["language"] == "none" else clip["language"]
        plain = written(recognizer, samples, language, ())
        left = absent(pool, clip, text(plain), score)
        lists = [left[LENGTH * at : LENGTH * (at + 1)] for at in range(arguments.lists)]
        runs = [("none", (), usual), *(("absent", tuple(one), usual) for one in lists)]
        runs += [("impossible", impossible(), usual), ("strength 0", tuple(lists[0]), 0.0)]
        for given, terms, strength in runs:
            recognizer.strength = strength
            other = written(recognizer, samples, language, terms) if terms else plain
            count = Count(group(clip), given, len(samples) / SAMPLE_RATE)
            listed = terms or lists[0]  # what is written of the first list without it
            if found := compare(count, plain, other, listed, score):
                print(clip["id"], given, found, "\n ", text(plain), "\n ", text(other), flush=True)
            yield count


def rows(counts: list[Count]) -> list[dict]:
    found = []
    for given in dict.fromkeys(count.given for count in counts):
        groups = sorted({count.group for count in counts})
        for name in [*groups, "all"]:
            mine = [one for one in counts if one.given == given and name in (one.group, "all")]
            sums = {each.name: sum(getattr(one, each.name) for one in mine)
                    for each in fields(Count)[2:]}  # fmt: skip
            hours = sums.pop("seconds") / 3_600
            found.append({"given": given, "group": name, "clips": len(mine),
                          "hours": round(hours, 3), **sums,
                          "made_up_per_hour": round(sums["made_up"] / hours, 2)})  # fmt: skip
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--lists", type=int, default=2, help="of 100 absent terms, per recording")
    parser.add_argument("--part", default="0/1", help="k/n: every n-th recording from k on")
    parser.add_argument("--more", type=Path, default=None)
    parser.add_argument("--counts", type=Path, default=None)
    parser.add_argument("--merge", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    about, counts = counted(
        arguments, {"model": arguments.model}, measured, lambda count: Count(**count)
    )
    publish({**conditions(), **about, "absent_terms": rows(counts)}, arguments.json)


if __name__ == "__main__":
    main()
