"""Key terms: how many are found, how many are made up, and what becomes of the other words.

    python -m benchmarks.keyterms [--evaldata ../shared/evaldata] [--model tiny.en]
        [--half dev|held|all] [--how stream|turn|offline] [--strengths 8,12] [--terms 10,100]
        [--part k/n] [--counts FILE] [--json FILE]
    python -m benchmarks.keyterms --how hotwords|prompt --peers PYTHON ...
    python -m benchmarks.keyterms --merge FILE --json FILE

Every English clip is decoded without a list and with lists of so many terms. A list holds the
terms that the clip has, filled up by others that it has not, drawn by a seed: the manifest's
distractors, or other clips' terms. A clip's terms are the manifest's ``keyterms``; where it names
none, the words that occur once in the whole set and are not one token for Whisper, which are names
and rare words.
``read``, ``telephone`` and ``ordered`` (spoken coffee orders, whose phrases are known but not all
their words) are reported apart. ``made_up_per_hour`` is of lists none of whose terms are said.

*stream*: live, words become final by and by (family U). *turn*: live, the end of the turn decides
(family P). *offline*: one decode. ``--counts`` appends each clip's counts, which ``--merge`` makes
one result of, with intervals (95 %) from 1,000 draws of speakers. An excerpt is encoded once for
all lists; ``cpu_ratio`` counts it each time. ``--untimed`` is faster and leaves it out: what greedy
decoding wrote of an excerpt is the draft for the other lists.

*hotwords*, *prompt*: faster-whisper (float32, greedy, the same weights), which is given the list in
one of its two ways; ``PYTHON`` is that of an environment with it (``archive/peers``).

*recall*: of the terms said, those written (per clip, no more often than said). *precision*: of the
terms written, those said. *other_wer*: the other words' errors; what is inserted beside a term that
was missed belongs to the term.
"""

import argparse
import json
import random
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from attrs import asdict, define, evolve, field, fields

from benchmarks.conditions import conditions, publish
from benchmarks.stepping import step_until_done
from benchmarks.whisper_quality import held_out, load_audio, load_scorer
from ssasr.engine.recognizer import RecognizerSettings, SegmentStart, Work
from ssasr.engine.whisper.biasing import terms_of
from ssasr.engine.whisper.decoding import PADDING, Decoding, Hypothesis, Request
from ssasr.engine.whisper.passes import Passes
from ssasr.engine.whisper.recognizer import WhisperRecognizer, create
from ssasr.models import catalogue
from ssasr.protocol.recognition import SAMPLE_RATE, StreamOptions

SEED = 7
DRAWS = 1_000
GROUPS = {"read_en": "read", "telephony_8k_en": "telephone", "keyterm_en": "ordered",
          "spontaneous_en": "read", "speech_en": "read"}  # fmt: skip


@define
class Case:
    """A clip with the terms that are said in it and others that are not."""

    clip: dict
    said: list[str]
    others: list[str]

    def terms(self, count: int) -> tuple[str, ...]:
        return tuple([*self.said, *self.others][:count]) if count else ()


@define
class Totals:
    said: int = 0
    written: int = 0
    right: int = 0
    made_up: int = 0
    others: int = 0
    errors: int = 0
    seconds: float = 0.0
    cpu: float = 0.0


def cases(evaldata: Path, half: str, score, is_token) -> list[Case]:
    """Of every English clip with known terms or words."""
    lines = (evaldata / "manifest.dev.jsonl").read_text("utf-8").splitlines()
    clips = [c for c in map(json.loads, lines) if c["language"] == "en" and c["category"] in GROUPS]
    counts: dict[str, int] = defaultdict(int)
    for clip in clips:
        for word in score.norm(clip["reference"] or "", "en"):
            counts[word] += 1
    rare = {w for w, n in counts.items() if n == 1 and len(w) > 3 and not is_token(w)}
    rare = {word for word in rare if word.isalpha()}
    chance = random.Random(SEED)
    found = []
    for clip in clips:
        words = score.norm(clip["reference"] or "", "en")
        said = clip.get("keyterms") or [word for word in words if word in rare]
        others = list(clip.get("keyterm_distractors") or sorted(rare - set(words)))
        others = [term for term in others if " ".join(score.norm(term, "en")) not in words]
        chance.shuffle(others)
        found.append(Case(clip, list(dict.fromkeys(said)), others))
    return [case for case in found if half == "all" or held_out(case.clip) == (half == "held")]


Written = list[tuple[str, float]]
"""Words, and how sure the model was of each; a text as one word where that is not known."""


def streamed(
    recognizer: WhisperRecognizer, samples, terms: tuple[str, ...], *, tentative: bool = False
) -> Written:
    """The words of a whole clip heard chunk by chunk."""
    options = StreamOptions(languages=("en",), keyterms=terms, tentative=tentative)
    state = recognizer.new_state(options, SegmentStart(0))
    chunk, heard = recognizer.chunk, []
    whole = len(samples) // chunk * chunk
    for at in range(0, whole + 1, chunk):
        final_at = len(samples) if at == whole else None
        heard = step_until_done(recognizer, Work(state, samples[at : at + chunk], final_at))
    return [(word.text, word.confidence) for word in heard[-1].words]


@define
class Encoder:
    """Encodes each excerpt of a clip once; ``saved``: seconds that the other times would take."""

    encode: Callable
    known: dict[int, tuple[object, float]] = field(factory=dict)
    saved: float = 0.0

    def __call__(self, samples, frames):
        key = hash(samples.numpy().tobytes())
        found = self.known.get(key)
        if found is not None:
            self.saved += found[1]
            return found[0]
        begun = time.thread_time()
        encoded = self.encode(samples, frames)
        self.known[key] = encoded, time.thread_time() - begun
        return encoded


@define
class Drafting:
    """A recogniser's decoding that has what it wrote of an excerpt before as the draft of the next
    decode of it: the text is the same as without (``decoding``), in fewer passes."""

    decoding: Decoding
    known: dict[int, tuple[int, ...]] = field(factory=dict)

    @property
    def passes(self) -> Passes:
        return self.decoding.passes

    def __call__(self, requests: Sequence[Request], padding: int = PADDING) -> list[Hypothesis]:
        keys = [hash(request.samples.tobytes()) for request in requests]
        drafted = [evolve(request, draft=self.known.get(key, request.draft))
                   for key, request in zip(keys, requests, strict=True)]  # fmt: skip
        found = self.decoding(drafted, padding)
        for key, one in zip(keys, found, strict=True):
            self.known.setdefault(key, one.draft(0, len(one.tokens)))
        return found


def decoded(recognizer: WhisperRecognizer, samples, terms: tuple[str, ...]) -> Written:
    tokenizer = recognizer.vocabulary.tokenizer
    biasing = terms_of(terms, tokenizer, recognizer.strength) if terms else None
    request = Request(samples[: 28 * SAMPLE_RATE], "en", terms=biasing)
    with torch.inference_mode():
        (found,) = recognizer.decoding([request])
    written, place = [], 0
    for tokens in tokenizer.words(found.tokens, "en"):
        sure = np.exp(found.logprobs[place : place + len(tokens)]).mean()
        written.append((tokenizer.text(tokens), float(sure)))
        place += len(tokens)
    return written


@define
class Peer:
    """faster-whisper in an environment of its own; ``saved``: the seconds that it took."""

    process: subprocess.Popen
    way: str
    known: dict = field(factory=dict)
    saved: float = 0.0

    @classmethod
    def start(cls, python: str, model: str, way: str) -> "Peer":
        command = [python, Path(__file__).parent / "archive" / "peers" / "files.py",
                   "--model", model, "--compute", "float32", "--threads", "1"]  # fmt: skip
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        process.stdout.readline()
        return cls(process, way)

    def __call__(self, path: Path, terms: tuple[str, ...]) -> Written:
        listed = {self.way: ", ".join(terms)} if terms else {}
        asked = {"path": str(path), "language": "en"} | listed
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        self.saved += answer["cpu"]
        return [(answer["text"], 1.0)]


def occurrences(words: list[str], phrase: list[str]) -> list[int]:
    size = len(phrase)
    return [at for at in range(len(words) - size + 1) if words[at : at + size] == phrase]


def add(totals: Totals, case: Case, text: str, listed: tuple[str, ...], score) -> None:
    """``listed``: all the terms that count as written, the longest list whatever was given."""
    hypothesis = score.norm(text, "en")
    reference = score.norm(case.clip["reference"] or "", "en")
    said = {" ".join(score.norm(term, "en")) for term in case.said}
    for term in {" ".join(score.norm(term, "en")) for term in listed} | said:
        phrase = term.split()
        there = len(occurrences(reference, phrase)) if reference else int(term in said)
        written = len(occurrences(hypothesis, phrase))
        right = min(there, written)
        totals.said += there
        totals.right += right
        totals.written += written
        totals.made_up += written - right
    totals.seconds += case.clip["duration"]
    if reference:
        terms = {word for term in said for word in term.split()}
        totals.others += sum(word not in terms for word in reference)
        totals.errors += other_errors(reference, hypothesis, terms)


def other_errors(reference: list[str], hypothesis: list[str], terms: set[str]) -> int:
    """Errors of the best alignment but for those of terms and what stands beside a missed one."""
    kinds = alignment(reference, hypothesis)
    errors = 0
    for kind, at in kinds:
        if kind in ("same", "insert"):
            continue
        errors += reference[at] not in terms
    missed = {place for place, (kind, at) in enumerate(kinds)
              if kind in ("other", "delete") and reference[at] in terms}  # fmt: skip
    for place, (kind, _) in enumerate(kinds):
        errors += kind == "insert" and not {place - 1, place + 1} & missed
    return errors


def alignment(reference: list[str], hypothesis: list[str]) -> list[tuple[str, int]]:
    table = [[i + j if not i or not j else 0 for j in range(len(hypothesis) + 1)]
             for i in range(len(reference) + 1)]  # fmt: skip
    for i, word in enumerate(reference, 1):
        for j, other in enumerate(hypothesis, 1):
            table[i][j] = min(
                table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (word != other)
            )
    kinds, i, j = [], len(reference), len(hypothesis)
    while i or j:
        differs = bool(i and j and reference[i - 1] != hypothesis[j - 1])
        if i and j and table[i][j] == table[i - 1][j - 1] + differs:
            i, j = i - 1, j - 1
            kinds.append(("other" if differs else "same", i))
        elif i and table[i][j] == table[i - 1][j] + 1:
            i -= 1
            kinds.append(("delete", i))
        else:
            j -= 1
            kinds.append(("insert", j))
    return kinds[::-1]


def report(name: str, totals: Totals, plain: Totals) -> dict:
    missed, before = totals.said - totals.right, plain.said - plain.right
    row = {"group": name, "said": totals.said, "missed": missed,
           "misses_ratio": round(missed / max(before, 1), 3),
           "recall": round(totals.right / max(totals.said, 1), 4),
           "precision": round(totals.right / max(totals.written, 1), 4),
           "made_up": totals.made_up}  # fmt: skip
    if plain.cpu:
        row["cpu_ratio"] = round(totals.cpu / plain.cpu, 3)
    if totals.others:
        row["other_wer"] = round(wer(totals), 2)
    return row


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--half", choices=("dev", "held", "all"), default="dev")
    parser.add_argument("--how", choices=HOW, default="stream")
    parser.add_argument("--peers", help="python with faster-whisper")
    parser.add_argument("--strengths", default="")
    parser.add_argument("--terms", default="10,100")
    parser.add_argument("--part", default="0/1", help="k/n: every n-th of the clips from k on")
    parser.add_argument("--untimed", action="store_true", help="faster, without cpu_ratio")
    parser.add_argument("--show", action="store_true", help="print the texts that differ")
    parser.add_argument("--counts", type=Path, default=None)
    parser.add_argument("--merge", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    return parser.parse_args()


HOW = ("stream", "turn", "offline", "hotwords", "prompt")
Run = tuple[int, float]
"""How many terms, and how strong."""


@define
class Count:
    """One clip in one run. ``absent``: none of the list's terms is said."""

    clip: str
    speaker: str
    group: str
    terms: int
    strength: float
    absent: bool
    totals: Totals
    written: Written


def main() -> None:
    arguments = parse()
    about = {"half": arguments.half, "how": arguments.how, "model": arguments.model}
    about, counts = counted(arguments, about, measured, read_count)
    publish({**conditions(), **about, "keyterms": rows(counts)}, arguments.json)


def counted(arguments: argparse.Namespace, about: dict, measured, read) -> tuple[dict, list]:
    """What ``measured`` counts, each kept in the file ``--counts`` as soon as it is there; or with
    ``--merge`` what such a file has, by ``read``, and what that was about."""
    if arguments.merge:
        found = [json.loads(line) for line in arguments.merge.read_text().splitlines()]
        return found[0]["about"], [read(each["count"]) for each in found]
    counts = []
    for count in measured(arguments):
        counts.append(count)
        if arguments.counts:
            with arguments.counts.open("a") as file:
                file.write(json.dumps({"about": about, "count": asdict(count)}) + "\n")
    return about, counts


def read_count(count: dict) -> Count:
    return Count(**{**count, "totals": Totals(**count["totals"])})


def measured(arguments: argparse.Namespace) -> Iterator[Count]:
    score = load_scorer(arguments.evaldata)
    recognizer = create(RecognizerSettings(arguments.model, device="cpu", threads=1))
    recognizer.warm_up()
    tokenizer = recognizer.vocabulary.tokenizer
    chosen = cases(arguments.evaldata, arguments.half, score,
                   lambda word: len(tokenizer.encode(" " + word)) == 1)  # fmt: skip
    first, parts = map(int, arguments.part.split("/"))
    runs = planned(arguments, recognizer.strength)
    network = recognizer.decoding.passes.network
    network.encode = encoder = Encoder(network.encode)
    if arguments.untimed:
        recognizer.decoding = Drafting(recognizer.decoding)
    if arguments.peers:
        weights = str(catalogue.resolve(arguments.model, pull=False).directory)
        encoder = Peer.start(arguments.peers, weights, arguments.how)
    for case in chosen[first::parts]:
        yield from measure(recognizer, case, runs, arguments, score, encoder)


def planned(arguments: argparse.Namespace, usual: float) -> list[Run]:
    """No terms first, which all others are compared with."""
    strengths = [float(one) for one in arguments.strengths.split(",") if one] or [usual]
    counts = [int(count) for count in arguments.terms.split(",")]
    return [(0, 0.0), *((count, strength) for strength in strengths for count in counts)]


def measure(recognizer, case, runs: list[Run], arguments, score, encoder) -> list[Count]:
    """One clip in every run: with the terms that are said in it, and with as many that are not."""
    path = arguments.evaldata / case.clip["file"]
    write = writer(recognizer, path, arguments.how, encoder)
    written: Written = []
    plain, counts = "", []
    encoder.known.clear()
    if arguments.untimed:
        recognizer.decoding.known.clear()
    for run in runs:
        recognizer.strength = run[1]
        for said in (True, False):
            if not said and (not case.clip["reference"] or run[0] == 10):
                continue
            one = case if said else Case(case.clip, [], case.others)
            if said or run[0]:
                begun, encoder.saved = time.process_time(), 0.0
                written = write(one.terms(run[0]))
                spent = time.process_time() - begun + encoder.saved
            text = " ".join(word for word, _ in written)
            count = Count(case.clip["id"], case.clip["speaker"], GROUPS[case.clip["category"]],
                          *run, not said, Totals(), written)  # fmt: skip
            count.totals.cpu = 0.0 if arguments.untimed else spent
            add(count.totals, one, text, one.terms(run[0] or 10), score)
            counts.append(count)
            plain = text if not run[0] else plain
            if arguments.show and text != plain:
                where = "said" if said else "absent"
                print(run, where, one.said, "\n  ", plain, "\n  ", text, flush=True)
    return counts


def writer(recognizer, path: Path, how: str, encoder) -> Callable[[tuple[str, ...]], Written]:
    """From a list of terms to what is written of the clip."""
    if isinstance(encoder, Peer):
        return partial(encoder, path)
    samples = load_audio(path)
    if how == "offline":
        return partial(decoded, recognizer, samples)
    return partial(streamed, recognizer, samples, tentative=how == "turn")


def rows(counts: list[Count]) -> list[dict]:
    """Of each group and run, of all groups together, and of lists none of whose terms is said."""
    plain = totals_of(counts, 0)
    found = []
    for terms, strength in dict.fromkeys((each.terms, each.strength) for each in counts):
        mine = totals_of(counts, terms, strength)
        about = {"terms": terms, "strength": strength}
        groups = sorted({each.group for each in counts})
        found += [about | report(group, mine[group], plain[group]) for group in groups]
        found.append(about | report("all", mine["all"], plain["all"]) | intervals(counts, about))
        absent = [each.totals for each in counts
                  if each.absent and (each.terms, each.strength) == (terms, strength)]  # fmt: skip
        if absent:
            found.append(about | of_absent(total(absent), plain["absent"]))
    return found


def totals_of(counts: list[Count], terms: int, strength: float = 0.0) -> dict[str, Totals]:
    kinds: dict[str, list[Totals]] = defaultdict(list)
    for each in counts:
        if (each.terms, each.strength) == (terms, strength):
            for kind in ["absent"] if each.absent else [each.group, "all"]:
                kinds[kind].append(each.totals)
    return {kind: total(each) for kind, each in kinds.items()}


def total(counts: list[Totals]) -> Totals:
    return Totals(*(sum(getattr(each, one.name) for each in counts) for one in fields(Totals)))


def wer(totals: Totals) -> float:
    return 100 * totals.errors / max(totals.others, 1)


def intervals(counts: list[Count], about: dict) -> dict[str, list[float]]:
    """Where speakers are drawn anew, with replacement."""
    chance = random.Random(SEED)
    mine: dict[str, list[Count]] = defaultdict(list)
    for each in counts:
        run = {"terms": each.terms, "strength": each.strength}
        if not each.absent and (run == about or not each.terms):
            mine[each.speaker].append(each)
    found = []
    for _ in range(DRAWS):
        drawn = [one for name in chance.choices(list(mine), k=len(mine)) for one in mine[name]]
        now = total([one.totals for one in drawn if one.terms == about["terms"]])
        plain = total([one.totals for one in drawn if not one.terms])
        row = report("", now, plain)
        found.append((row["misses_ratio"], row["precision"], wer(now) - wer(plain)))
    names = ("misses_ratio_95", "precision_95", "other_wer_more_95")
    return {
        name: [round(sorted(each)[DRAWS * at // 1_000], 3) for at in (25, 975)]
        for name, each in zip(names, zip(*found, strict=True), strict=True)
    }


def of_absent(totals: Totals, plain: Totals) -> dict:
    hours = totals.seconds / 3_600
    row = {
        "group": "none said",
        "hours": round(hours, 3),
        "made_up": totals.made_up,
        "made_up_per_hour": round(totals.made_up / hours, 2),
        "other_wer": round(wer(totals), 2),
    }
    if plain.cpu:
        row["cpu_ratio"] = round(totals.cpu / plain.cpu, 3)
    return row


if __name__ == "__main__":
    main()
