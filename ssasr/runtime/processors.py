"""How many processors there are for this process."""

import os
from pathlib import Path


def cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Number of processors that this process may use, by its affinity and by its container's CPU
    quota (control groups, version 2). At least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        spent, period = map(int, quota.read_text("ascii").split())
    except (OSError, ValueError):  # none, or "max"
        return allowed or 1
    return max(1, min(allowed or 1, spent // period))
