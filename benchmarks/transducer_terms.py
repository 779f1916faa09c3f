"""Key terms in the transducer: what a boost finds and makes up, with a model that knows nine texts.

    python -m benchmarks.transducer_terms [--evaldata ../shared/evaldata] [--boosts 0.5,1,1.5,2,3]
        [--json FILE]

The model is ``tests/data/learnt`` (``benchmarks.overfit_fastconformer``). No published weights can
be had here, so this shows what certainly hurts, not what a user will see. The model has its nine
texts by heart: in noise it leaves out phrases or mistakes one text for another, but writes no word
by halves, so that there is little for a term to correct. It transcribes Kennedy's sentence in noise
(white, at 0, 5 and 10 dB, ten draws each) and the eight recordings of LJ Speech, also in noise,
without a list and with lists of 10 and of all terms: words of five letters or more that are said,
then, drawn by a seed, such words of the other texts.

*found*: terms said that are written with the list and not without; *lost* the other way round.
*made_up*: terms written and not said, beyond those without a list. *other_errors_more*: words that
are no term, errors more.
"""

import argparse
import random
import re
from functools import partial
from pathlib import Path

import numpy as np
import torch
from attrs import asdict, define

from benchmarks.conditions import conditions, publish
from benchmarks.keyterms import other_errors
from benchmarks.overfit_fastconformer import Clip, clips
from benchmarks.stepping import step_until_done
from ssasr.engine.fastconformer.biasing import Edges
from ssasr.engine.fastconformer.checkpoint import load_model
from ssasr.engine.fastconformer.recognizer import FastConformerRecognizer, SileroDetector, build
from ssasr.engine.recognizer import SegmentStart, Work
from ssasr.engine.vad import SileroVad
from ssasr.protocol.recognition import StreamOptions

LEARNT = Path(__file__).parent.parent / "tests" / "data" / "learnt"
SNRS = (0, 5, 10)
DRAWS = 10
SEED = 7
SHORTEST = 5
TAIL = 16_000
KENNEDY = 10
"""Clips of his that ``overfit_fastconformer`` makes; the last of those that begin at the start is
the whole."""


@define
class Effect:
    recordings: int = 0
    said: int = 0
    missed_without: int = 0
    found: int = 0
    lost: int = 0
    made_up: int = 0
    other_errors_more: int = 0


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def noisy(audio: np.ndarray, snr: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(len(audio)).astype(np.float32)
    noise *= np.sqrt(np.mean(audio**2) / 10 ** (snr / 10))
    return np.concatenate([audio + noise, np.zeros(TAIL, np.float32)])


def recordings(evaldata: Path) -> list[Clip]:
    found = clips(evaldata)
    return [max(found[:KENNEDY], key=lambda clip: len(clip.audio)), *found[KENNEDY:]]


def written(
    recognizer: FastConformerRecognizer, audio: np.ndarray, terms: tuple[str, ...]
) -> list[str]:
    state = recognizer.new_state(StreamOptions(keyterms=terms), SegmentStart(0))
    whole = len(audio) // recognizer.chunk * recognizer.chunk
    for at in range(0, whole, recognizer.chunk):
        step_until_done(recognizer, Work(state, audio[at : at + recognizer.chunk]))
    last = step_until_done(recognizer, Work(state, audio[whole:], len(audio)))[-1]
    return words(" ".join(word.text for word in last.words))


def note(effect: Effect, said: list[str], terms, plain: list[str], now: list[str]) -> None:
    effect.recordings += 1
    for term in terms:
        there = said.count(term)
        before, after = min(there, plain.count(term)), min(there, now.count(term))
        effect.said += there
        effect.missed_without += there - before
        effect.found += max(after - before, 0)
        effect.lost += max(before - after, 0)
        effect.made_up += max(now.count(term) - there, 0) - max(plain.count(term) - there, 0)
    mine = set(terms)
    effect.other_errors_more += other_errors(said, now, mine) - other_errors(said, plain, mine)


def lists(said: list[str], every: list[str]) -> dict[int, tuple[str, ...]]:
    """By length: the terms that are said first."""
    own = sorted({word for word in said if len(word) >= SHORTEST})
    others = sorted({word for word in every if len(word) >= SHORTEST} - set(own))
    random.Random(SEED).shuffle(others)
    whole = (*own, *others)
    return {size: whole[:size] for size in (max(10, len(own)), len(whole))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--boosts", default="0.5,1,1.5,2,3")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(LEARNT, torch.device("cpu"), torch.float32)
    detector = SileroDetector(SileroVad())
    recognizer = build("overfit", LEARNT, model, detector, 560, 1)
    found = recordings(arguments.evaldata)
    every = [word for clip in found for word in words(clip.text)]
    effects: dict[tuple[str, float, str], Effect] = {}
    for number, clip in enumerate(found):
        said = words(clip.text)
        for snr in SNRS:
            for seed in range(DRAWS if not number else 1):
                audio = noisy(clip.audio, snr, seed)
                plain = written(recognizer, audio, ())
                for boost in map(float, arguments.boosts.split(",")):
                    encode = recognizer._piece_table.encode
                    recognizer._edges = partial(Edges.of, encode=encode, boost=boost)
                    for size, terms in lists(said, every).items():
                        name = "Kennedy" if not number else "LJ Speech"
                        length = "all" if size > 30 else "10"
                        effect = effects.setdefault((name, boost, length), Effect())
                        now = written(recognizer, audio, terms)
                        note(effect, said, terms, plain, now)
    rows = [{"recording": name, "boost": boost, "terms": terms, **asdict(effect)}
            for (name, boost, terms), effect in sorted(effects.items())]  # fmt: skip
    publish({**conditions(), "transducer_terms": rows}, arguments.json)


if __name__ == "__main__":
    main()
