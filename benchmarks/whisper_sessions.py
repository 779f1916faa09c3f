"""Whole sessions of the English engine, replayed from kept decodes, beside an offline decoder.

    python -m benchmarks.whisper_sessions --offline FILE --keep FILE [--evaldata ../shared/evaldata]
        [--query speech_model=...] [--shuffles 5] [--processes 1] [--json FILE] [--show]
    python -m benchmarks.whisper_sessions --offline FILE --device cuda:0 [...]

Engine stream, recogniser, segment policy and turn policy are the real ones, one session a clip,
without their processes. What the networks say of a piece of audio is kept (``--keep``, SQLite) and
looked up the next time, so that another policy costs a few new decodes and no more; another model,
kernel or way to decode needs another file. Without ``--keep`` nothing is: the words of a GPU
(``--device``), or of float32 (``--precision``). Lags count audio only: from the end of a word to
the position at which it was seen, or final. ``--offline``: texts of the same clips by
``archive/peers/offline.py``, a decoder that is not ours.

``ends``: of the turns that ended within a clip, by the offline text: at the end of a sentence or
within one, with a full stop or without; and turns that begin with a small letter, where that text
has one or not. With ``--query format_turns=true`` or a model of family P only.

The ratio of the two word error rates comes with the interval of a bootstrap over speakers, and with
its values over ``--shuffles`` random halves of them.
"""

import argparse
import hashlib
import json
import multiprocessing
import pickle
import random
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import torch
from attrs import define, evolve, field

from benchmarks.conditions import conditions, publish
from benchmarks.whisper_quality import load_audio, load_scorer
from ssasr.engine.recognizer import RecognizerSettings, Work
from ssasr.engine.streams import Stream, StreamId, answers
from ssasr.engine.vad import VadState
from ssasr.engine.whisper.recognizer import WhisperRecognizer, create
from ssasr.protocol.messages import Turn
from ssasr.protocol.parameters import parse_parameters
from ssasr.protocol.recognition import SAMPLE_RATE, Audio, Finalize, Open, Update
from ssasr.protocol.settings import stream_options, turn_settings
from ssasr.protocol.text import ends_sentence
from ssasr.session.turns import Send, TurnPolicy

GROUPS = {"read": ("read_en", "speech_en", "longform_en"), "spontaneous": ("spontaneous_en",),
          "telephone": ("telephony_8k_en", "telephony_8k_digits_en")}  # fmt: skip
DRAWS = 2_000
MESSAGE = 1_600


class Kept:
    """Stands before the networks of a recogniser: what they said once they are not asked again."""

    def __init__(self, recognizer: WhisperRecognizer, file: Path) -> None:
        self.base = sqlite3.connect(file, timeout=60)
        self.base.execute("create table if not exists kept (key blob primary key, value blob)")
        self.decodes, self.seconds, self.judged = 0, 0.0, 0
        self._decode, recognizer._decode = recognizer._decode, self.decode
        self._judge, recognizer._smart_turn = recognizer._smart_turn, self
        self._vad, recognizer._vad = recognizer._vad, self

    def _look_up(self, kind: str, what: bytes, make):
        key = hashlib.sha1(kind.encode() + what).digest()
        row = self.base.execute("select value from kept where key = ?", (key,)).fetchone()
        if row:
            return pickle.loads(row[0])
        begun = time.process_time()
        made = make()
        value = made, time.process_time() - begun
        self.base.execute("insert or replace into kept values (?, ?)", (key, pickle.dumps(value)))
        return value

    def decode(self, requests, dues):
        return [self._one(*pair) for pair in zip(requests, dues, strict=True)]

    def _one(self, asked, due):
        def make():
            moved = evolve(due, begin=0, end=due.end - due.begin)
            found, spoken = self._decode([asked], [moved])[0]
            return evolve(found, scores=np.zeros((1, 0, 0), np.float32)), spoken

        what = f"{asked.language} ".encode() + asked.samples.tobytes()
        (found, spoken), seconds = self._look_up("decode", what, make)
        self.decodes += 1
        self.seconds += seconds
        placed = [
            evolve(one, word=evolve(one.word, start=one.word.start + due.begin,
                                    end=one.word.end + due.begin)) for one in spoken
        ]  # fmt: skip
        return found, placed

    def probability(self, sounds):
        self.judged += len(sounds)
        make = self._judge.probability
        found = [self._look_up("turn", one.tobytes(), lambda: make([one]).tolist()[0])[0]  # noqa: B023
                 for one in sounds]  # fmt: skip
        return torch.tensor(found)

    def initial_state(self, n, device):
        return self._vad.initial_state(n, device)

    def detect(self, frames, state):
        def make():
            result, after = self._vad.detect(frames, state)
            return result.numpy(), after.h.numpy(), after.c.numpy(), after.context.numpy()

        what = b"".join(t.numpy().tobytes() for t in (frames, state.h, state.c, state.context))
        result, *after = self._look_up("vad", what, make)[0]
        return torch.from_numpy(result), VadState(*(torch.from_numpy(one) for one in after))


@define(eq=False, slots=False)
class Session:
    """One client; ``said`` are its messages with the positions at which they were decided."""

    recognizer: WhisperRecognizer
    query: str
    said: list[tuple[int, Turn]] = field(factory=list)

    def run(self, samples: np.ndarray, *, update=lambda _: None) -> "Session":
        """The whole recording, then the end of the session. ``update``: sees the engine's news."""
        parameters = parse_parameters(self.query)
        policy = TurnPolicy(turn_settings(parameters), chunk=self.recognizer.chunk)
        opening = Open("s", stream_options(parameters))
        stream = Stream(StreamId(0, 0), opening, self.recognizer.chunk)
        scaled = np.clip(np.round(samples * 32_768), -32_768, 32_767).astype("<i2")
        self._position = 0
        for at in range(0, len(scaled), MESSAGE):
            stream.receive(Audio(at, scaled[at : at + MESSAGE].tobytes()))
            self._go_on(stream, policy, update)
        self._perform(stream, policy.force(len(scaled)))
        self._go_on(stream, policy, update)
        assert policy.settled(len(scaled)), "the last turn has ended"
        return self

    def _go_on(self, stream: Stream, policy: TurnPolicy, update) -> None:
        while stream.ready:
            for answer in self._step(stream):
                if isinstance(answer, Update):
                    update(answer)
                    self._position = max(self._position, answer.position)
                    self._perform(stream, policy.update(answer))
                else:
                    self._perform(stream, policy.final(answer))

    def _perform(self, stream: Stream, decisions) -> None:
        for decision in decisions:
            if isinstance(decision, Finalize):
                stream.receive(decision)
            elif isinstance(decision, Send) and isinstance(decision.message, Turn):
                self.said.append((self._position, decision.message))

    def _step(self, stream: Stream):
        take = stream.take()
        if take.fresh:
            stream.state = self.recognizer.new_state(take.options, take.start)
        outcome = self.recognizer.step([Work(stream.state, take.audio, take.final_at)])[0]
        if take.final_at is not None or outcome.unfinished or take.more:
            for state in stream.settle(take, outcome):
                self.recognizer.release(state)
        return answers(take, outcome)

    # -- what came of it ---------------------------------------------------------------------------

    @property
    def turns(self) -> list[Turn]:
        return [turn for _, turn in self.said if turn.end_of_turn]

    @property
    def text(self) -> str:
        return " ".join(word.text for turn in self.turns for word in turn.words)

    def lags(self) -> tuple[list[float], list[float]]:
        """Seconds of audio from the end of each last word to where it was first seen, final."""
        last = {turn.turn_order: turn.words for turn in self.turns}
        seen, final = {}, {}
        for position, turn in self.said:
            words = last.get(turn.turn_order, ())
            for place, (word, told) in enumerate(zip(words, turn.words, strict=False)):
                lag = position / SAMPLE_RATE - word.end / 1_000
                if bare(word.text) == bare(told.text):
                    seen.setdefault((turn.turn_order, place), lag)
                if told.word_is_final:
                    final.setdefault((turn.turn_order, place), lag)
        return list(seen.values()), list(final.values())


def bare(text: str) -> str:
    return text.casefold().strip(".,!?;:")


def ends_within(turns: list[list[str]], offline: list[str]) -> Counter[str]:
    """Words of the turns of a clip, and of the offline text."""
    said, count = [word for turn in turns for word in turn], Counter()
    theirs = dict[int, str]()
    alike = SequenceMatcher(None, list(map(bare, said)), list(map(bare, offline)), autojunk=False)
    for block in alike.get_matching_blocks():
        theirs |= {block.a + n: offline[block.b + n] for n in range(block.size)}
    at = 0
    for turn in turns[:-1]:
        at += len(turn)
        if at - 1 in theirs:
            place = "at_end" if ends_sentence(theirs[at - 1]) else "within"
            count[f"{place}_{'with' if ends_sentence(turn[-1]) else 'without'}_stop"] += 1
        if at in theirs and said[at][:1].islower():
            count[f"small_{'also' if theirs[at][:1].islower() else 'not'}_offline"] += 1
    return count


def recogniser(keep: Path, model: str = "tiny.en") -> tuple[WhisperRecognizer, Kept]:
    recognizer = single_recognizer(RecognizerSettings(model, device="cpu", threads=1))
    return recognizer, Kept(recognizer, keep)


def single_recognizer(settings: RecognizerSettings) -> WhisperRecognizer:
    """One that uses one thread and no processes of its own."""
    torch.set_num_threads(1)
    recognizer = create(settings)
    recognizer._pool = type(recognizer._pool)(0)
    recognizer.warm_up()
    return recognizer


@define
class Clip:
    """One clip's errors and words, and whose it is."""

    name: str
    category: str
    speaker: str
    errors: int
    offline: int
    words: int


def clips_of(evaldata: Path) -> list[dict]:
    lines = (evaldata / "manifest.dev.jsonl").read_text("utf-8").splitlines()
    wanted = [one for names in GROUPS.values() for one in names]
    clips = [clip for clip in map(json.loads, lines)
             if clip["category"] in wanted and clip["reference"] is not None]  # fmt: skip
    random.Random(3).shuffle(clips)
    return clips


def ratio(clips: list[Clip]) -> float:
    return sum(one.errors for one in clips) / max(1, sum(one.offline for one in clips))


def interval(clips: list[Clip]) -> list[float]:
    """95 % of a bootstrap over speakers."""
    speakers: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        speakers[clip.speaker].append(clip)
    names, chance = sorted(speakers), random.Random(1)
    drawn = []
    for _ in range(DRAWS):
        again = chance.choices(names, k=len(names))
        drawn.append(ratio([clip for name in again for clip in speakers[name]]))
    return np.percentile(drawn, [2.5, 97.5]).round(3).tolist()


def summary(clips: list[Clip], shuffles: int) -> dict:
    words = sum(one.words for one in clips)
    speakers = sorted({clip.speaker for clip in clips})
    halves = []
    for number in range(shuffles):
        half = set(random.Random(number).sample(speakers, len(speakers) // 2))
        halves.append(round(ratio([clip for clip in clips if clip.speaker in half]), 3))
    return {
        "clips": len(clips), "speakers": len(speakers), "words": words,
        "errors": sum(one.errors for one in clips),
        "offline_errors": sum(one.offline for one in clips),
        "wer": round(100 * sum(one.errors for one in clips) / words, 2),
        "offline_wer": round(100 * sum(one.offline for one in clips) / words, 2),
        "ratio": round(ratio(clips), 3), "interval": interval(clips), "halves": halves,
    }  # fmt: skip


_here: list = []
"""This process's recogniser, what it keeps, and what it was asked for."""


def over_clips(
    work: Callable, clips: list[dict], begin: Callable, given: argparse.Namespace
) -> list:
    """What ``work`` finds of each clip, in as many processes as were asked for. Each calls
    ``begin`` first; if that fails, the whole does."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.processes, spawn, begin, (given,)) as pool:
        return list(pool.map(work, clips))


def begin(given: argparse.Namespace) -> None:
    if given.keep is None:
        settings = RecognizerSettings(
            "tiny.en", device=given.device, threads=1, precision=given.precision
        )
        _here[:] = [given, single_recognizer(settings), None]
        return
    number = multiprocessing.current_process().name.rpartition("-")[2]
    _here[:] = [given, *recogniser(given.keep.with_name(f"{given.keep.name}.{number}"))]


def hear(clip: dict) -> dict:
    """What came of one session, and what it cost."""
    given, recognizer, kept = _here
    samples, before = load_audio(given.evaldata / clip["file"]), spent(kept)
    session = Session(recognizer, given.query).run(samples)
    if kept is not None:
        kept.base.commit()
    seen, final = session.lags()
    after = spent(kept)
    return {
        "seconds": len(samples) / SAMPLE_RATE, "turns": [turn.transcript for turn in session.turns],
        "text": session.text, "seen": seen, "final": final,
        "decodes": after[0] - before[0], "cpu": after[1] - before[1],
    }  # fmt: skip


def spent(kept: Kept | None) -> tuple[int, float]:
    """Decodes, and their processor time; what is not kept is not counted."""
    return (0, 0.0) if kept is None else (kept.decodes, kept.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--offline", type=Path, required=True)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "int8"))
    parser.add_argument("--query", default="")
    parser.add_argument("--shuffles", type=int, default=5)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--clips", type=int)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--show", action="store_true", help="the texts that differ")
    given = parser.parse_args()
    if given.keep is not None and (given.device, given.precision) != ("cpu", "auto"):
        parser.error("--keep is for the default precision on a CPU: one file, one way to decode")
    score, texts = load_scorer(given.evaldata), json.loads(given.offline.read_text("utf-8"))
    clips = clips_of(given.evaldata)[: given.clips]
    sessions = over_clips(hear, clips, begin, given)
    found, ends = [], Counter[str]()
    for clip, session in zip(clips, sessions, strict=True):
        turns = [turn.split() for turn in session["turns"]]
        ends += ends_within(turns, texts[clip["id"]].split())
        reference = score.norm(clip["reference"], "en")
        said, offline = score.norm(session["text"], "en"), score.norm(texts[clip["id"]], "en")
        errors, theirs = score.dist(reference, said), score.dist(reference, offline)
        speaker = clip.get("split_group") or clip["speaker"]
        found.append(Clip(clip["id"], clip["category"], speaker, errors, theirs, len(reference)))
        if given.show and said != offline:
            print(errors, theirs, clip["id"], clip["category"], "\n   ref", " ".join(reference))
            print("   off", " ".join(offline), "\n   our", " | ".join(session["turns"]))
    seconds = sum(session["seconds"] for session in sessions)
    result = conditions() | {
        "query": given.query, "audio_s": round(seconds, 1),
        "turns": sum(len(session["turns"]) for session in sessions),
        "ends": dict(sorted(ends.items())),
    }  # fmt: skip
    if given.keep is not None:
        for name, what in (("decodes_per_s", "decodes"), ("decode_cpu_per_s", "cpu")):
            result[name] = round(sum(one[what] for one in sessions) / seconds, 3)
    for name in ("seen", "final"):
        lags = [lag for session in sessions for lag in session[name]]
        result[f"audio_lag_{name}"] = np.percentile(lags, [50, 95]).round(2).tolist()
    for name, categories in GROUPS.items():
        if group := [one for one in found if one.category in categories]:
            result[name] = summary(group, given.shuffles)
    publish(result, given.json)


if __name__ == "__main__":
    main()
