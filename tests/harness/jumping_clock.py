"""``ssasr`` with a wall clock that jumps.

    python -m tests.harness.jumping_clock FILE ARGUMENTS…

What ``time.time()`` says is moved by the seconds written in FILE, read each time. The monotonic
clock is left alone, as it is on a machine whose clock is set.
"""

import sys
import time
from pathlib import Path

from ssasr.cli.commands import main


def install(path: Path) -> None:
    real = time.time

    def jumping() -> float:
        return real() + float(path.read_text() or 0)

    time.time = jumping


if __name__ == "__main__":
    install(Path(sys.argv[1]))
    main(sys.argv[2:])
