"""Who spoke, in sessions with a real server: whole conversations through its own recogniser.

    python -m benchmarks.speakers.sessions FOLDER [--half judged] [--numbers 0,1,2]
        [--endpoint ws://localhost:8080/v3/ws] [--parameters QUERY] [--together N] [--fast]
        [--rttm FOLDER] [--json FILE]

Beside one another and in real time, each with labels, and then once more without; with ``--fast``
as fast as the server takes it, and without any delays. A recognised word is of the reader whose
word was spoken nearest to its middle. ``label_delay``: from the first message in which a word was
final to the one that gave it its label; ``turn_end``: from the end of a turn's last word to the
message that ends the turn. With ``--rttm``, words for ``score.py``, whose reference is the
recogniser's own offline transcript.
"""

import argparse
import json
import re
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
import soundfile
import trio

from benchmarks.conditions import conditions, publish
from benchmarks.speakers.evaluate import right_words, share
from ssasr.bench.measure import turns
from ssasr.bench.player import Player, StreamLog, Target
from ssasr.bench.recordings import MESSAGE_SECONDS, Track, make_recording
from ssasr.client.connection import session_url
from ssasr.session.speakers.labels import PENDING

RATE = 16_000


def track_of(path):
    samples, _ = soundfile.read(path.with_suffix(".flac"), dtype="float32")
    recording = make_recording(path.stem, samples, gap=2.0)
    return Track(recording.frames, recording.speech, None, MESSAGE_SECONDS)


async def play(paths, target, together):
    logs = [StreamLog(track_of(path)) for path in paths]
    limit = trio.CapacityLimiter(together)

    async def one(log):
        async with limit:
            await Player(target, log).play()

    async with trio.open_nursery() as nursery:
        for log in logs:
            nursery.start_soon(one, log)
    assert all(log.code == 1000 for log in logs), [log.problem or log.code for log in logs]
    return logs


def shown(log):
    """Words of the ended turns: [text, start, end, label then], by turn; and the revised labels."""
    words, revised = {}, {}
    for _, text in log.arrivals:
        message = json.loads(text)
        if message["type"] == "Turn" and message["end_of_turn"]:
            words[message["turn_order"]] = [
                (w["text"], w["start"], w["end"], w.get("speaker")) for w in message["words"]
            ]
            revised[message["turn_order"]] = [w.get("speaker") for w in message["words"]]
        for turn in message.get("revisions", ()):
            revised[turn["turn_order"]] = [w["speaker"] for w in turn["words"]]
    return [w for each in words.values() for w in each], [
        w for each in revised.values() for w in each
    ]


def delays(log):
    """(of labels, of ends of turns), in seconds."""
    labels, ends = [], []
    for turn in turns(log.arrivals):
        at, last = turn.messages[-1]
        if not last["end_of_turn"] or not last["words"]:
            continue
        ends.append(at - log.began - last["words"][-1]["end"] / 1_000)
        for number, word in enumerate(last["words"]):
            final = next(
                receipt
                for receipt, message in turn.messages
                if len(message["words"]) > number
                and message["words"][number]["text"] == word["text"]
                and message["words"][number]["word_is_final"]
            )
            if word.get("speaker") != PENDING:
                labels.append(at - final)
    return labels, ends


def reader_of(words, start, end):
    """Of the reference word whose middle is nearest, in samples."""
    middle = (start + end) / 2
    return min(words, key=lambda word: abs((word[2] + word[3]) / 2 - middle))[0]


def plain(text):
    return re.sub(r"[^a-z0-9' ]", "", text.lower())


def judge(path, log, folder):
    about = json.loads(path.read_text())
    words, last = shown(log)
    first = [word[3] for word in words]
    readers = [reader_of(about["words"], 16 * start, 16 * end) for _, start, end, _ in words]
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        said = [(who, plain(text)) for who, text, _, _ in about["words"]]
        rows = {"reference": said}
        for name, labels in (("live", first), ("revised", last)):
            rows[name] = [(label, plain(w[0])) for label, w in zip(labels, words, strict=True)]
        (folder / f"{path.parent.name}-{path.stem}.words.json").write_text(json.dumps(rows))
    return {
        "words": len(words), "live": right_words(readers, first),
        "revised": right_words(readers, last), "speakers": len(about["speakers"]),
        "count": len({*last} - {PENDING}),
    }  # fmt: skip


def spread(values):
    return {f"p{p}": round(float(np.percentile(values, p)), 3) for p in (50, 95)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--half", default="judged")
    parser.add_argument("--numbers", default="0,1,2")
    parser.add_argument("--endpoint", default="ws://localhost:8080/v3/ws")
    parser.add_argument("--parameters", default="speech_model=universal-streaming-english")
    parser.add_argument("--together", type=int, default=3)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--rttm", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    paths = [given.folder / f"{given.half}-{int(n):02}.json" for n in given.numbers.split(",")]
    asked, logs = dict(parse_qsl(given.parameters)), {}
    for labels in (True,) if given.fast else (True, False):
        url = session_url(
            given.endpoint, {**asked, **({"speaker_labels": "true"} if labels else {})}
        )
        target = Target(url, "self-hosted", real_time=not given.fast)
        logs[labels] = trio.run(partial(play, paths, target, given.together))
    rows = [judge(path, log, given.rttm) for path, log in zip(paths, logs[True], strict=True)]
    found = {
        "conversations": len(rows),
        "words": sum(row["words"] for row in rows),
        "live": share(rows, "live", "words"),
        "revised": share(rows, "revised", "words"),
        "number_right": sum(row["count"] == row["speakers"] for row in rows),
    }
    if not given.fast:
        with_labels = [delays(log) for log in logs[True]]
        found |= {
            "label_delay": spread([each for labels, _ in with_labels for each in labels]),
            "turn_end": spread([each for _, ends in with_labels for each in ends]),
            "turn_end_without_labels": spread([x for log in logs[False] for x in delays(log)[1]]),
        }
    publish({**conditions(), "speaker_sessions": found}, given.json)


if __name__ == "__main__":
    main()
