"""ssasr's Whisper engine beside others: the same clips, the same clock, one run.

    benchmarks/archive/peers/environment.sh /tmp/peers
    python -m benchmarks.archive.word_times --times /tmp/times.json --clips 60
    python -m benchmarks.archive.peers.compare --peers /tmp/peers --times /tmp/times.json
        [--evaldata ../shared/evaldata] [--clips 12] [--threads 2] [--json FILE]

Clips are those that ``word_times.py`` could align: its times say when each word ended, for all
systems alike. A word is seen, or final, when the text up to it holds it at the place where the
last text of the clip has it; lag is from the end of the word in the audio to that moment. Words
that a system gets wrong have no lag. The clock advances to the arrival of each chunk (96 ms) and by
the wall time of each call, so run it on a machine that does nothing else. Each system runs in a
process of its own, one after the other for every clip, so a slow minute is everybody's.

``moonshine``: the streaming API of moonshine-voice with its bundled tiny-en, defaults (transcribes
twice a second; a word is final when its line is complete). ``faster-whisper``: no stream, the whole
clip at once with ssasr's own weights, int8, greedy: the floor of cost. Its word error rate and cost
are comparable, it has no lag. ``whisperlivekit``: its own pipeline (``AudioProcessor`` on PCM) with
faster-whisper and ssasr's own weights, policy LocalAgreement, language told, all else as it comes.
It has a clock of its own, so it gets its clips in real time, 96 ms at a time.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

CHUNK = 1_536
RATE = 16_000
TAIL = RATE
WORKERS = ("ssasr", "moonshine", "faster-whisper", "whisperlivekit")
WEIGHTS_OF_OURS = ("faster-whisper", "whisperlivekit")


def plain(text: str) -> list[str]:
    words = text.casefold().replace("-", " ").split()
    kept = ["".join(c for c in word if c.isalnum()) for word in words]
    return [word for word in kept if word]


# -- workers: one line of JSON in, one out ---------------------------------------------------------


def load(path: str):
    import soundfile
    import soxr

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    return mono if rate == RATE else soxr.resample(mono, rate, RATE)


def serve(process) -> None:
    """``process(samples, tell)``; tell(final words, words that may change)."""
    print("ready", flush=True)
    for line in sys.stdin:
        path = json.loads(line)
        begun, cpu = time.perf_counter(), time.process_time()
        told = process(load(path))
        print(json.dumps({"told": told, "cpu": time.process_time() - cpu,
                          "wall": time.perf_counter() - begun}), flush=True)  # fmt: skip


def paced(samples, step) -> list:
    """Feed the chunks; ``step(chunk, last)`` gives (final text, open text). [[when, both], ...]"""
    import numpy as np

    audio = np.concatenate([samples, np.zeros(TAIL + CHUNK, np.float32)])
    audio = audio[: len(audio) // CHUNK * CHUNK].astype(np.float32)
    clock, told = 0.0, []
    for at in range(0, len(audio), CHUNK):
        begun = time.perf_counter()
        texts = step(audio[at : at + CHUNK], at + CHUNK >= len(audio))
        clock = max(clock, (at + CHUNK) / RATE) + time.perf_counter() - begun
        if not told or told[-1][1:] != list(texts):
            told.append([clock, *texts])
    return told


def ssasr_worker(threads: int) -> None:
    from benchmarks.stepping import step_until_done
    from ssasr.engine.recognizer import RecognizerSettings, SegmentStart, Work
    from ssasr.engine.whisper.recognizer import create
    from ssasr.protocol.recognition import StreamOptions

    recognizer = create(RecognizerSettings("tiny.en", "cpu", threads=threads))
    recognizer.warm_up()

    def process(samples):
        state, position = recognizer.new_state(StreamOptions(), SegmentStart(0)), 0

        def step(chunk, last):
            nonlocal position
            position += len(chunk)
            final_at = position if last else None
            words = step_until_done(recognizer, Work(state, chunk, final_at))[-1].words
            final = " ".join(word.text for word in words if word.final)
            return final, " ".join(word.text for word in words if not word.final)

        return paced(samples, step)

    serve(process)


def moonshine_worker() -> None:
    from moonshine_voice import ModelArch, Transcriber, get_model_path

    transcriber = Transcriber(str(get_model_path("tiny-en")), ModelArch.TINY)

    def process(samples):
        stream = transcriber.create_stream()
        lines = {}
        stream.add_listener(lambda event: lines.__setitem__(event.line.line_id, event.line))
        stream.start()

        def step(chunk, last):
            stream.add_audio(chunk.tolist(), RATE)
            if last:
                stream.stop()
            ordered = sorted(lines.values(), key=lambda line: line.start_time)
            final = " ".join(line.text for line in ordered if line.is_complete)
            return final, " ".join(line.text for line in ordered if not line.is_complete)

        told = paced(samples, step)
        stream.close()
        return told

    serve(process)


def faster_whisper_worker(threads: int, model: str) -> None:
    from faster_whisper import WhisperModel

    whisper = WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=threads)

    def process(samples):
        segments, _ = whisper.transcribe(samples, language="en", beam_size=1, temperature=0.0)
        return [[0.0, " ".join(segment.text for segment in segments), ""]]

    serve(process)


def whisperlivekit_worker(threads: int, model: str) -> None:
    import torch
    from whisperlivekit import AudioProcessor, TranscriptionEngine

    torch.set_num_threads(threads)
    engine = TranscriptionEngine(
        model_path=model, backend="faster-whisper", backend_policy="localagreement", lan="en",
        pcm_input=True,
    )  # fmt: skip

    async def listen(samples) -> list:
        import numpy as np

        audio = np.concatenate([samples, np.zeros(TAIL, np.float32)])
        pcm = (np.clip(audio, -1, 1) * 32_767).astype("<i2")
        processor, told = AudioProcessor(transcription_engine=engine, language="en"), []
        results = await processor.create_tasks()
        begun = time.perf_counter()

        async def read() -> None:
            async for news in results:
                final = " ".join(line.text for line in news.lines if line.text)
                if not told or told[-1][1:] != [final, news.buffer_transcription]:
                    told.append([time.perf_counter() - begun, final, news.buffer_transcription])

        reader = asyncio.create_task(read())
        for at in range(0, len(pcm), CHUNK):
            due = (at + CHUNK) / RATE - (time.perf_counter() - begun)
            await asyncio.sleep(max(0.0, due))
            await processor.process_audio(pcm[at : at + CHUNK].tobytes())
        await processor.process_audio(b"")
        await reader
        await processor.cleanup()
        return told

    serve(lambda samples: asyncio.run(listen(samples)))


# -- the comparison --------------------------------------------------------------------------------


def spawn(name: str, given: argparse.Namespace) -> subprocess.Popen:
    python = sys.executable if name == "ssasr" else str(given.peers / "bin" / "python")
    module = "benchmarks.archive.peers.compare"
    command = [python, "-m", module, "--worker", name, "--threads", str(given.threads)]
    if name in WEIGHTS_OF_OURS:
        from ssasr.models import catalogue

        command += ["--model", str(catalogue.resolve("tiny.en", pull=False).directory)]
    environment = os.environ | {"OMP_NUM_THREADS": str(given.threads)}
    worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    answer(worker, "ready")
    return worker


def answer(worker: subprocess.Popen, wanted: str) -> str:
    """The next line that is ours; libraries print too."""
    for line in worker.stdout:
        if line.startswith(wanted):
            return line
    raise SystemExit("a worker ended: see its messages above")


def lags(told: list, truth: list) -> tuple[list[float], list[float]]:
    from benchmarks.archive.word_times import pairs

    last = plain(" ".join(told[-1][1:]))
    matched = pairs([plain(word)[0] if plain(word) else "" for word, _, _ in truth], last)
    seen, final = [], []
    for place, index in matched:
        end, until = truth[place][2], last[: index + 1]
        for times, texts in ((seen, lambda t: f"{t[1]} {t[2]}"), (final, lambda t: t[1])):
            held = [t[0] for t in told if plain(texts(t))[index : index + 1] == until[-1:]]
            times.append(held[0] - end)
    return seen, final


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--peers", type=Path, default=Path("/tmp/peers"))
    parser.add_argument("--times", type=Path)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--worker", choices=WORKERS)
    parser.add_argument("--model", default="")
    given = parser.parse_args()
    if given.worker == "ssasr":
        return ssasr_worker(given.threads)
    if given.worker == "moonshine":
        return moonshine_worker()
    if given.worker == "faster-whisper":
        return faster_whisper_worker(given.threads, given.model)
    if given.worker == "whisperlivekit":
        return whisperlivekit_worker(given.threads, given.model)
    return compare(given)


def compare(given: argparse.Namespace) -> None:
    import numpy as np

    from benchmarks.conditions import conditions
    from benchmarks.whisper_quality import load_scorer

    score = load_scorer(given.evaldata)
    times = json.loads(given.times.read_text())
    lines = (given.evaldata / "manifest.dev.jsonl").read_text("utf-8").splitlines()
    clips = [clip for clip in map(json.loads, lines) if clip["id"] in times]
    clips = clips[:: max(1, len(clips) // given.clips)][: given.clips]
    workers = {name: spawn(name, given) for name in WORKERS}
    rows = {name: {"seen": [], "final": [], "cpu": 0.0, "wall": 0.0, "errors": 0}
            for name in WORKERS}  # fmt: skip
    audio = words = 0.0
    for clip in clips:
        reference = score.norm(clip["reference"], "en")
        audio, words = audio + clip["duration"], words + len(reference)
        for name, worker in workers.items():
            worker.stdin.write(json.dumps(str(given.evaldata / clip["file"])) + "\n")
            worker.stdin.flush()
            result, row = json.loads(answer(worker, "{")), rows[name]
            row["cpu"] += result["cpu"]
            row["wall"] += result["wall"]
            text = " ".join(result["told"][-1][1:])
            row["errors"] += score.dist(reference, score.norm(text, "en"))
            if name != "faster-whisper":
                seen, final = lags(result["told"], times[clip["id"]])
                row["seen"] += seen
                row["final"] += final
    for worker in workers.values():
        worker.stdin.close()
        worker.wait(timeout=30)
    table = []
    for name, row in rows.items():
        out = {"system": name, "wer": round(100 * row["errors"] / words, 2),
               "cpu_per_s": round(row["cpu"] / audio, 3),
               "wall_per_s": round(row["wall"] / audio, 3)}  # fmt: skip
        for key in ("seen", "final"):
            if row[key]:
                p50, p95 = np.percentile(row[key], [50, 95])
                out |= {f"{key}_p50": round(p50, 2), f"{key}_p95": round(p95, 2)}
        table.append(out)
        print("  ".join(f"{key} {value}" for key, value in out.items()))
    if given.json:
        result = {**conditions(), "clips": len(clips), "audio_s": round(audio, 1),
                  "words": int(words), "threads": given.threads, "peers": table}  # fmt: skip
        given.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
