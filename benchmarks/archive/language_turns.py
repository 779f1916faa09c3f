"""Whether each turn gets its own language when speakers of several share one session.

    python -m benchmarks.archive.language_turns [--evaldata ../shared/evaldata]
        [--half dev|held|all]
        [--each 4] [--seed 3] [--order mixed|grouped] [--codes] [--json FILE]

Clips of all the languages, at most ``--each`` of one, in a random order in which no two of the same
language follow each other, or (grouped) one language after the other, with two seconds of silence
after each, through the public protocol into ``ssasr serve --engines multilingual`` as fast as it
takes them. The session asks for language detection and is told nothing else, or (``--codes``) which
languages there are. A turn belongs to the clip that most of its words lie in; the
language of a clip is that of its last turn. Errors are those of all the words of its turns, beside
them those of the whole clip decoded at once in its language.
"""

import argparse
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import trio

from benchmarks.conditions import conditions, publish
from benchmarks.operations import serving
from benchmarks.whisper_quality import clips_of, load_audio, load_scorer, offline
from ssasr.client.connection import open_session
from ssasr.client.sound import to_pcm
from ssasr.engine.recognizer import RecognizerSettings
from ssasr.engine.whisper.recognizer import create
from ssasr.protocol.codec import encode
from ssasr.protocol.messages import Terminate, Termination, Turn
from ssasr.protocol.recognition import SAMPLE_RATE

PAUSE = 2 * SAMPLE_RATE
SHORTEST, LONGEST = 1.5, 28.0
"""Seconds; a whole clip has to fit into one decode."""
PARAMETERS = {
    "sample_rate": SAMPLE_RATE,
    "encoding": "pcm_s16le",
    "speech_model": "universal-streaming-multilingual",
    "language_detection": "true",
}


def mixed(given: argparse.Namespace) -> list[dict]:
    """The clips in their order."""
    clips = [clip for clip in clips_of(given.evaldata, given.half) if clip["reference"]]
    clips = [clip for clip in clips if SHORTEST <= clip["duration"] <= LONGEST]
    chance = random.Random(given.seed)
    chance.shuffle(clips)
    left: dict[str, list[dict]] = {}
    for clip in clips:
        if len(left.setdefault(clip["language"], [])) < given.each:
            left[clip["language"]].append(clip)
    order: list[dict] = []
    while choice := [name for name in left if left[name] and name != last_language(order)]:
        # The most numerous first, or it is left over at the end.
        most = max(len(left[name]) for name in choice)
        name = chance.choice([name for name in choice if len(left[name]) == most])
        order.append(left[name].pop())
    if given.order == "grouped":
        order.sort(key=lambda clip: clip["language"])
    return order


def last_language(clips: list[dict]) -> str | None:
    return clips[-1]["language"] if clips else None


async def turns_of(endpoint: str, parameters: dict[str, object], audio: np.ndarray) -> list[Turn]:
    """The ends of turns."""
    found: list[Turn] = []

    async def send(session) -> None:
        for at in range(0, len(audio), SAMPLE_RATE // 10):
            await session.send_audio(to_pcm(audio[at : at + SAMPLE_RATE // 10]))
        await session.send_json(encode(Terminate()))

    async with open_session(endpoint, parameters) as session, trio.open_nursery() as nursery:
        nursery.start_soon(send, session)
        while not isinstance(message := await session.receive(), Termination):
            assert message is not None, "the session ended before its Termination"
            if isinstance(message, Turn) and message.end_of_turn:
                found.append(message)
    return found


def owner(turn: Turn, ends: list[float]) -> int:
    """The clip in which most of the turn's words lie."""
    middles = [(word.start + word.end) / 2_000 for word in turn.words]
    places = [sum(middle > end for end in ends) for middle in middles]
    return min(Counter(places).most_common(1)[0][0], len(ends) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--half", choices=("dev", "held", "all"), default="dev")
    parser.add_argument("--each", type=int, default=4)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--order", choices=("mixed", "grouped"), default="mixed")
    parser.add_argument("--codes", action="store_true", help="tell the session which languages")
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    score = load_scorer(given.evaldata)
    clips = mixed(given)
    sounds = [load_audio(given.evaldata / clip["file"]) for clip in clips]
    parameters = dict(PARAMETERS)
    if given.codes:
        parameters["language_codes"] = json.dumps(sorted({clip["language"] for clip in clips}))
    pause = np.zeros(PAUSE, np.float32)
    audio = np.concatenate([part for sound in sounds for part in (sound, pause)])
    ends = (np.cumsum([len(sound) + PAUSE for sound in sounds]) / SAMPLE_RATE).tolist()
    with serving("--engines", "multilingual", "--device", "cpu") as endpoint:
        turns = [turn for turn in trio.run(turns_of, endpoint, parameters, audio) if turn.words]
    recognizer = create(RecognizerSettings("multilingual", device="cpu", threads=1))
    owned = [[turn for turn in turns if owner(turn, ends) == place] for place in range(len(clips))]
    rows = [row_of(*each, recognizer, score) for each in zip(clips, sounds, owned, strict=True)]
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    heard = [row for row in rows if row["turns"]]
    total = {
        "clips": len(rows),
        "audio_s": round(len(audio) / SAMPLE_RATE, 1),
        "without_a_turn": len(rows) - len(heard),
        "language_right": sum(row["language"] == row["heard"] for row in heard),
        "words": sum(row["words"] for row in rows),
        "errors": sum(row["errors"] for row in rows),
        "offline_errors": sum(row["offline_errors"] for row in rows),
    }
    publish({**conditions(), "language_turns": total, "clips": rows}, given.json)


def row_of(clip: dict, sound: np.ndarray, turns: list[Turn], recognizer, score) -> dict:
    language = clip["language"]
    reference = score.norm(clip["reference"], language)
    text = " ".join(turn.transcript for turn in turns)
    whole = offline(recognizer, sound, language)
    last = turns[-1] if turns else None
    return {
        "id": clip["id"],
        "language": language,
        "turns": len(turns),
        "heard": last and last.language_code,
        "confidence": last and last.language_confidence and round(last.language_confidence, 2),
        "words": len(reference),
        "errors": score.dist(reference, score.norm(text, language)),
        "offline_errors": score.dist(reference, score.norm(whole, language)),
    }


if __name__ == "__main__":
    main()
