"""Diarization error of RTTM files (``evaluate --rttm``, or another system's), by pyannote.metrics,
which needs an environment of its own:

    python benchmarks/speakers/score.py REFERENCES HYPOTHESES [--half choices|judged]

Overlapped speech counts. The reference is one stretch for a turn, so the pauses in it are missed by
whoever finds them.
"""

import argparse
from pathlib import Path

from pyannote.core import Annotation, Segment
from pyannote.metrics.diarization import DiarizationErrorRate


def load(path):
    annotation = Annotation()
    for number, line in enumerate(path.read_text().splitlines()):
        fields = line.split()
        start, length = float(fields[3]), float(fields[4])
        annotation[Segment(start, start + length), number] = fields[7]
    return annotation


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("references", type=Path)
    parser.add_argument("hypotheses", type=Path)
    parser.add_argument("--half", default="judged")
    given = parser.parse_args()
    for collar in (0.0, 0.25):
        metric, right = DiarizationErrorRate(collar=2 * collar), 0
        references = sorted(given.references.glob(f"{given.half}-*.ref.rttm"))
        for path in references:
            hypothesis = given.hypotheses / path.name.replace(".ref.", ".hyp.")
            said, found = load(path), load(hypothesis)
            metric(said, found)
            right += len(said.labels()) == len(found.labels())
        parts = {
            name: round(metric[name] / metric["total"], 4)
            for name in ("missed detection", "false alarm", "confusion")
        }
        print(f"collar {collar} s: {abs(metric):.2%} {parts}, speakers {right}/{len(references)}")


if __name__ == "__main__":
    main()
