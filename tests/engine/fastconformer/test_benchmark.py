"""The benchmark runs as a program, here on a CPU with a small model, and says what it must."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run(module, *options):
    command = [sys.executable, "-m", f"benchmarks.{module}", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_gpu_streams(tmp_path):
    out = tmp_path / "figures.json"
    options = "--device cpu --size small --vocabulary 65 --chunks 560 --start 2 --most 2"
    times = "--seconds 8 --settle 0 --ttfs-ms 5000 --reference-chunks 3"
    text = run("gpu_streams", *options.split(), *times.split(), "--out", str(out))
    assert "chunk 560 ms" in text
    found = json.loads(out.read_text())
    assert {"device", "commit", "torch", "dtype"} <= set(found["about"])
    (report,) = found["reports"]
    assert 0.5 < report["rate_unpaced"] < 16
    trial = report["trials"][0]
    assert trial["streams"] == 2
    assert trial["finals"] > 0
    for name in ("step_ms", "batch_ms", "ttfs_ms"):
        assert 0 < trial[name]["p50"] <= trial[name]["p95"] <= trial[name]["p99"]
    assert trial["rtfx"] > 0
    assert report["profile"]["kernels"] > 0
    assert report["profile"]["needed_gb"] > 0
    assert report["profile"]["host_us"] > 0
    assert report["reference"]["encoder_chunk_ms"] > 0


@pytest.mark.slow
def test_limits():
    """The state is the slots', the operations are those of the sizes, done by hand elsewhere."""
    lines = run("fastconformer_limits", "--chunks", "80").splitlines()
    assert lines[0].startswith("parameters 618 M")
    chunk, kernels, once, _, state, _, needed, moved, _, flops, *streams = lines[2].split()
    assert (chunk, once, state, needed) == ("80", "1.24", "11.18", "7.42")
    # 24 layers of 24.4 M products, the subsampling, four iterations of joint and prediction.
    assert float(flops) == pytest.approx(2 * (24 * 24.35 + 15.8 + 2.6 + 27.9) / 1000, rel=0.01)
    assert float(moved) > 3 * float(needed)
    assert 1_000 < int(kernels) < 3_000
    assert min(int(n) for n in streams) > 1_000
