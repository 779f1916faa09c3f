"""Who spoke, judged: made conversations through the engine's windows and the gateway's labels.

    python -m benchmarks.speakers.evaluate CONVERSATIONS [--half choices|judged] [--rttm FOLDER]

The words and their times are the reference's (``conversations.py``), and turns end in its pauses,
so that only who speaks is judged. What the engine hears in a window is kept beside a
conversation (``….windows``), and made anew if ``--listen`` is given. Figures: words with the right
speaker, under the best mapping of labels to speakers, as the turns end (live) and after the last
revision; conversations with the right number of speakers; with ``--rttm``, files for ``score.py``.
"""

import argparse
import json
import pickle
import time
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile

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
    """(windows, CPU seconds): of each turn, those up to its end."""
    pcm = PcmBuffer(0)
    pcm.append((samples * 32_768).round().clip(-32_768, 32_767).astype("<i2").tobytes())
    plan, start, found = WindowPlan(diarizer.hop, 0, 0), 0, []
    began = time.process_time()
    for segment, turn in enumerate(turns):
        at = min(max(word[3] for word in turn) + BOUNDARY, len(samples))
        windows = plan.due(pcm, segment, start, at, at)
        found.append([diarizer.listen([window])[0] for window in windows])
        start = at
    return found, time.process_time() - began


def live(turns, windows, limit):
    """The labels as turns end: (the policy, whether each word's label is that of its turn)."""
    labels, shown = SpeakerLabels(limit), []
    for order, (turn, heard) in enumerate(zip(turns, windows, strict=True)):
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


def rttm(name, spans):
    return "".join(
        f"SPEAKER {name} 1 {start / RATE:.3f} {(end - start) / RATE:.3f} <NA> <NA> {who} <NA> "
        "<NA>\n"
        for who, start, end in spans
    )


def judge(path, diarizer, given):
    about = json.loads(path.read_text())
    turns = turns_of(about["words"])
    kept = path.with_suffix(".windows")
    if diarizer is not None and (given.listen or not kept.exists()):
        samples, _ = soundfile.read(path.with_suffix(".flac"), dtype="float32")
        found, seconds = listened(samples, turns, diarizer)
        kept.write_bytes(pickle.dumps((found, seconds, len(samples))))
    windows, seconds, length = pickle.loads(kept.read_bytes())
    labels, shown = live(turns, windows, given.max_speakers)
    said = [word[0] for turn in turns for word in turn]
    first = [word.speaker for turn in shown for word in turn.words]
    began = time.process_time()
    revision = labels.revise()
    took = time.process_time() - began
    revised = {turn.turn_order: turn for turn in shown}
    for turn in revision.revisions if revision else ():
        revised[turn.turn_order] = turn
    last = [word.speaker for order in sorted(revised) for word in revised[order].words]
    spans = [(letter_of(labels, span), span.start, span.end) for span in labels._timeline._spans]
    return {
        "name": path.stem, "speakers": len(set(said)), "words": len(said),
        "live": right_words(said, first), "revised": right_words(said, last),
        "live_count": len(set(first) - {PENDING}), "count": len(set(last) - {PENDING}),
        "pending": sum(each == PENDING for each in first), "seconds": length / RATE,
        "cpu": seconds, "revision": took, "spans": [s for s in spans if s[0]],
        "turns": about["turns"], "pending_after": sum(each == PENDING for each in last),
    }  # fmt: skip


def letter_of(labels, span):
    """The revised speaker of what was heard, or None."""
    number = span.attribution.number
    return None if number is None else f"s{cluster(labels._timeline.samples, labels.limit)[number]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("conversations", type=Path)
    parser.add_argument("--half", default="choices", choices=("choices", "judged"))
    parser.add_argument("--rttm", type=Path)
    parser.add_argument("--listen", action="store_true")
    parser.add_argument("--max-speakers", type=int)
    given = parser.parse_args()
    timeline.KEPT = 10**12  # spans of the whole conversation, for the RTTM files
    diarizer = None
    paths = sorted(given.conversations.glob(f"{given.half}-*.json"))
    if given.listen or not all(path.with_suffix(".windows").exists() for path in paths):
        import torch

        from ssasr.engine.speakers.diarizer import VoiceDiarizer

        torch.set_num_threads(1)
        diarizer = VoiceDiarizer.load("cpu")
        diarizer.warm_up()
    results = [judge(path, diarizer, given) for path in paths]
    for each in results:
        shown = (
            "{name} {speakers} speakers ({live_count}, {count}), {words} words, {live} {revised}"
        )
        print(shown.format(**each), f"pending {each['pending']}->{each['pending_after']}")
        if given.rttm:
            given.rttm.mkdir(parents=True, exist_ok=True)
            (given.rttm / f"{each['name']}.hyp.rttm").write_text(
                rttm(each["name"], without_pauses(each["spans"]))
            )
            (given.rttm / f"{each['name']}.ref.rttm").write_text(rttm(each["name"], each["turns"]))
    summary("all", results)
    summary("2-4", [each for each in results if each["speakers"] <= 4])


def summary(name, results):
    words = sum(each["words"] for each in results)
    live, revised = (sum(each[key] for each in results) / words for key in ("live", "revised"))
    share = np.mean([each["count"] == each["speakers"] for each in results])
    cpu = sum(each["cpu"] for each in results) / sum(each["seconds"] for each in results)
    slowest = max(each["revision"] for each in results)
    print(
        f"{name}: {len(results)} conversations, {words} words; live {live:.2%}, revised "
        f"{revised:.2%}, number right {share:.0%}; {cpu:.3f} CPU s per s; revision {slowest:.3f} s"
    )


if __name__ == "__main__":
    main()
