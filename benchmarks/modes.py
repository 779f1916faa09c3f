"""What each ``mode`` does to the words of one stream: how soon, how right.

    python -m benchmarks.modes [--evaldata ../shared/evaldata] [--model tiny.en] [--half held]
        [--categories read_en,spontaneous_en] [--clips 40] [--json FILE]

The recogniser is driven as in ``benchmarks.whisper_quality`` with its clock of CPU time, each clip
in all modes one after the other. Family U: on P no word is final before its turn ends. What
silences do to turns is not seen here (``benchmarks.turn_ends``). *errors_more_95*: errors more than
in ``balanced``, in points, where speakers are drawn anew.
"""

import argparse
import random
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.conditions import conditions, publish
from benchmarks.whisper_quality import (
    Totals,
    add,
    chosen,
    load_audio,
    load_scorer,
    merge,
    report,
    stream,
)
from ssasr.engine.recognizer import RecognizerSettings
from ssasr.engine.whisper.recognizer import create
from ssasr.protocol.modes import MODES
from ssasr.protocol.recognition import StreamOptions

DRAWS = 1_000
SEED = 7
LEFT_OUT = ("category", "offline_wer", "ratio", "ttfs_p50", "ttfs_p95")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--half", choices=("dev", "held", "all"), default="held")
    parser.add_argument("--categories", default="read_en,spontaneous_en")
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--part", default="0/1", help="k/n: every n-th of the clips from k on")
    parser.add_argument("--json", type=Path, default=None)
    return parser.parse_args()


def more_errors(mode: dict[str, list[Totals]], usual: dict[str, list[Totals]]) -> list[float]:
    """By speaker, both."""

    def wer(totals: list[Totals]) -> float:
        return 100 * sum(one.errors for one in totals) / sum(one.words for one in totals)

    chance, more = random.Random(SEED), []
    for _ in range(DRAWS):
        drawn = chance.choices(sorted(mode), k=len(mode))
        one, other = ([each for name in drawn for each in which[name]] for which in (mode, usual))
        more.append(wer(one) - wer(other))
    more.sort()
    return [round(more[DRAWS * at // 1_000], 2) for at in (25, 975)]


def main() -> None:
    arguments = parse()
    score = load_scorer(arguments.evaldata)
    recognizer = create(RecognizerSettings(arguments.model, device="cpu", threads=1))
    recognizer.warm_up()
    found: dict[str, dict[str, list[Totals]]] = {mode: defaultdict(list) for mode in MODES}
    for clip in chosen(arguments, english=True):
        samples = load_audio(arguments.evaldata / clip["file"])
        for mode in MODES:
            options = StreamOptions(languages=("en",), mode=mode)
            totals = Totals()
            add(totals, clip, stream(recognizer, samples, options, time.process_time), "", score)
            found[mode][clip["speaker"]].append(totals)
    rows = []
    for mode, speakers in found.items():
        row = report("", merge([one for each in speakers.values() for one in each]))
        kept = {key: value for key, value in row.items() if key not in LEFT_OUT}
        more = more_errors(speakers, found["balanced"])
        rows.append({"mode": mode, **kept, "errors_more_95": more})
    about = {"half": arguments.half, "model": arguments.model}
    publish({**conditions(), **about, "modes": rows}, arguments.json)


if __name__ == "__main__":
    main()
