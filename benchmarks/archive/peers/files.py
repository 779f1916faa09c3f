"""The yardstick of ``benchmarks.files`` and ``benchmarks.keyterms``: a path a line in, what
faster-whisper makes of it out.

    peers/environment.sh /tmp/peers
    /tmp/peers/bin/python files.py --model ~/.cache/ssasr/models/tiny.en --compute float32

Greedy, no voice activity, no text of the window before; ``hotwords`` and ``prompt`` if they are
given. Answers are lines of JSON: text, and the
seconds of wall clock and of CPU that it took, decoding of the file included.
"""

import argparse
import json
import sys
import time

from faster_whisper import WhisperModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--compute", required=True)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    model = WhisperModel(
        given.model, device="cpu", compute_type=given.compute, cpu_threads=given.threads
    )
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        wall, cpu = time.perf_counter(), time.process_time()
        segments, _ = model.transcribe(
            asked["path"], language=asked["language"], beam_size=1, temperature=0.0,
            condition_on_previous_text=False, hotwords=asked.get("hotwords"),
            initial_prompt=asked.get("prompt"),
        )  # fmt: skip
        text = " ".join(segment.text.strip() for segment in segments)
        taken = time.perf_counter() - wall, time.process_time() - cpu
        print(json.dumps({"text": text, "wall": taken[0], "cpu": taken[1]}), flush=True)


if __name__ == "__main__":
    main()
