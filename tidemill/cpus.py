"""The number of CPU cores that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_cpus(quota_file: Path = _CGROUP_QUOTA) -> int:
    """Returns the number of cores that this process may use, at least 1.

    The number respects the process's CPU affinity and, in a container, its CPU quota rounded down. More threads than
    the quota allows make a container slower: they wait for each other while it is throttled.

    Args:
        quota_file: `cpu.max` of the container's cgroup (version 2). It need not exist.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text(encoding="ascii").split()
    except FileNotFoundError:
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
