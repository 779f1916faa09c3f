"""What Smart Turn is worth: complete utterances against the same utterances cut in the middle.

    python -m benchmarks.archive.end_of_turn [--evaldata ../shared/evaldata]
        [--limit N] [--punctuation]

Two questions. *Discrimination*: every clip of speech twice, whole and cut at the quietest place
near its middle, both followed by the same pause; the area under the curve (AUC) of each score.
Silence alone has 0.5 here by construction. *Trade*: pauses inside the clips are places where a turn
must not end, the ends of the clips are where it must. A policy that only waits for T of silence
cuts off every pause of at least T and is T late; one that asks Smart Turn at the first pause ends
at once if it is sure and waits for a longer silence if not.

Limits: read sentences stand for turns, some clips end in the middle of a sentence (LibriSpeech was
cut at silences), and some pauses inside a clip do end one. Both make every score look worse.

``--punctuation`` adds a Whisper recogniser's opinion: does its text end with sentence-final
punctuation (tiny.en: give ``--categories read_en,spontaneous_en``; base closes nearly every text
with a full stop once silence follows). ``--published`` adds onnxruntime on the published int8 file,
for comparison.
"""

import argparse
import json
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import soundfile
import torch

from ssasr.engine.recognizer import SegmentStart
from ssasr.engine.smart_turn import WINDOW, SmartTurn
from ssasr.engine.vad import SileroVad
from ssasr.models import catalogue
from ssasr.protocol.recognition import SAMPLE_RATE, VAD_FRAME, StreamOptions

PAUSE = 6_400  # samples: the default of StreamOptions.pause, where the engine asks
SPEECH = 0.5
LONGEST_WAIT = 1.6  # seconds: what a policy waits when Smart Turn says "not finished"
CATEGORIES = "read_,spontaneous_,prompt_,speech_"
SENTENCE_END = tuple(".?!。？！")


def clips(folder, limit, categories=CATEGORIES):
    """(id, category, samples) of 16 kHz speech of 1.5 s or more, spread over the manifest."""
    lines = (folder / "manifest.dev.jsonl").read_text("utf-8").splitlines()
    rows = [
        row
        for row in map(json.loads, lines)
        if row["category"].startswith(tuple(categories.split(",")))
        and row["sample_rate"] == SAMPLE_RATE
        and row["duration"] >= 1.5
    ]
    for row in rows[:: max(1, len(rows) // limit)] if limit else rows:
        samples, _ = soundfile.read(folder / row["file"], dtype="float32")
        yield row["id"], row["category"], samples


def speech_frames(vad, samples):
    """Speech probability of each frame."""
    frames = samples[: len(samples) // VAD_FRAME * VAD_FRAME].reshape(1, -1, VAD_FRAME)
    probability, _ = vad.detect(torch.from_numpy(frames), vad.initial_state(1))
    return probability[0].numpy()


def quiet(samples, length):
    """A pause of the clip's own background: its quietest 100 ms, to and fro."""
    block = SAMPLE_RATE // 10
    energy = [np.square(samples[i : i + block]).sum() for i in range(0, len(samples) - block, 400)]
    piece = samples[int(np.argmin(energy)) * 400 :][:block]
    return np.resize(np.concatenate([piece, piece[::-1]]), length)


def middle(samples, begin, end):
    """The quietest 20 ms within 0.4 s of the middle of the speech: most likely between words."""
    centre, reach = (begin + end) // 2, int(0.4 * SAMPLE_RATE)
    places = range(max(begin, centre - reach), min(end, centre + reach), 80)
    return min(places, key=lambda at: np.square(samples[at : at + 320]).sum())


def pauses(speech):
    """(frame at which it begins, frames) of every silence between speech, 0.2 s or longer."""
    voiced = np.flatnonzero(speech > SPEECH)
    gaps = np.diff(voiced)
    return [(voiced[i] + 1, gaps[i] - 1) for i in np.flatnonzero(gaps > 7)]


def auc(positive, negative):
    """Probability that a random complete one scores higher than a random cut one."""
    positive, negative = np.asarray(positive)[:, None], np.asarray(negative)[None]
    return float(((positive > negative) + 0.5 * (positive == negative)).mean())


class Punctuation:
    """1 if the words that a Whisper recogniser gives for the audio end a sentence."""

    def __init__(self, model):
        from ssasr.engine.recognizer import RecognizerSettings, Work
        from ssasr.engine.whisper.recognizer import create

        self.recognizer, self.work = create(RecognizerSettings(model, "cpu")), Work

    def __call__(self, samples):
        state = self.recognizer.new_state(StreamOptions(), SegmentStart(0))
        audio, outcome = samples, None
        while outcome is None or outcome.unfinished:
            work = self.work(state, audio, final_at=len(samples))
            (outcome,) = self.recognizer.step([work])
            audio = samples[:0]
        words = outcome.results[-1].words
        return float(bool(words) and words[-1].text.endswith(SENTENCE_END))


class Published:
    """onnxruntime on the file as it is."""

    def __init__(self, turn, path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(path, options)
        self.features = turn.features

    def __call__(self, samples):
        audio = np.zeros(WINDOW, np.float32)
        audio[WINDOW - len(samples[-WINDOW:]) :] = samples[-WINDOW:]
        audio = (audio - audio.mean()) / np.sqrt(audio.var() + 1e-7)
        features = self.features(torch.from_numpy(audio)[None]).numpy()
        return self.session.run(None, {"input_features": features})[0].item()


def collect(given, vad, scorers):
    """Scores of complete and cut utterances by category, and of the pauses inside utterances."""
    whole, cut = defaultdict(Counter), defaultdict(Counter)
    inside = []
    for name, category, samples in clips(given.evaldata, given.limit, given.categories):
        speech = speech_frames(vad, samples)
        voiced = np.flatnonzero(speech > SPEECH)
        if len(voiced) < 30:
            continue
        begin, end = voiced[0] * VAD_FRAME, (voiced[-1] + 1) * VAD_FRAME
        silence = quiet(samples, PAUSE)
        complete = np.concatenate([samples[:end], silence])
        partial = np.concatenate([samples[: middle(samples, begin, end)], silence])
        for scorer, score in scorers.items():
            whole[category, scorer][name] = score(complete)
            cut[category, scorer][name] = score(partial)
        for frame, length in pauses(speech):
            if length * VAD_FRAME >= PAUSE:
                at = frame * VAD_FRAME + PAUSE
                inside.append(
                    (length * VAD_FRAME / SAMPLE_RATE, scorers["smart turn"](samples[:at]))
                )
    return whole, cut, inside


def report_discrimination(whole, cut, scorers):
    print(f"{'category':20s} {'clips':>5s}  " + "  ".join(f"{name:>12s}" for name in scorers))
    categories = sorted({category for category, _ in whole})
    for category in [*categories, "all"]:
        cells = []
        for scorer in scorers:
            chosen = categories if category == "all" else [category]
            good = [score for one in chosen for score in whole[one, scorer].values()]
            bad = [score for one in chosen for score in cut[one, scorer].values()]
            cells.append(f"{auc(good, bad):12.3f}")
        print(f"{category:20s} {len(good):5d}  " + "  ".join(cells))


def report_trade(ends, inside):
    """Cut-offs are the share of the pauses of 0.4 s and more at which the turn is ended."""
    ends, lengths, scores = np.array(ends), *np.array(inside).T
    print(f"\n{len(ends)} ends, {len(inside)} pauses of {PAUSE / SAMPLE_RATE:.1f} s or more inside")
    print("policy                      cut off   mean delay")
    for wait in (0.4, 0.6, 0.8, 1.0, 1.2, 1.6):
        print(f"silence of {wait:.1f} s           {np.mean(lengths >= wait):8.1%}   {wait:8.2f} s")
    for sure in (0.4, 0.8):
        for bar in (0.5, 0.9, 0.95):
            wait = np.where(scores > bar, sure, LONGEST_WAIT)
            delay = np.where(ends > bar, sure, LONGEST_WAIT).mean()
            name = f"{sure} s if > {bar:.2f}, else {LONGEST_WAIT} s"
            print(f"{name:26s} {np.mean(lengths >= wait):8.1%}   {delay:8.2f} s")


def report_cost(turn, threads):
    generator = np.random.default_rng(0)
    noise = [generator.normal(0, 0.05, WINDOW).astype(np.float32) for _ in range(16)]
    print(f"\nms for each of a batch, fastest of 8, {threads} thread(s)")
    for batch in (1, 4, 16):
        times = []
        for _ in range(8):
            begin = time.perf_counter()
            turn.probability(noise[:batch])
            times.append(time.perf_counter() - begin)
        print(f"batch {batch:2d}: {min(times) / batch * 1e3:6.1f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--limit", type=int, default=0, help="about so many clips")
    parser.add_argument("--categories", default=CATEGORIES, help="beginnings, comma-separated")
    parser.add_argument("--punctuation", action="store_true")
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--model", default="tiny.en", help="recogniser of --punctuation")
    parser.add_argument("--float", action="store_true", help="Smart Turn without int8")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    path = catalogue.resolve("smart-turn", pull=False).weights
    turn = SmartTurn.load(path, int8=False if given.float else None)
    vad = SileroVad.load(catalogue.resolve("silero-vad", pull=False).weights)
    scorers = {"smart turn": lambda samples: turn.probability([samples]).item()}
    if given.published:
        scorers["published"] = Published(turn, path)
    if given.punctuation:
        punctuation = scorers["punctuation"] = Punctuation(given.model)
        scorers["sum of both"] = lambda s: turn.probability([s]).item() + punctuation(s)
    scorers["silence"] = lambda samples: 0.0  # the same pause follows both
    with torch.inference_mode():
        whole, cut, inside = collect(given, vad, scorers)
        report_discrimination(whole, cut, scorers)
        ends = [s for (_, scorer), found in whole.items() if scorer == "smart turn"
                for s in found.values()]  # fmt: skip
        report_trade(ends, inside)
        report_cost(turn, given.threads)


if __name__ == "__main__":
    main()
