"""Figures an operator asks for, each with its own command:

    python -m benchmarks.operations start [--repeat 3]     from exec to ready, cold and warm
    python -m benchmarks.operations memory                 of processes, idle and active sessions
    python -m benchmarks.operations size --streams 2 4 6   an English engine on this machine's CPU
    python -m benchmarks.operations images                 what the images' layers hold

each with ``--json FILE``. ``start`` empties the page cache (Linux, root) for the cold runs.
``images`` runs the Dockerfiles' own RUN commands in a folder of its own: it needs the package index
and, with ``--cuda``, three gigabytes for CUDA's libraries, which are counted and thrown away.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from urllib.error import URLError
from urllib.request import urlopen

import trio

from benchmarks.conditions import publish
from ssasr.bench.player import Target, play_all
from ssasr.bench.processes import usage
from ssasr.bench.recordings import bundled_recordings, make_track
from ssasr.bench.report import machine
from ssasr.models.catalogue import cache_directory
from ssasr.net.websocket_client import connect_websocket
from tests.harness.cluster import ClusterConfig, run_cluster
from tests.harness.processes import free_port

TOP = Path(__file__).parents[1]
KEY = "self-hosted"
CPU = ["--device", "cpu"]
STARTS = {
    "gateway": ["gateway", "--asr-endpoint", "ws://127.0.0.1:1"],
    "engine scripted": ["engine", "--model", "english", "--engine-kind", "scripted"],
    "engine english (Whisper tiny.en)": ["engine", "--model", "english", *CPU],
    "engine multilingual (Whisper base)": ["engine", "--model", "multilingual", *CPU],
}
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


# -- start -----------------------------------------------------------------------------------------


def empty_page_cache():
    os.sync()
    DROP_CACHES.write_text("3")


def seconds_to_ready(arguments):
    """From exec to the first 200; a gateway without engines is as ready as it gets at /health."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "ssasr",
        *arguments,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    path = "/health" if arguments[0] == "gateway" else "/ready"
    started = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while time.monotonic() < started + 170:
            assert process.poll() is None, "it ended"
            try:
                with urlopen(f"http://127.0.0.1:{port}{path}", timeout=1):
                    return round(time.monotonic() - started, 2)
            except (URLError, OSError):
                time.sleep(0.02)
        raise AssertionError("not ready")
    finally:
        process.terminate()
        process.wait(20)


def start(given):
    result = {}
    for name, arguments in STARTS.items():
        if given.only and given.only not in name:
            continue
        cold = []
        for _ in range(given.repeat):
            empty_page_cache()
            cold.append(seconds_to_ready(arguments))
        warm = [seconds_to_ready(arguments) for _ in range(given.repeat)]
        result[name] = {"cold_s": cold, "warm_s": warm}
    return {"cold_start": result, "slowest_cold_s": max(max(r["cold_s"]) for r in result.values())}


# -- memory ----------------------------------------------------------------------------------------


def rss(cluster):
    return {
        "gateway": usage(cluster.gateway.pid).rss,
        "engine": usage(cluster.engines[0].pid).rss,
    }


async def hold(url, *, task_status):
    async with connect_websocket(url, headers=[(b"Authorization", KEY.encode())]) as websocket:
        await websocket.get_message()
        task_status.started()
        await trio.sleep_forever()


async def watch(cluster, most):
    while True:
        for name, value in rss(cluster).items():
            most[name] = max(most[name], value)
        await trio.sleep(0.25)


async def speak(cluster, streams, seconds):
    """The most memory meanwhile; close codes."""
    random, most = Random(1), rss(cluster)
    recordings = bundled_recordings(1.6, 0.1)
    tracks = [make_track(recordings, seconds, 0.1, random) for _ in range(streams)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, cluster, most)
        target = Target(f"{cluster.url}?", KEY)
        logs = await play_all(target, tracks, spread=2.0, random=random)
        nursery.cancel_scope.cancel()
    return most, {str(log.code) for log in logs}


async def measure_memory(options, idle, active, seconds):
    """Of both processes: ready; for each session that is open and silent; for the first one that
    speaks, which is when a model takes its working memory; for each one beside it."""
    with tempfile.TemporaryDirectory(prefix="ssasr-memory-") as folder:
        config = ClusterConfig(Path(folder), 1, options)
        async with run_cluster(config) as cluster, trio.open_nursery() as nursery:
            before = rss(cluster)
            for _ in range(idle):
                await nursery.start(hold, cluster.url)
            await trio.sleep(2)
            held = rss(cluster)
            nursery.cancel_scope.cancel()
        async with run_cluster(config) as cluster:
            ready = rss(cluster)
            one, _ = await speak(cluster, 1, seconds)
            many, codes = await speak(cluster, active, seconds)
    return {
        "idle_sessions": idle,
        "active_sessions": active,
        "codes": sorted(codes),
        **{
            name: {
                "ready_mib": round(before[name] / 2**20, 1),
                "idle_session_kib": round((held[name] - before[name]) / idle / 2**10),
                "first_active_mib": round((one[name] - ready[name]) / 2**20, 1),
                "further_active_kib": round((many[name] - one[name]) / (active - 1) / 2**10),
            }
            for name in before
        },
    }


def memory(given):
    version = ["--model-version", "en-default"]
    places = ["--max-streams", "1000"]
    kinds = {
        "scripted": (["--model", "english", "--engine-kind", "scripted", *places], 300, 31),
        "english": (["--model", "english", *CPU, *places], 32, 5),
        "multilingual": (["--model", "multilingual", *version, *CPU, *places], 32, 3),
    }
    return {
        "memory": {
            name: trio.run(measure_memory, options, idle, active, 12.0)
            for name, (options, idle, active) in kinds.items()
            if not given.only or given.only in name
        }
    }


# -- size ------------------------------------------------------------------------------------------


@contextmanager
def serving(*arguments):
    """The endpoint of ``ssasr serve``, ready."""
    port = free_port()
    command = [sys.executable, "-m", "ssasr", "serve", *arguments, "--port", str(port)]
    process = subprocess.Popen([*command, "--log-level", "warning"])
    try:
        for _ in range(600):
            assert process.poll() is None, "it ended"
            with suppress(URLError, OSError), urlopen(f"http://127.0.0.1:{port}/ready", timeout=1):
                break
            time.sleep(0.1)
        yield f"ws://127.0.0.1:{port}/v3/ws"
    finally:
        process.terminate()
        process.wait(60)


def bench(endpoint, streams, given):
    """One row of ``ssasr bench``: its own verdict is whether p95 is within the bound."""
    command = [sys.executable, "-m", "ssasr", "bench", "--endpoint", endpoint, "--json",
               "--streams", streams, "--seconds", given.seconds,
               "--bound", given.bound]  # fmt: skip
    for option in ("audio", "transcripts"):
        if (value := getattr(given, option)) is not None:
            command += [f"--{option}", value]
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True, check=False)
    (run,) = json.loads(done.stdout)["runs"]
    finalization = run["latencies"]["finalization"]
    return {
        "within_bound": done.returncode == 0,
        "turns": finalization["count"],
        "ttfs_p50_s": finalization["p50"],
        "ttfs_p95_s": finalization["p95"],
        "wer": run["wer"],
        "server_cores": round(sum(each["cores"] for each in run["processes"]), 2),
        "server_rss_mib": round(sum(each["rss"] for each in run["processes"]) / 2**20),
        "client_cores": run["client"]["cores"],
        "closes": run["closes"],
    }


def size(given):
    """A fresh server for each number, so that none inherits another's memory."""
    result = {}
    for streams in given.streams:
        most = str(max(given.streams))
        with serving("--engines", "english", *CPU, "--max-streams", most) as endpoint:
            result[f"{streams} streams"] = bench(endpoint, streams, given)
    return {"sizing": result, "bound_s": given.bound, "seconds": given.seconds}


# -- images ----------------------------------------------------------------------------------------


def size_of(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return round(sum(path.stat().st_size for path in files) / 1e6, 1)


def run_stage(dockerfile, root, environment):
    """The RUN commands of the first stage, with ``root`` for the container's own folders."""
    text = re.sub(r"\\\n\s*", "", (TOP / dockerfile).read_text())
    stage = text[text.index("\nFROM ") :].split("\nFROM ")[1]
    shutil.copytree(TOP / "docker" / "requirements", root / "src" / "docker" / "requirements")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TOP / name, root / "src" / name)
    shutil.copytree(TOP / "ssasr", root / "src" / "ssasr",
                    ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    for command in re.findall(r"^RUN (.*)$", stage, re.MULTILINE):
        own = command.replace("/opt/", f"{root}/opt/").replace("/wheels", f"{root}/wheels")
        own = own.replace("python -m venv", f"{sys.executable} -m venv")
        subprocess.run(["sh", "-ec", own], cwd=root / "src", check=True, env=environment,
                       stdout=subprocess.DEVNULL)  # fmt: skip


def largest(folder, count=8):
    sizes = {path.name: size_of(path) for path in folder.iterdir() if path.is_dir()}
    return dict(sorted(sizes.items(), key=lambda item: -item[1])[:count])


def build(dockerfile, **arguments):
    """MB of the environment that the image copies, and its largest packages."""
    with tempfile.TemporaryDirectory(prefix="ssasr-image-") as folder:
        root = Path(folder)
        environment = {**os.environ, "PIP_NO_CACHE_DIR": "1", "PIP_QUIET": "2", **arguments}
        run_stage(dockerfile, root, environment)
        packages = next((root / "opt" / "ssasr" / "lib").glob("python3*")) / "site-packages"
        return {"mb": size_of(root / "opt" / "ssasr"), "largest_mb": largest(packages)}


def cuda_wheels():
    """MB that torch-cuda.txt unpacks to."""
    with tempfile.TemporaryDirectory(prefix="ssasr-cuda-") as folder:
        lists = TOP / "docker" / "requirements" / "torch-cuda.txt"
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            folder,
        ]
        subprocess.run([*command, "--require-hashes", "-r", lists], check=True)
        found = {}
        for path in Path(folder).glob("*.whl"):
            with zipfile.ZipFile(path) as wheel:
                unpacked = sum(item.file_size for item in wheel.infolist())
            name = path.name.split("-")[0]
            found[name] = [round(path.stat().st_size / 1e6, 1), round(unpacked / 1e6, 1)]
    return {
        "compressed_mb": round(sum(each[0] for each in found.values())),
        "unpacked_mb": round(sum(each[1] for each in found.values())),
        "wheels_mb": dict(sorted(found.items(), key=lambda item: -item[1][1])),
    }


def weights():
    """MB of each model's files in the catalogue, for the image that carries it."""
    cache = cache_directory()
    return {path.name: size_of(path) for path in sorted(cache.iterdir()) if path.is_dir()}


def images(given):
    result = {"gateway": build("docker/gateway.Dockerfile")}
    if given.torch_index:
        result["engine_cpu"] = build("docker/engine.Dockerfile", TORCH_INDEX_URL=given.torch_index,
                                     TORCH_VERSION="2.13.0")  # fmt: skip
    if given.cuda:
        result["torch_cuda"] = cuda_wheels()
    result["weights_mb"] = weights()
    note = "MB on disk of what the last stage copies; without the base image"
    return {"image_sizes": result, "note": note}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["start", "memory", "size", "images"])
    parser.add_argument("--streams", type=int, nargs="+", default=[2, 4, 6])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--bound", type=float, default=1.5, help="seconds, p95")
    parser.add_argument("--audio", help="size: a folder of recordings; as for ssasr bench")
    parser.add_argument("--transcripts", help="size: their manifest")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", default="", help="part of a name: nothing else is measured")
    parser.add_argument("--torch-index", help="images: where PyTorch's CPU wheels are")
    parser.add_argument("--cuda", action="store_true", help="images: count CUDA's libraries too")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    command = " ".join(["python", *sys.argv])
    measure = {"start": start, "memory": memory, "size": size, "images": images}[given.what]
    done = measure(given)
    publish({"command": command, **machine(), **done}, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
