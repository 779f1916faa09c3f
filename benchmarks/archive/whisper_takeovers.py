"""A stream that is taken over again and again: does the client see another word, or time, for it?

    python -m benchmarks.archive.whisper_takeovers [--evaldata ../shared/evaldata]
        [--model multilingual]
        [--categories read_de,read_zh,...] [--clips 12] [--tracks 1] [--runs 4] [--every 4]
        [--half dev|held|all] [--query speech_model=...] [--keep FILE] [--json FILE]

A track is some clips with 1.5 s of silence after each. It is heard once in real time, message by
message, and then ``--runs`` times by engines each of which is lost after ``--every`` seconds of
audio (mean; in the first of these runs none is), with as much audio and as many answers under way
as chance has it. Engine stream, recogniser, replay and turn policy are the real ones, without
their processes. What a decode gives is kept (``--keep``: in a file), since it depends on nothing
but what was asked for. Prints by how much the words differ, and every end of a turn that does.
"""

import argparse
import json
import pickle
import random
from collections import Counter, deque
from pathlib import Path

import numpy as np
import torch
from attrs import define, evolve, field

from benchmarks.conditions import conditions
from benchmarks.whisper_quality import clips_of, load_audio
from ssasr.bench.damage import compare
from ssasr.bench.player import StreamLog
from ssasr.engine.recognizer import RecognizerSettings, Work
from ssasr.engine.streams import Stream, StreamId, answers
from ssasr.engine.whisper.recognizer import WhisperRecognizer, create
from ssasr.protocol.codec import encode
from ssasr.protocol.messages import Turn
from ssasr.protocol.parameters import parse_parameters
from ssasr.protocol.recognition import SAMPLE_RATE, Audio, Final, Finalize, Open, Update
from ssasr.protocol.settings import stream_options, turn_settings
from ssasr.routing.failover import REPLAY_WINDOW
from ssasr.routing.replay import Replay
from ssasr.session.inference import WINDOW
from ssasr.session.turns import Send, TurnPolicy

GAP = 1.5
MESSAGE = 1_600
"""Samples of audio in one message."""
QUERY = "speech_model=universal-streaming-multilingual&language_detection=true"
CATEGORIES = "read_de,read_zh,prompt_ru,prompt_es,prompt_fr,prompt_it"


class Kept:
    """Stands before the recogniser's decoding: what was decoded once is not decoded again."""

    def __init__(self, recognizer: WhisperRecognizer, file: Path | None) -> None:
        self.file, self.track = file, ""
        self.decodes = pickle.loads(file.read_bytes()) if file and file.exists() else {}
        self.sounds: dict = {}
        self.made = 0
        self._decode, recognizer._decode = recognizer._decode, self.decode
        self._judge, recognizer._smart_turn = recognizer._smart_turn, self

    def decode(self, requests, dues):
        return [self._one(*pair) for pair in zip(requests, dues, strict=True)]

    def _one(self, asked, due):
        key = (self.track, due.begin, due.end, asked.language, asked.draft, asked.among,
               asked.language_before, asked.settled)  # fmt: skip
        if key not in self.decodes:
            self.made += 1
            hypothesis, spoken = self._decode([asked], [due])[0]
            self.decodes[key] = evolve(hypothesis, scores=np.zeros((1, 0, 0), np.float32)), spoken
        return self.decodes[key]

    def probability(self, sounds):
        for sound in sounds:
            if sound.tobytes() not in self.sounds:
                self.sounds[sound.tobytes()] = self._judge.probability([sound]).tolist()[0]
        return torch.tensor([self.sounds[sound.tobytes()] for sound in sounds])

    def save(self) -> None:
        if self.file:
            self.file.write_bytes(pickle.dumps(self.decodes))


@define(eq=False)
class Engine:
    """What runs in an engine's process, one step at a time."""

    recognizer: WhisperRecognizer
    stream: Stream

    def step(self) -> list[Update | Final]:
        stream, recognizer = self.stream, self.recognizer
        take = stream.take()
        if take.fresh:
            stream.state = recognizer.new_state(take.options, take.start)
        elif take.changed:
            recognizer.configure(stream.state, take.options)
        outcome = recognizer.step([Work(stream.state, take.audio, take.final_at)])[0]
        if take.final_at is not None or outcome.unfinished or take.more:
            for state in stream.settle(take, outcome):
                recognizer.release(state)
        return answers(take, outcome)


@define(eq=False, slots=False)
class Session:
    """What runs in a gateway, and one engine at a time."""

    recognizer: WhisperRecognizer
    pcm: bytes
    chance: random.Random
    query: str = QUERY
    arrivals: list[tuple[float, str]] = field(factory=list)
    sent: int = 0
    acknowledged: int = 0
    finalizing: bool = False
    takeovers: int = 0
    committed: int = 0
    """Takeovers with words that were final."""
    outbox: deque = field(factory=deque)
    unread: deque = field(factory=deque)

    def __attrs_post_init__(self) -> None:
        parameters = parse_parameters(self.query)
        opening = Open("takeovers", stream_options(parameters))
        self.replay = Replay(opening)
        self.policy = TurnPolicy(turn_settings(parameters), chunk=self.recognizer.chunk)
        self.engine = self._engine(opening)

    def _engine(self, opening: Open) -> Engine:
        self.pushed = self.heard = opening.start
        self.asked = False
        return Engine(self.recognizer, Stream(StreamId(0, 0), opening, self.recognizer.chunk))

    # -- what can happen next ----------------------------------------------------------------------

    @property
    def unsent(self) -> bool:
        return 2 * self.sent < len(self.pcm)

    @property
    def may_send(self) -> bool:
        return self.unsent and self.sent - self.acknowledged <= WINDOW

    @property
    def may_push(self) -> bool:
        if not self.outbox:
            return False
        if isinstance(self.outbox[0], Finalize):
            return not self.asked
        return self.pushed - self.heard < REPLAY_WINDOW

    def send(self) -> None:
        self.add(Audio(self.sent, self.pcm[2 * self.sent : 2 * (self.sent + MESSAGE)]))
        self.sent = min(self.sent + MESSAGE, len(self.pcm) // 2)
        if not self.unsent:
            self._perform(self.policy.force(self.sent))

    def add(self, message) -> None:
        self.replay.add(message)
        self.outbox.append(message)

    def push(self) -> None:
        message = self.outbox.popleft()
        if isinstance(message, Audio):
            self.pushed = message.start + len(message.pcm) // 2
        self.asked = self.asked or isinstance(message, Finalize)
        self.engine.stream.receive(message)

    def step(self) -> None:
        self.unread.extend(self.engine.step())

    def take(self) -> None:
        answer = self.unread.popleft()
        if isinstance(answer, Final):
            self.heard, self.asked = answer.at, False
        elif not self.asked:
            self.heard = max(self.heard, answer.position)
        news = self.replay.deliver(answer)
        if isinstance(news, Update):
            if not self.finalizing:
                self.acknowledged = max(self.acknowledged, news.position)
            self._perform(self.policy.update(news))
        elif isinstance(news, Final):
            self.acknowledged, self.finalizing = news.at, False
            self._perform(self.policy.final(news))

    def _perform(self, decisions) -> None:
        for decision in decisions:
            if isinstance(decision, Send):
                if isinstance(decision.message, Turn):
                    self.arrivals.append((0.0, encode(decision.message)))
            else:
                self.finalizing = True
                self.add(decision)

    def lose(self) -> None:
        """The engine, with what it had not been told and what nobody had read; another goes on."""
        if self.engine.stream.state is not None:
            self.recognizer.release(self.engine.stream.state)
        opening = self.replay.opening()
        self.takeovers += 1
        self.committed += bool(opening.committed)
        self.unread.clear()
        self.engine = self._engine(opening)
        self.outbox = deque(self.replay.messages())

    # -- whole runs --------------------------------------------------------------------------------

    def run_in_time(self) -> None:
        """Nothing waits: each message is heard before the next one comes."""
        while self.unsent or not self.policy.settled(self.sent):
            if self.unsent:
                self.send()
            while self.may_push or self.unread or self.engine.stream.ready:
                while self.may_push:
                    self.push()
                if self.engine.stream.ready:
                    self.step()
                while self.unread:
                    self.take()

    def run_by_chance(self, every: float) -> None:
        """What comes next is drawn, with odds that change now and then."""
        odds, lost_at = [1.0] * 4, self._next_loss(0, every)
        while self.unsent or not self.policy.settled(self.sent):
            if self.sent >= lost_at:
                self.lose()
                lost_at = self._next_loss(self.sent, every)
            if self.chance.random() < 0.02:
                odds = [self.chance.choice([0.02, 0.2, 1.0, 5.0]) for _ in range(4)]
            can = [self.may_send, self.may_push, self.engine.stream.ready, bool(self.unread)]
            doing = [self.send, self.push, self.step, self.take]
            weights = [odd * possible for odd, possible in zip(odds, can, strict=True)]
            if not any(weights):
                raise RuntimeError("nothing can go on")
            self.chance.choices(doing, weights)[0]()

    def _next_loss(self, after: int, every: float) -> float:
        if every == 0:
            return float("inf")
        return after + self.chance.uniform(0.1, 2 * every - 0.1) * SAMPLE_RATE


def track_of(clips, evaldata: Path) -> bytes:
    gap = np.zeros(int(GAP * SAMPLE_RATE), np.float32)
    parts = [gap[: SAMPLE_RATE // 2]]
    for clip in clips:
        parts += [load_audio(evaldata / clip["file"]), gap]
    samples = np.clip(np.round(np.concatenate(parts) * 32_768), -32_768, 32_767)
    return samples[: len(samples) // MESSAGE * MESSAGE].astype("<i2").tobytes()


def log_of(session: Session) -> StreamLog:
    log = StreamLog(None)
    log.arrivals = session.arrivals
    return log


def differences(reference: Session, session: Session) -> list[str]:
    """The ends of turns that differ, in words."""
    found = []
    ends = [
        [json.loads(text) for _, text in each.arrivals if json.loads(text)["end_of_turn"]]
        for each in (reference, session)
    ]
    for one, other in zip(*ends, strict=False):
        if one != other:
            keys = [key for key in one if one.get(key) != other.get(key)]
            found.append(f"turn {one['turn_order']}: {keys}")
            for before, after in zip(one["words"], other["words"], strict=False):
                if before != after:
                    found.append(f"    {before} -> {after}")
    if len(ends[0]) != len(ends[1]):
        found.append(f"{len(ends[0])} turns, {len(ends[1])} turns")
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--model", default="multilingual")
    parser.add_argument("--categories", default=CATEGORIES)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--tracks", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first track")
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--every", type=float, default=4.0)
    parser.add_argument("--half", choices=("dev", "held", "all"), default="all")
    parser.add_argument("--query", default=QUERY, help="parameters of the session")
    parser.add_argument("--keep", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    recognizer = create(RecognizerSettings(arguments.model, device="cpu", threads=1))
    recognizer._pool = type(recognizer._pool)(0)
    kept = Kept(recognizer, arguments.keep)
    wanted = arguments.categories.split(",")
    clips = [clip for clip in clips_of(arguments.evaldata, arguments.half)
             if clip["category"] in wanted]  # fmt: skip
    totals: Counter = Counter()
    for number in range(arguments.first, arguments.first + arguments.tracks):
        chance = random.Random(number)
        chosen = [chance.choice([clip for clip in clips if clip["category"] == one])
                  for one in wanted for _ in range(-(-arguments.clips // len(wanted)))]  # fmt: skip
        chance.shuffle(chosen)
        pcm = track_of(chosen, arguments.evaldata)
        kept.track = ",".join(clip["id"] for clip in chosen)
        reference = Session(recognizer, pcm, chance, arguments.query)
        reference.run_in_time()
        print(f"track {number}: {len(pcm) // 32_000} s, {kept.made} decodes", flush=True)
        for run in range(arguments.runs):
            session = Session(recognizer, pcm, random.Random(f"{number} {run}"), arguments.query)
            session.run_by_chance(arguments.every if run else 0)
            damage = compare([log_of(session)], lambda log: log_of(reference))  # noqa: B023
            names = ("words", "lost", "duplicated", "changed", "moved")
            counts = {name: getattr(damage, name) for name in names}
            counts["identical_streams"] = damage.identical
            totals.update(counts, runs=1, takeovers=session.takeovers, committed=session.committed)
            print(f"run {run}: {session.takeovers} takeovers, {session.committed} with words; "
                  f"{counts}; {kept.made} decodes", flush=True)  # fmt: skip
            for line in differences(reference, session):
                print(line)
        kept.save()
    print(dict(totals))
    if arguments.json:
        arguments.json.write_text(json.dumps({**conditions(), **totals}, indent=1))


if __name__ == "__main__":
    main()
