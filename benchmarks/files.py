"""Files against an offline decoder that is not ours, on the same machine and the same clips: word
error rate, and how fast one long file is done; what two files do to live streams beside them;
the memory that a file of a gigabyte takes; and a file of hours, to its end and left halfway.

    benchmarks/archive/peers/environment.sh /tmp/peers
    python -m benchmarks.files --peers /tmp/peers/bin/python [--evaldata ../shared/evaldata]
        [--engine english] [--precision auto] [--categories read_en,spontaneous_en] [--every 1]
        [--half dev|held|all] [--minutes 10] [--streams 4] [--hours 3]
        [--only words|long|speed|beside|gigabyte|hours] [--json FILE]

Ours: ``ssasr serve`` in its usual state (or with another ``--precision``), asked over HTTP. The
other: faster-whisper with the same weights, greedy, in float32 for the words and in int8 with two
threads for the speed. The long file is made of the clips, one after the other; both do it in turn,
three times, and the quickest counts. Seconds of CPU are those of the server's process, and of the
other's. The scorer and normaliser are the evaluation folder's. Live streams are ``ssasr bench``'s,
alone and then beside two files that begin again whenever they are done; the gigabyte and the hours
go to a scripted engine. ``long`` is the words of whole passages of one reader
(``manifest.longform_recipe.jsonl``) and of the long file, by both, and of the clips that these are
made of, one by one.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from socket import create_server
from urllib.request import Request, urlopen

import numpy as np
import soundfile
import soxr

from benchmarks.conditions import conditions, publish
from benchmarks.whisper_quality import held_out, load_scorer
from ssasr.models.catalogue import resolve
from ssasr.protocol.recognition import SAMPLE_RATE

PORT = 18_765
PEER = Path(__file__).parent / "archive" / "peers" / "files.py"
REPEATS = 3
SPEECH = Path(__file__).parents[1] / "ssasr" / "data" / "en_jfk.flac"
GIGABYTE = 1_000_000_000
SECTIONS = {
    "words": "words_of_files", "long": "words_of_long_file", "speed": "speed_of_file",
    "beside": "beside_files", "hours": "file_of_hours",
}  # fmt: skip
"""Of the result, by whose names ``benchmarks.report`` knows it."""
DRAWS = 2_000
"""Of the clips, with replacement, for the interval."""


class Ours:
    """A server of this checkout, and the CPU time of its process."""

    def __init__(self, engine: str, *more: str) -> None:
        command = [sys.executable, "-m", "ssasr", "serve", "--host", "127.0.0.1"]
        command += ["--port", str(PORT), "--engines", engine, *more]
        create_server(("127.0.0.1", PORT)).close()  # another server there would answer for ours
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                urlopen(f"http://127.0.0.1:{PORT}/ready").close()
                break
            except OSError:
                time.sleep(0.2)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    def transcribe(self, path: Path, language: str) -> dict:
        wall, cpu = time.perf_counter(), self._cpu()
        with self.asked(path, language, "false") as answer:
            text = json.load(answer)["text"]
        return {"text": text, "wall": time.perf_counter() - wall, "cpu": self._cpu() - cpu}

    def asked(self, path: Path, language: str, stream: str) -> HTTPResponse:
        """The answer to a file, as it comes."""
        fields = {"model": "whisper-1", "language": language, "stream": stream}
        parts = [
            f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in fields.items()
        ]
        head = '--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        body = b"".join([*parts, head.encode(), path.read_bytes(), b"\r\n--b--\r\n"])
        headers = {
            "Authorization": "Bearer self-hosted",
            "Content-Type": "multipart/form-data; boundary=b",
        }
        url = f"http://127.0.0.1:{PORT}/v1/audio/transcriptions"
        return urlopen(Request(url, body, headers), timeout=3_600)

    def gauge(self, name: str) -> float:
        """Of ``/metrics``, summed over its labels."""
        with urlopen(f"http://127.0.0.1:{PORT}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.partition("{")[0] == name
                   or line.startswith(f"{name} "))  # fmt: skip

    def send(self, path: Path) -> float:
        """A file that is too large for this process; seconds."""
        url = f"http://127.0.0.1:{PORT}/v1/audio/transcriptions"
        began = time.perf_counter()
        command = ["curl", "-sf", "-H", "Authorization: self-hosted", "-F", f"file=@{path}", url]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    def memory(self, name: str) -> float:
        """MiB: of ``VmRSS``, now, or ``VmHWM``, at the most so far."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith(name)]
        return int(line.split()[1]) / 1_024

    def _cpu(self) -> float:
        """Seconds of all its threads so far (proc(5): utime and stime)."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Theirs:
    """faster-whisper in an environment of its own."""

    def __init__(self, python: str, model: Path, compute: str) -> None:
        command = [python, str(PEER), "--model", str(model), "--compute", compute]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout.readline() == "ready\n"

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def transcribe(self, path: Path, language: str) -> dict:
        print(json.dumps({"path": str(path), "language": language}), file=self._process.stdin)
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def both(given: argparse.Namespace, compute: str) -> Iterator[tuple[Ours, Theirs]]:
    ours = Ours(given.engine, "--precision", given.precision)
    theirs = Theirs(given.peers, resolve(given.engine, pull=False).directory, compute)
    try:
        yield ours, theirs
    finally:
        theirs.close()
        ours.close()


def words(given: argparse.Namespace, clips: list[dict]) -> dict:
    """Word errors of both, clip by clip."""
    scorer = load_scorer(given.evaldata)
    errors, count = [], 0
    with both(given, "float32") as sides:
        for clip in clips:
            reference = scorer.norm(clip["reference"], clip["language"])
            count += len(reference)
            path = given.evaldata / clip["file"]
            texts = [side.transcribe(path, clip["language"])["text"] for side in sides]
            said = [scorer.norm(text, clip["language"]) for text in texts]
            errors.append([scorer.dist(reference, each) for each in said])
    ours, theirs = np.array(errors).T
    draw = np.random.default_rng(1).integers(0, len(errors), (DRAWS, len(errors)))
    ratios = ours[draw].sum(axis=1) / np.maximum(theirs[draw].sum(axis=1), 1)
    return {
        "clips": len(errors),
        "words": count,
        "wer": round(ours.sum() / count, 4),
        "wer_faster_whisper_float32": round(theirs.sum() / count, 4),
        "ratio": round(ours.sum() / theirs.sum(), 4),
        "ratio_95": [round(float(each), 4) for each in np.percentile(ratios, [2.5, 97.5])],
    }


def speed(given: argparse.Namespace, clips: list[dict]) -> dict:
    """One long file, by both in turn."""
    with tempfile.TemporaryDirectory() as folder, both(given, "int8") as sides:
        path = Path(folder) / "long.flac"
        seconds = write_long(path, given, clips)
        taken = [[side.transcribe(path, given.language) for side in sides] for _ in range(REPEATS)]
    best = [
        {key: min(round(each[side][key], 2) for each in taken) for key in ("wall", "cpu")}
        for side in range(2)
    ]
    ours, theirs = best
    return {
        "seconds": round(seconds, 1),
        "ours": ours,
        "faster_whisper_int8": theirs,
        "speed_ratio": round(theirs["wall"] / ours["wall"], 3),
        "cpu_ratio": round(ours["cpu"] / theirs["cpu"], 3),
    }


def beside(given: argparse.Namespace, clips: list[dict]) -> dict:
    """p95 of live streams, alone and beside two files."""
    ours, over, files = Ours(given.engine, "--precision", given.precision), threading.Event(), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.flac"
        write_long(path, given, clips)

        def again() -> None:
            while not over.is_set():
                files.append(ours.transcribe(path, given.language)["wall"])

        alone = live(given)
        threads = [threading.Thread(target=again, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        with_files = live(given)
        over.set()
        ours.close()
    ratios = {name: round(with_files[name] / p95, 3) for name, p95 in alone.items() if p95}
    return {
        "streams": given.streams, "alone": alone, "beside_two_files": with_files, "ratios": ratios,
    }  # fmt: skip


def live(given: argparse.Namespace) -> dict:
    command = [sys.executable, "-m", "ssasr", "bench", "--json", "--streams", str(given.streams)]
    command += ["--seconds", "60", "--endpoint", f"ws://127.0.0.1:{PORT}/v3/ws"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (run,) = json.loads(said)["runs"]
    return {name: spread["p95"] for name, spread in run["latencies"].items()}


def gigabyte() -> dict:
    """Of the whole process while a gigabyte, 48 kHz in stereo, is sent and worked on."""
    samples, _ = soundfile.read(SPEECH, dtype="int16")
    piece = np.repeat(samples, 6).tobytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.wav"
        with wave.open(str(path), "wb") as file:
            file.setparams((2, 2, 48_000, 0, "NONE", ""))
            for _ in range(GIGABYTE // len(piece)):
                file.writeframesraw(piece)
        ours = Ours("english", "--engine-kind", "scripted")
        ours.transcribe(SPEECH, "en")
        before = ours.memory("VmRSS")
        taken = ours.send(path)
        peak = ours.memory("VmHWM")
        ours.close()
        size = path.stat().st_size
    return {
        "bytes": size, "before_mib": round(before, 1), "peak_mib": round(peak, 1),
        "wall": round(taken, 1),
    }  # fmt: skip


def long_words(given: argparse.Namespace, clips: list[dict]) -> dict:
    """Of passages of one reader, and of a file that is the clips one after the other; and of the
    clips that they are made of."""
    scorer, rows = load_scorer(given.evaldata), []
    with tempfile.TemporaryDirectory() as folder, both(given, "float32") as sides:
        for taken in [*passages(given), clips_within(given, clips)]:
            path = Path(folder) / "long.flac"
            write_clips(path, given, taken)
            apart = " ".join(
                sides[0].transcribe(given.evaldata / clip["file"], given.language)["text"]
                for clip in taken
            )
            whole = [side.transcribe(path, given.language)["text"] for side in sides]
            reference = scorer.norm(" ".join(clip["reference"] for clip in taken), given.language)
            errors = [
                scorer.dist(reference, scorer.norm(text, given.language))
                for text in (*whole, apart)
            ]
            seconds = sum(clip["duration"] for clip in taken)
            rows.append([len(taken), seconds, len(reference), *errors])
    names = ("clips", "seconds", "words", "errors", "errors_faster_whisper_float32",
             "errors_clip_by_clip")  # fmt: skip
    total = np.array(rows).sum(axis=0)
    _, seconds, count, ours, theirs, apart = total
    return {
        "recordings": [dict(zip(names, row, strict=True)) for row in rows],
        "seconds": round(seconds, 1), "words": int(count), "wer": round(ours / count, 4),
        "wer_faster_whisper_float32": round(theirs / count, 4), "ratio": round(ours / theirs, 4),
        "wer_clip_by_clip": round(apart / count, 4),
    }  # fmt: skip


def passages(given: argparse.Namespace) -> Iterator[list[dict]]:
    """The clips of each."""
    known = {clip["id"]: clip for clip in manifest(given)}
    recipe = (given.evaldata / "manifest.longform_recipe.jsonl").read_text("utf-8")
    for line in recipe.splitlines():
        yield [known[part] for part in json.loads(line)["parts"]]


def clips_within(given: argparse.Namespace, clips: list[dict]) -> list[dict]:
    """As many as fill ``--minutes``."""
    ends = np.cumsum([clip["duration"] for clip in clips])
    return clips[: 1 + int(np.searchsorted(ends, given.minutes * 60))]


def hours(given: argparse.Namespace, clips: list[dict]) -> dict:
    """Events and memory while a file of hours is worked on, and what is left of one whose client
    goes."""
    ours = Ours("english", "--engine-kind", "scripted")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hours.mp3"
        write_clips(path, given, clips)
        once = sum(clip["duration"] for clip in clips)
        times = round(given.hours * 3_600 / once)
        path.write_bytes(path.read_bytes() * times)  # frames stand for themselves
        ours.transcribe(SPEECH, "en")
        before, began = ours.memory("VmRSS"), time.perf_counter()
        deltas = []
        with ours.asked(path, given.language, "true") as answer:
            for line in answer:
                if b"transcript.text.delta" in line:
                    deltas.append((time.perf_counter() - began, ours.memory("VmRSS")))
                elif b"transcript.text.done" in line:
                    done = json.loads(line.removeprefix(b"data: "))
        wall = time.perf_counter() - began
        given_back = leave_halfway(ours, path, given, len(deltas) // 2)
        size = path.stat().st_size
    peak = ours.memory("VmHWM")
    ours.close()
    count = len(deltas)
    moments = {"first": 0, "third": count // 3, "two_thirds": 2 * count // 3, "last": -1}
    return {
        "seconds": done["usage"]["seconds"], "bytes": size, "wall": round(wall, 1),
        "events": count, "first_event_s": round(deltas[0][0], 1),
        "longest_wait_s": round(max(np.diff([at for at, _ in deltas])), 2),
        "before_mib": round(before, 1),
        "mib_at": {name: round(deltas[place][1], 1) for name, place in moments.items()},
        "peak_mib": round(peak, 1), "places_given_back_s": given_back,
    }  # fmt: skip


def leave_halfway(ours: Ours, path: Path, given: argparse.Namespace, events: int) -> float:
    """Seconds from when a client goes until nobody has a place any more."""
    with ours.asked(path, given.language, "true") as answer:
        for _ in range(2 * events):  # each is a line and an empty one
            answer.readline()
        assert ours.gauge("ssasr_engine_streams") > 0
    left = time.perf_counter()
    while ours.gauge("ssasr_sessions") or ours.gauge("ssasr_engine_streams"):
        time.sleep(0.01)
    return round(time.perf_counter() - left, 2)


def write_clips(path: Path, given: argparse.Namespace, clips: list[dict]) -> None:
    """One after the other, in the format that the name says."""
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1) as file:
        for clip in clips:
            samples, rate = soundfile.read(given.evaldata / clip["file"], dtype="float32")
            file.write(soxr.resample(samples, rate, SAMPLE_RATE))


def write_long(path: Path, given: argparse.Namespace, clips: list[dict]) -> float:
    parts, total = [], 0
    while total < given.minutes * 60 * SAMPLE_RATE:
        for clip in clips:
            samples, rate = soundfile.read(given.evaldata / clip["file"], dtype="float32")
            parts.append(soxr.resample(samples, rate, SAMPLE_RATE))
            total += len(parts[-1])
    joined = np.concatenate(parts)[: int(given.minutes * 60 * SAMPLE_RATE)]
    soundfile.write(path, joined, SAMPLE_RATE)
    return len(joined) / SAMPLE_RATE


def chosen(given: argparse.Namespace) -> list[dict]:
    categories = set(given.categories.split(","))
    clips = [clip for clip in manifest(given) if clip["category"] in categories]
    clips = [clip for clip in clips if given.half in ("all", "held" if held_out(clip) else "dev")]
    random.Random(1).shuffle(clips)
    return clips[:: given.every]


def manifest(given: argparse.Namespace) -> list[dict]:
    """Clips in which something is said, and it is known what."""
    lines = (given.evaldata / "manifest.dev.jsonl").read_text("utf-8").splitlines()
    return [clip for clip in map(json.loads, lines) if clip["reference"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--peers", help="python with faster-whisper, for words and speed")
    parser.add_argument("--engine", default="english")
    parser.add_argument("--precision", default="auto", help="of ours: auto, int8 or float32")
    parser.add_argument("--language", default="en")
    parser.add_argument("--categories", default="read_en,spontaneous_en")
    parser.add_argument("--half", choices=("dev", "held", "all"), default="all")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--only", choices=(*SECTIONS, "gigabyte"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    clips = chosen(given)
    parts = {
        "words": lambda: words(given, clips),
        "long": lambda: long_words(given, clips),
        "speed": lambda: speed(given, clips),
        "beside": lambda: beside(given, clips),
        "gigabyte": gigabyte,
        "hours": lambda: hours(given, clips),
    }
    result = {**conditions(), "engine": given.engine, "precision": given.precision}
    for name, part in parts.items():
        if given.only in (None, name):
            result[SECTIONS.get(name, name)] = part()
    publish(result, given.json)


if __name__ == "__main__":
    main()
