"""What Whisper costs on this kind of processor, how many streams an engine offers on it, and
whether it keeps to that.

    python -m benchmarks.processors "AMD EPYC (AVX2)" [--model tiny.en] [--clips 12]
        [--evaldata ../shared/evaldata] [--trial] [--seconds 60] [--json FILE]

The kind of processor is for you to name; files ``processor-….json`` in ``results`` are the rows of
a table in ``docs/operations.md`` (``benchmarks.report`` writes it). Units are timed as an engine
times them when it starts, five times; CPU per second of audio is that of single streams, read
English, one thread, and includes the detector and the end-of-turn model. ``--trial``: a server of
its own with live clients, as many as are offered and 0.7 of them; wants a machine that does nothing
else, and says for how long others took its cores.
"""

import argparse
import random
import time
from pathlib import Path
from urllib.request import urlopen

from benchmarks.conditions import conditions, publish
from benchmarks.inserted import ROOT, Inserted
from benchmarks.operations import CPU, bench, serving
from benchmarks.whisper_quality import TAIL, clips_of, load_audio, stream
from ssasr.engine import kernels
from ssasr.engine.capacity import CapacityMeter
from ssasr.engine.recognizer import RecognizerSettings
from ssasr.engine.whisper.recognizer import create
from ssasr.protocol.recognition import SAMPLE_RATE, StreamOptions

MEASURED = 5
SHARE = 0.7
"""Of the streams that are offered: what is left when a replica of three dies."""
BOUND = 1.0


def units(model: str) -> dict:
    """Milliseconds of each unit, and the streams offered."""
    recognizer = create(RecognizerSettings(model, device="cpu"))
    recognizer.warm_up()
    meter = CapacityMeter(recognizer.workload)
    for _ in range(MEASURED):
        offered = meter.measure()
    found = {name: round(1e3 * seconds, 2) for name, seconds in meter.seconds.items()}
    return {
        "bits": kernels.int8_limit().bit_length() + 1 if kernels.int8_limit() else 32,
        "workers": recognizer.workload.workers,
        "units_ms": found,
        "offered": offered,
    }


def single(model: str, folder: Path, count: int) -> dict:
    """CPU seconds a second of audio."""
    recognizer = create(RecognizerSettings(model, device="cpu", threads=1))
    recognizer.warm_up()
    clips = [clip for clip in clips_of(folder, "dev") if clip["category"] == "read_en"]
    random.Random(3).shuffle(clips)
    cpu = seconds = 0.0
    for clip in clips[:count]:
        samples = load_audio(folder / clip["file"])
        cpu += stream(recognizer, samples, StreamOptions(), time.process_time).cpu
        seconds += (len(samples) + TAIL) / SAMPLE_RATE
    return {"clips": count, "audio_s": round(seconds, 1), "cpu_per_s": round(cpu / seconds, 3)}


def offered_by(endpoint: str) -> int:
    """What a running server says that it offers."""
    address = endpoint.replace("ws://", "http://").removesuffix("/v3/ws") + "/metrics"
    with urlopen(address, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    (line,) = [line for line in lines if line.startswith("ssasr_engine_capacity{")]
    return int(float(line.rpartition(" ")[2]))


def trial(given: argparse.Namespace) -> dict:
    """Live clients in the numbers that count, a fresh server for each."""
    with serving("--engines", "english", *CPU) as endpoint:
        offered = offered_by(endpoint)
        rows = {"offered": {"streams": offered, **bench(endpoint, offered, given)}}
    some = max(1, int(SHARE * offered))
    with serving("--engines", "english", *CPU) as endpoint:
        rows["part"] = {"streams": some, **bench(endpoint, some, given)}
    return rows


def table(results: dict) -> str:
    """The rows of all kinds of processors, for ``docs/operations.md``."""
    measured = [each for name, each in sorted(results.items()) if name.startswith("processor-")]
    if not measured:
        return "No kind has been measured on a quiet machine yet.\n"
    lines = [
        "| processor | weights | CPU s per audio s | offered | p95 of turn ends then, at 0.7 |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += ["| " + " | ".join(_cells(each["processor"])) + " |" for each in measured]
    return "\n".join([*lines, ""])


def _cells(row: dict) -> list[str]:
    trial = row.get("trial")
    ends = [f"{trial[which]['ttfs_p95_s']:.2f} s ({trial[which]['streams']})"
            for which in ("offered", "part")] if trial else ["not tried"]  # fmt: skip
    return [
        row["kind"],
        f"{row['bits']} bits",
        f"{row['cpu_per_s']:.2f}",
        f"{row['offered']} streams, {row['workers']} cores",
        ", ".join(ends),
    ]


TABLE = Inserted(ROOT / "docs" / "operations.md", "processors", table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("kind", help="of processor, as the table is to name it")
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--evaldata", type=Path, default=Path("../shared/evaldata"))
    parser.add_argument("--trial", action="store_true")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--audio", help="for --trial: a folder of recordings, as for ssasr bench")
    parser.add_argument("--transcripts", help="their manifest")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    given.bound = BOUND
    row = {"kind": given.kind, "model": given.model, **units(given.model)}
    row |= single(given.model, given.evaldata, given.clips)
    if given.trial:
        row["trial"] = trial(given)
    publish({**conditions(), "processor": row}, given.json)


if __name__ == "__main__":
    main()
