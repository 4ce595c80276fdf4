"""How many cores this process may compute on."""

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota_file: Path = _CGROUP) -> int:
    """Cores by affinity and by the limit of the control group, at least one.

    Threads beyond it are worse than none: at the end of every parallel operation, and a forward has
    thousands, all of them wait for the one that was not running.
    """
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = found or 1
    try:
        quota, period = quota_file.read_text().split()
        limit = max(1, int(quota) // int(period))
    except (OSError, ValueError):  # no control groups, or no limit: "max 100000"
        return cores
    return min(cores, limit)
