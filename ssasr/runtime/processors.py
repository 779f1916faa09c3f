"""How many processors there are for this process."""

import os
from pathlib import Path


def cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Processors that this process may use: by affinity, and by what its container may spend
    (control groups, version 2)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        spent, period = map(int, quota.read_text("ascii").split())
    except (OSError, ValueError):  # none, or "max"
        return allowed or 1
    return max(1, min(allowed or 1, spent // period))
