"""Writes docker/requirements/*.txt: every package that the images install, with the SHA-256 of its
wheels for x86-64 and arm64, as the package index has them. For after a change of constraints.txt:

    python docker/lock.py

It downloads what it pins, PyTorch with CUDA's libraries among it, so it takes a few gigabytes of
traffic. PyTorch's CPU wheels are on an index of their own and are pinned by version only.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).parents[1]
FOLDER = TOP / "docker" / "requirements"
ARM64 = ["manylinux_2_28_aarch64", "manylinux_2_26_aarch64", "manylinux_2_17_aarch64",
         "manylinux2014_aarch64"]  # fmt: skip
CUDA = ("torch", "triton", "nvidia-", "cuda-")
"""What comes with PyTorch's CUDA wheel alone, which the CPU's does without."""
HEAD = """# {what}
# Written by docker/lock.py; pip installs it with --require-hashes.
"""


Packages = dict[str, tuple[str, str]]
"""Normalized name to version and SHA-256."""


def report(folder: str, *arguments: str) -> Packages:
    """What pip would install."""
    path = Path(folder) / "report.json"
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed",
               "--only-binary=:all:", "--report", path, *arguments]  # fmt: skip
    subprocess.run(command, check=True, cwd=TOP)
    found = {}
    for item in json.loads(path.read_text())["install"]:
        info, about = item["download_info"], item["metadata"]
        if "archive_info" in info:  # not the project itself
            name = about["name"].lower().replace("_", "-").replace(".", "-")
            found[name] = (about["version"], info["archive_info"]["hashes"]["sha256"])
    return found


def resolve(*wanted: str) -> Packages:
    """For this machine, which is to be x86-64 Linux with the images' Python."""
    with tempfile.TemporaryDirectory() as folder:
        return report(folder, "-c", "constraints.txt", *wanted)


def for_arm64(packages: Packages) -> Packages:
    pins = [f"{name}=={version}" for name, (version, _) in packages.items()]
    platforms = [f"--platform={name}" for name in ARM64]
    abis = ["--abi=cp311", "--abi=abi3", "--abi=none"]
    with tempfile.TemporaryDirectory() as folder:
        target = ["--no-deps", "--implementation=cp", "--python-version=3.11", "--target", folder]
        return report(folder, *target, *platforms, *abis, *pins)


def write(name: str, what: str, packages: Packages, others: Packages | None = None) -> None:
    lines = [HEAD.format(what=what)]
    for package, (version, digest) in sorted(packages.items()):
        digests = sorted({digest} | ({others[package][1]} if others else set()))
        lines.append(f"{package}=={version} \\\n")
        lines.append(" \\\n".join(f"    --hash=sha256:{each}" for each in digests) + "\n")
    (FOLDER / f"{name}.txt").write_text("".join(lines))


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    build = resolve("setuptools")
    write("build", "What builds the package.", build, for_arm64(build))
    gateway = resolve(".[chinese,codecs,licence,otel,redaction]")
    write("gateway", "The gateway's image.", gateway, for_arm64(gateway))
    engine = resolve(".[engine,gpu,otel]")
    cuda = {name: at for name, at in engine.items() if name.startswith(CUDA)}
    rest = {name: at for name, at in engine.items() if name not in cuda}
    write("engine", "The engines' images, but for PyTorch.", rest, for_arm64(rest))
    write("torch-cuda", "PyTorch with CUDA's libraries, for x86-64.", cuda)


if __name__ == "__main__":
    main()
