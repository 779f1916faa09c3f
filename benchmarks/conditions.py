"""What every result says of itself, the command, the commit, the machine, and where it goes."""

import json
import os
import shlex
import sys
from pathlib import Path

from ssasr.bench.report import machine

REPLACED = {"--offline": "FILE", "--keep": "FILE", "--more": "FOLDER"}
"""What stands in a command for a path of this machine."""
LIMITS = (
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "FBGEMM_ENABLE_INSTRUCTIONS",
    "MKL_ENABLE_INSTRUCTIONS",
    "NUMBA_CPU_NAME",
    "NUMBA_CPU_FEATURES",
)
"""Of the environment: what libraries may use of the processor."""


def conditions() -> dict:
    """Folders of this machine are left out of the command: the rest is what repeats it."""
    words = iter(sys.argv[1:])
    kept = []
    for word in words:
        if word in (
            "--evaldata",
            "--times",
            "--speech",
            "--json",
            "--out",
            "--recall",
            "--page",
            "--write",
            "--work",
            "--rttm",
            "--counts",
            "--merge",
            "--peers",
        ):
            next(words)
        elif word in REPLACED:
            kept += [word, REPLACED[word]]
            next(words)
        else:
            kept.append(word)
    name = "benchmarks/" + sys.argv[0].rpartition("benchmarks/")[2].removesuffix(".py")
    limits = [f"{each}={os.environ[each]}" for each in LIMITS if each in os.environ]
    command = [*limits, "python", "-m", name.replace("/", "."), *kept]
    return {"command": shlex.join(command), **machine()}


def publish(result: dict, path: Path | None) -> None:
    """Print the result, and write it to ``path`` if there is one."""
    text = json.dumps(result, indent=1)
    print(text)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
