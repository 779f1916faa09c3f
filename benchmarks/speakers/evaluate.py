"""Who spoke, judged: made conversations through the engine's windows and the gateway's labels.

    python -m benchmarks.speakers.evaluate CONVERSATIONS… [--half choices|judged|meetings]
        [--rttm FOLDER] [--json FILE]

The words and their times are the reference's (``conversations.py``), and turns end in its pauses,
so that only who speaks is judged. What the engine says of a window is kept beside a
conversation (``….windows``), and made anew if ``--listen`` is given. Figures: words with the right
speaker, under the best mapping of labels to speakers, as the turns end (live) and after the last
revision, with intervals by bootstrap over conversations; conversations with the right number of
speakers; with ``--rttm``, files for ``score.py``.
"""

import argparse
import json
import pickle
import time
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.conditions import conditions, publish
from ssasr.engine.pcm_buffer import PcmBuffer
from ssasr.engine.speakers.windows import WindowPlan
from ssasr.protocol.messages import Turn, TurnWord
from ssasr.session.speakers import timeline
from ssasr.session.speakers.assignment import best_assignment
from ssasr.session.speakers.clusters import cluster
from ssasr.session.speakers.labels import PENDING, SpeakerLabels

RATE = 16_000
SILENCE = 640 * RATE // 1_000
"""Of the reference, that ends a turn."""
BOUNDARY = 480 * RATE // 1_000
"""After the last word, where the turn is cut."""
LONGEST = 60 * RATE
SILENT = 10 ** (-25 / 20)
"""Of a turn's root mean square."""


def turns_of(words):
    """Words grouped into turns: (words, end of the turn)."""
    turns, current = [], []
    for word in words:
        ended = current and (
            word[2] - max(each[3] for each in current) >= SILENCE
            or word[3] - current[0][2] > LONGEST
        )
        if ended:
            turns.append(current)
            current = []
        current.append(word)
    return [*turns, current] if current else turns


def listened(samples, turns, diarizer, batch=1):
    """(windows, CPU seconds): of each turn, those up to its end; without any, of all of it."""
    pcm = PcmBuffer(0)
    pcm.append((samples * 32_768).round().clip(-32_768, 32_767).astype("<i2").tobytes())
    plan, start, found = WindowPlan(diarizer.hop, 0, 0), 0, []
    began = time.process_time()
    ends = [min(max(word[3] for word in turn) + BOUNDARY, len(samples)) for turn in turns]
    for segment, at in enumerate(ends or [len(samples)]):
        windows = plan.due(pcm, segment, start, at, at)
        found.append([diarizer.find_voices([window])[0] for window in windows])
        start = at
    return found, time.process_time() - began


def live(turns, windows, limit):
    """The labels as turns end: (the policy, whether each word's label is that of its turn)."""
    labels, shown = SpeakerLabels(limit), []
    for order, (turn, heard) in enumerate(zip(turns or [[]], windows, strict=True)):
        labels.update(heard)
        words = tuple(
            TurnWord(text, start * 1_000 // RATE, end * 1_000 // RATE, 1.0, True)
            for _, text, start, end in turn
        )
        shown.append(labels.label(Turn(order, True, True, "", "", 1.0, words)))
    return labels, shown


def right_words(speakers, labels):
    """How many words have the right speaker under the best mapping of labels."""
    names, letters = sorted(set(speakers)), sorted(set(labels) - {PENDING})
    common = Counter(zip(speakers, labels, strict=True))
    gains = [[common[name, each] for each in letters] for name in names]
    return sum(gains[row][column] for row, column in best_assignment(gains))


def without_pauses(spans):
    """One speaker's stretches with less than a second between, in which nobody else speaks, as
    one: so is the reference."""
    joined = {}
    for who, start, end in sorted(spans, key=lambda span: span[1]):
        mine = joined.setdefault(who, [])
        gap = (mine[-1][2], start) if mine else (0, RATE + 1)
        others = any(a < gap[1] and b > gap[0] and name != who for name, a, b in spans)
        if gap[1] - gap[0] <= RATE and not others:
            mine[-1] = (who, mine[-1][1], max(end, mine[-1][2]))
        else:
            mine.append((who, start, end))
    return [span for each in joined.values() for span in each]


def without_silence(spans, samples):
    """The reference's turns without stretches of a second or more that are as good as silent: the
    times of its words reach across them."""
    block = RATE // 20
    loudness = np.sqrt((samples[: len(samples) // block * block].reshape(-1, block) ** 2).mean(1))
    kept = []
    for who, start, end in spans:
        turn = loudness[start // block : end // block]
        loud = np.flatnonzero(turn > SILENT * np.sqrt((turn**2).mean()))
        breaks = np.flatnonzero(np.diff(loud) > RATE // block)
        firsts, lasts = (loud[[0, *(breaks + 1)]], loud[[*breaks, -1]] + 1)
        kept += [
            (who, max(start, start // block * block + int(first) * block),
             min(end, start // block * block + int(last) * block))
            for first, last in zip(firsts, lasts, strict=True)
        ]  # fmt: skip
    return kept


def rttm(name, spans):
    return "".join(
        f"SPEAKER {name} 1 {start / RATE:.3f} {(end - start) / RATE:.3f} <NA> <NA> {who} <NA> "
        "<NA>\n"
        for who, start, end in spans
    )


def judge(path, diarizer, given):
    about = json.loads(path.read_text())
    name = f"{path.parent.name}-{path.stem}"
    turns = turns_of(about["words"])
    kept = path.with_suffix(".windows")
    if diarizer is not None and (given.listen or not kept.exists()):
        samples, _ = soundfile.read(path.with_suffix(".flac"), dtype="float32")
        found, seconds = listened(samples, turns, diarizer)
        kept.write_bytes(pickle.dumps((found, seconds, len(samples))))
    windows, seconds, length = pickle.loads(kept.read_bytes())
    labels, shown = live(turns, windows, given.max_speakers)
    began = time.process_time()
    last = revised_labels(labels, shown)
    took = time.process_time() - began
    said = [word for turn in turns for word in turn]
    readers = [word[0] for word in said]
    first = [word.speaker for turn in shown for word in turn.words]
    if given.rttm:
        samples, _ = soundfile.read(path.with_suffix(".flac"), dtype="float32")
        spoken = without_silence(about["turns"], samples)
        references = {"ref": about["turns"], "spoken": spoken}
        write_files(given.rttm, name, labels, references, zip(said, first, last, strict=True))
    return {
        "name": name, "speakers": len(about["speakers"]), "words": len(said),
        "live": right_words(readers, first), "revised": right_words(readers, last),
        "live_count": len(set(first) - {PENDING}), "count": len(set(last) - {PENDING}),
        "pending": sum(each == PENDING for each in first), "seconds": length / RATE,
        "cpu": seconds, "revision": took, "pending_after": sum(each == PENDING for each in last),
    }  # fmt: skip


def revised_labels(labels, shown):
    """Of all words, after the last revision."""
    revised = {turn.turn_order: turn for turn in shown}
    revision = labels.revise()
    for turn in revision.revisions if revision else ():
        revised[turn.turn_order] = turn
    return [word.speaker for order in sorted(revised) for word in revised[order].words]


def write_files(folder, name, labels, references, words):
    """For ``score.py``: who speaks when, in the references and found, and who says which word."""
    folder.mkdir(parents=True, exist_ok=True)
    speakers = cluster(labels._timeline.samples, labels.limit)
    known = [each for each in labels._timeline._spans if each.attribution.number is not None]
    spans = []
    for span in labels._timeline._spans if known else ():
        nearest = min(known, key=lambda each: max(each.start - span.end, span.start - each.end, 0))
        one = span if span.attribution.number is not None else nearest
        spans.append((f"s{speakers[one.attribution.number]}", span.start, span.end))
    (folder / f"{name}.hyp.rttm").write_text(rttm(name, without_pauses(spans)))
    for kind, turns in references.items():
        (folder / f"{name}.{kind}.rttm").write_text(rttm(name, turns))
    rows = {"reference": [], "live": [], "revised": []}
    for (reader, text, _, _), first, last in words:
        for column, who in zip(rows.values(), (reader, first, last), strict=True):
            column.append((who, text))
    (folder / f"{name}.words.json").write_text(json.dumps(rows))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("conversations", type=Path, nargs="+")
    parser.add_argument("--half", default="choices", choices=("choices", "judged", "meetings"))
    parser.add_argument("--rttm", type=Path)
    parser.add_argument("--listen", action="store_true")
    parser.add_argument("--max-speakers", type=int)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main():
    given = arguments()
    timeline.KEPT = 10**12  # spans of the whole conversation, for the RTTM files
    diarizer = None
    paths = [
        path for each in given.conversations for path in sorted(each.glob(f"{given.half}-*.json"))
    ]
    if given.listen or not all(path.with_suffix(".windows").exists() for path in paths):
        import torch

        from ssasr.engine.speakers.diarizer import VoiceDiarizer

        torch.set_num_threads(1)
        diarizer = VoiceDiarizer.load("cpu")
        diarizer.warm_up()
    results = [judge(path, diarizer, given) for path in paths]
    for each in results:
        print(
            "{name} {speakers} speakers ({live_count}, {count}), {words} words, {live} {revised} "
            "pending {pending}->{pending_after}".format(**each)
        )
    few = [each for each in results if each["speakers"] <= 4]
    found = {"all": summary(results), "two to four": summary(few)} if results[0]["words"] else {}
    publish({**conditions(), "half": given.half, "speakers": found}, given.json)


def summary(results):
    """Shares, each with its interval of 95 %."""
    return {
        "conversations": len(results),
        "minutes": round(sum(each["seconds"] for each in results) / 60, 1),
        "words": sum(each["words"] for each in results),
        "live": share(results, "live", "words"),
        "revised": share(results, "revised", "words"),
        "number_right": round(np.mean([each["count"] == each["speakers"] for each in results]), 3),
        "cpu_s_per_s": share(results, "cpu", "seconds"),
        "slowest_revision_s": round(max(each["revision"] for each in results), 3),
    }


def share(results, part, whole):
    """(share, lower and upper end of its interval), by bootstrap over conversations."""
    parts, wholes = (np.array([each[key] for each in results]) for key in (part, whole))
    drawn = np.random.default_rng(0).integers(0, len(results), (2_000, len(results)))
    shares = parts[drawn].sum(axis=1) / np.maximum(wholes[drawn].sum(axis=1), 1)
    ends = np.percentile(shares, (2.5, 97.5))
    return [round(float(each), 4) for each in (parts.sum() / max(wholes.sum(), 1), *ends)]


if __name__ == "__main__":
    main()
