"""Recall and precision of redaction, on generated turns (``redaction_corpus``).

    python -m benchmarks.redaction --templates once --out benchmarks/results/redaction.json

An entity is found if all its words are hidden in a session that asks for its policy alone.
Precision is that of stretches of hidden words with all policies of the corpus asked for: right if
anything of an entity is in it. ``--recall FILE`` writes what ``GET /v1/status`` says, ``--page
docs/redaction.md`` the guide's table.

``latency``: from a final turn to its findings, through the detector's own process, one turn after
the other; ``memory_mib``: that process's.
"""

import argparse
import json
import os
import statistics
import time
from collections import Counter
from math import sqrt
from pathlib import Path

import trio

from benchmarks.conditions import conditions
from benchmarks.redaction_corpus import CHOICES, HARD, ONCE, POLICIES, Corpus
from ssasr.gateway.redaction.detector import Detector
from ssasr.gateway.redaction.model import load
from ssasr.gateway.redaction.policies import policies_of
from ssasr.gateway.redaction.process import detector_process
from ssasr.models import catalogue

MODEL = "en-core-web-sm"


def stretches(flags):
    """First and last index of each run of what is true."""
    first = None
    for index, flag in enumerate([*flags, None]):
        if flag and first is None:
            first = index
        elif not flag and first is not None:
            yield first, index - 1
            first = None


def entities(policies):
    for policy in dict.fromkeys(filter(None, policies)):
        for first, last in stretches([each == policy for each in policies]):
            yield policy, first, last


def wilson(right, count):
    """The 95 % interval of a share."""
    if count == 0:
        return None
    z, p = 1.96, right / count
    middle, half = p + z * z / (2 * count), z * sqrt(p * (1 - p) / count + z * z / (4 * count**2))
    return [round((middle + sign * half) / (1 + z * z / count), 4) for sign in (-1, 1)]


class Tally:
    def __init__(self):
        self.entities, self.found = Counter(), Counter()
        self.stretches = self.right = 0
        self.false_turns = 0

    def add(self, detector, words, policies):
        findings = detector.find(words)
        for policy, first, last in entities(policies):
            hidden = policies_of(findings, frozenset({policy}), len(words))
            self.entities[policy] += 1
            self.found[policy] += all(hidden[first : last + 1])
        hidden = policies_of(findings, frozenset(POLICIES), len(words))
        for first, last in stretches([each is not None for each in hidden]):
            self.stretches += 1
            self.right += any(policies[first : last + 1])

    def result(self):
        return {
            "recall": {
                policy: {
                    "recall": round(self.found[policy] / count, 4),
                    "entities": count,
                    "interval": wilson(self.found[policy], count),
                }
                for policy, count in sorted(self.entities.items())
            },
            "precision": round(self.right / self.stretches, 4),
            "precision_interval": wilson(self.right, self.stretches),
        }


def measure(detector, templates, turns, rate, seed):
    corpus = Corpus(seed)
    tally = Tally()
    for number in range(turns):
        for source in (templates, HARD):
            words, policies = corpus.turn(source[number % len(source)])
            tally.add(detector, *corpus.misheard(words, policies, rate))
    return tally.result()


def child_memory():
    """Of this process's only child, in MiB."""
    lists = Path("/proc/self/task").glob("*/children")  # by the thread that started each
    (child,) = " ".join(each.read_text() for each in lists).split()
    pages = int(Path(f"/proc/{child}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)


async def through_process(model, templates, turns, seed):
    """Milliseconds from words to findings, and the process's memory afterwards, in MiB."""
    corpus = Corpus(seed)
    taken = []
    async with detector_process(model) as detector:
        for number in range(turns):
            words, _ = corpus.turn(templates[number % len(templates)])
            began = time.perf_counter()
            await detector.find(words, frozenset(POLICIES))
            taken.append(1_000 * (time.perf_counter() - began))
        memory = child_memory()
    cuts = statistics.quantiles(taken, n=100)
    latency = {"p50": round(cuts[49], 1), "p95": round(cuts[94], 1), "p99": round(cuts[98], 1)}
    return latency, memory


def table(result):
    """The recall of each policy as Markdown (docs/redaction.md)."""
    rates = result["word_errors"]
    lines = ["| policy | entities | 0 % | 5 % | 10 % |", "| --- | --- | --- | --- | --- |"]
    for policy, clean in rates["0%"]["recall"].items():
        shares = " | ".join(f"{rates[rate]['recall'][policy]['recall']:.2f}" for rate in rates)
        lines.append(f"| `{policy}` | {clean['entities']} | {shares} |")
    precision = " | ".join(f"{rates[rate]['precision']:.2f}" for rate in rates)
    return "\n".join([*lines, f"| precision over all | | {precision} |"])


def insert(page, result):
    """The page with this result's table in place of the one it has."""
    start = page.index("| policy | entities |")
    return page[:start] + table(result) + page[page.index("\n\n", start) :]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--turns", type=int, default=2_000, help="with entities, and as many without"
    )
    parser.add_argument("--templates", choices=("choices", "once"), default="choices")
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--recall", type=Path)
    parser.add_argument("--page", type=Path, help="whose table is to be this result's")
    given = parser.parse_args()
    folder = catalogue.resolve(given.model, pull=False).directory
    detector = Detector(load(folder))
    templates = CHOICES if given.templates == "choices" else ONCE
    began = time.process_time()
    rates = {
        f"{rate:.0%}": measure(detector, templates, given.turns, rate, given.seed)
        for rate in (0.0, 0.05, 0.1)
    }
    cpu = (time.process_time() - began) / (6 * given.turns)
    latency, memory = trio.run(through_process, folder, templates, 500, given.seed)
    result = {
        **conditions(), "turns": given.turns, "templates": given.templates,
        "seed": given.seed, "model": given.model, "cpu_ms_per_turn": round(1_000 * cpu, 2),
        "latency_ms": latency, "memory_mib": memory,
        "word_errors": rates,
    }  # fmt: skip
    for rate, figures in rates.items():
        print(rate, "precision", figures["precision"])
        for policy, each in figures["recall"].items():
            print(f"    {policy:28} {each['recall']:.3f} of {each['entities']}")
    print("CPU ms a turn", result["cpu_ms_per_turn"])
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")
    if given.page:
        given.page.write_text(insert(given.page.read_text(), result))
    if given.recall:
        clean = rates["0%"]["recall"]
        recall = {"en": {policy: each["recall"] for policy, each in clean.items()}}
        given.recall.write_text(json.dumps(recall, indent=1) + "\n")


if __name__ == "__main__":
    main()
