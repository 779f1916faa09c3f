"""Diarization error of RTTM files (``evaluate --rttm``, or another system's) by pyannote.metrics,
and word errors with speakers (cpWER) by meeteval, which need an environment of their own:

    python benchmarks/speakers/score.py REFERENCES HYPOTHESES [--half choices|judged|meetings]
        [--turns]

Overlapped speech counts. The reference is the turns without what is silent for a second or more;
with ``--turns`` it is one stretch for a turn, and whoever finds the pauses in it misses speech.
Files that the hypotheses lack are left out, and counted.
"""

import argparse
import json
from pathlib import Path

from meeteval.wer import combine_error_rates
from meeteval.wer.api import cpwer
from pyannote.core import Annotation, Segment
from pyannote.metrics.diarization import DiarizationErrorRate


def load(path):
    annotation = Annotation()
    for number, line in enumerate(path.read_text().splitlines()):
        fields = line.split()
        start, length = float(fields[3]), float(fields[4])
        annotation[Segment(start, start + length), number] = fields[7]
    return annotation


def transcript(path, kind):
    """Words by speaker. ``kind``: reference, live or revised."""
    return [
        {"session_id": path.name, "speaker": str(who), "words": text,
         "start_time": number, "end_time": number + 1}
        for number, (who, text) in enumerate(json.loads(path.read_text())[kind])
    ]  # fmt: skip


def word_errors(paths, kind):
    found = (cpwer(transcript(path, "reference"), transcript(path, kind)) for path in paths)
    return combine_error_rates([each for rates in found for each in rates.values()])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("references", type=Path)
    parser.add_argument("hypotheses", type=Path)
    parser.add_argument("--half", default="judged")
    parser.add_argument("--turns", action="store_true")
    given = parser.parse_args()
    kind = "ref" if given.turns else "spoken"
    every = sorted(given.references.glob(f"*{given.half}-*.{kind}.rttm"))
    of = {path: given.hypotheses / path.name.replace(f".{kind}.", ".hyp.") for path in every}
    references = [path for path in every if of[path].exists()]
    print(f"{len(references)} files, {len(every) - len(references)} left out")
    for collar in (0.0, 0.25):
        metric, right = DiarizationErrorRate(collar=2 * collar), 0
        for path in references:
            said, found = load(path), load(of[path])
            metric(said, found)
            right += len(said.labels()) == len(found.labels())
        parts = {
            name: round(metric[name] / metric["total"], 4)
            for name in ("missed detection", "false alarm", "confusion")
        }
        print(f"collar {collar} s: {abs(metric):.2%} {parts}, speakers {right}/{len(references)}")
    words = sorted(given.hypotheses.glob(f"*{given.half}-*.words.json"))
    words = [path for path in words if json.loads(path.read_text())["reference"]]
    if words:
        live, revised = (word_errors(words, kind).error_rate for kind in ("live", "revised"))
        print(f"cpWER, {len(words)} files: live {live:.2%}, revised {revised:.2%}")


if __name__ == "__main__":
    main()
