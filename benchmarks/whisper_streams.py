"""How many streams one engine keeps up with: N of them on a clock that real steps move forward.

    python -m benchmarks.whisper_streams [--evaldata ../shared/evaldata] [--model tiny.en]
        [--streams 1,4,8,10] [--seconds 60] [--threads 2] [--clock wall|cpu] [--json FILE]
        [--device cpu]

Every stream plays English clips one after the other with silences between them, begins at a moment
of its own, and ends each turn as a session would: after ``PAUSE`` of silence it finalizes at the
end of the pause. The loop is the engine's: whoever has a whole chunk goes into the step, and the
clock moves by the time that the step took, or to the next chunk when nobody has one. Time to final
(TTFS) is from the moment the audio of the pause has arrived to the end of the step that answered.
With ``--clock wall`` the figures hold for a machine that does nothing else; the load average is
reported. With ``--clock cpu`` and one thread a step takes the CPU time it used, which is what it
would take on an idle core, so the figures mean something on a shared machine too (contention for
caches still makes them worse than they are). On a CUDA device the clock is the wall's.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
from attrs import define, field

from benchmarks.conditions import conditions
from ssasr.engine.recognizer import Recognizer, RecognizerSettings, SegmentStart, State, Work
from ssasr.engine.whisper.recognizer import create
from ssasr.protocol.recognition import SAMPLE_RATE, VAD_FRAME, StreamOptions

PAUSE = 800 * SAMPLE_RATE // 1000
SPEECH = 0.5
MOST_CHUNKS = 16
"""As many chunks as an engine puts into one step of a stream that is behind."""


@define
class Player:
    """One stream: endless audio from ``begun`` on, and the session's share of the work."""

    audio: np.ndarray
    begun: float
    state: State
    segment: int = 0
    position: int = 0
    heard: int = 0
    speech_end: int | None = None
    final_at: int | None = None
    unfinished: bool = False
    frames: int = 0
    ttfs: list[float] = field(factory=list)
    lag: list[float] = field(factory=list)
    words: int = 0

    def received(self, now: float) -> int:
        return max(0, min(int((now - self.begun) * SAMPLE_RATE), len(self.audio)))

    def take(self, now: float, chunk: int) -> Work | None:
        """The work that is ready, if any."""
        if self.final_at is not None:
            audio = self.audio[self.position : max(self.final_at, self.position)]
            self.position = max(self.final_at, self.position)
            return Work(self.state, audio, self.final_at)
        chunks = min((self.received(now) - self.position) // chunk, MOST_CHUNKS)
        if not chunks and not self.unfinished:
            return None
        audio = self.audio[self.position : self.position + chunks * chunk]
        self.position += len(audio)
        return Work(self.state, audio)

    def hear(self, speech: tuple[float, ...]) -> None:
        for probability in speech:
            self.frames += 1
            if probability >= SPEECH:
                self.speech_end = self.segment + self.frames * VAD_FRAME

    def turn_over(self) -> bool:
        return self.speech_end is not None and self.heard - self.speech_end >= PAUSE


def material(folder: Path, seconds: float, seed: int) -> np.ndarray:
    """Clips of read English in an order of its own, with 1 to 3 s between them."""
    lines = (folder / "manifest.dev.jsonl").read_text("utf-8").splitlines()
    clips = [clip for clip in map(json.loads, lines) if clip["category"] == "read_en"]
    chance = random.Random(seed)
    chance.shuffle(clips)
    pieces: list[np.ndarray] = []
    while sum(map(len, pieces)) < seconds * SAMPLE_RATE:
        samples, rate = soundfile.read(folder / clips.pop()["file"], dtype="float32")
        if rate == SAMPLE_RATE:
            pieces += [samples, np.zeros(int(chance.uniform(1, 3) * SAMPLE_RATE), np.float32)]
    return np.concatenate(pieces)[: int(seconds * SAMPLE_RATE)]


Clock = Callable[[], float]


def advance(
    recognizer: Recognizer, players: list[Player], now: float, clock: Clock
) -> tuple[float, float]:
    """One step of the engine at ``now``: (the time after it, what it cost)."""
    ready = [(player, player.take(now, recognizer.chunk)) for player in players]
    ready = [(player, work) for player, work in ready if work is not None]
    if not ready:
        return min(next_chunk(player, recognizer.chunk) for player in players), 0.0
    begun = clock()
    outcomes = recognizer.step([work for _, work in ready])
    cost = clock() - begun
    now += cost
    recognizer.worked(cost, now)
    for (player, work), outcome in zip(ready, outcomes, strict=True):
        settle(recognizer, player, work, outcome, now)
    return now, cost


def next_chunk(player: Player, chunk: int) -> float:
    if player.position + chunk > len(player.audio):
        return float("inf")
    return player.begun + (player.position + chunk) / SAMPLE_RATE + 1e-9


def settle(recognizer: Recognizer, player: Player, work: Work, outcome, now: float) -> None:
    player.unfinished = outcome.unfinished
    for heard in outcome.results:
        player.hear(heard.speech)
        player.heard = heard.position
    if outcome.unfinished and work.final_at is not None:
        return
    if work.final_at is not None:
        words = outcome.results[-1].words
        player.words += len(words)
        player.ttfs.append(now - player.begun - work.final_at / SAMPLE_RATE)
        player.state = recognizer.new_state(StreamOptions(), SegmentStart(work.final_at))
        player.segment = player.position = work.final_at
        player.frames, player.speech_end, player.final_at = 0, None, None
    elif player.turn_over():
        assert player.speech_end is not None
        player.final_at = player.speech_end + PAUSE
    player.lag.append(now - player.begun - player.position / SAMPLE_RATE)


def run(recognizer: Recognizer, folder: Path, streams: int, seconds: float, clock: Clock) -> dict:
    chance = random.Random(streams)
    players = [
        Player(material(folder, seconds, number), chance.uniform(0, 3),
               recognizer.new_state(StreamOptions(), SegmentStart(0)))
        for number in range(streams)
    ]  # fmt: skip
    now, busy, steps, cpu = 0.0, [], 0, time.process_time()
    while now != float("inf"):
        now, cost = advance(recognizer, players, now, clock)
        busy.append(cost)
        steps += cost > 0
    cpu = time.process_time() - cpu
    ttfs = [value for player in players for value in player.ttfs]
    late = [value for player in players for value in player.lag[-20:]]
    audio = sum(len(player.audio) for player in players) / SAMPLE_RATE
    return {
        "streams": streams,
        "turns": len(ttfs),
        "words": sum(player.words for player in players),
        "ttfs_p50": round(float(np.percentile(ttfs, 50)), 3),
        "ttfs_p95": round(float(np.percentile(ttfs, 95)), 3),
        "ttfs_p99": round(float(np.percentile(ttfs, 99)), 3),
        "backlog_at_end": round(max(late), 3),
        "step_p50_ms": round(1e3 * float(np.percentile([b for b in busy if b], 50)), 1),
        "step_p95_ms": round(1e3 * float(np.percentile([b for b in busy if b], 95)), 1),
        "busy": round(sum(busy) / (audio / streams), 3),
        "cpu_per_s": round(cpu / audio, 3),
        "load_average": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--streams", default="1,4,8,10")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.clock == "cpu" and arguments.threads != 1:
        parser.error("--clock cpu needs --threads 1: it adds up what threads use side by side")
    clock = time.process_time if arguments.clock == "cpu" else time.perf_counter
    counts = [int(count) for count in arguments.streams.split(",")]
    # On a CPU it says how wide the grid is; on a device only how many streams may come.
    most = None if arguments.device == "cpu" else max(counts)
    settings = RecognizerSettings(
        arguments.model, device=arguments.device, threads=arguments.threads, max_streams=most
    )
    recognizer = create(settings)
    begun = time.perf_counter()
    recognizer.warm_up()
    print(f"warmed up in {time.perf_counter() - begun:.1f} s", flush=True)
    rows = []
    for streams in counts:
        rows.append(run(recognizer, arguments.evaldata, streams, arguments.seconds, clock))
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if arguments.json:
        result = {**conditions(), "torch": torch.__version__, "whisper_streams": rows}
        if arguments.device != "cpu":
            result["device"] = torch.cuda.get_device_name(torch.device(arguments.device))
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
