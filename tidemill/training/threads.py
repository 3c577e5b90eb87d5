"""How many CPU threads a training takes."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def default_threads(quota_file: Path = _CGROUP_QUOTA) -> int:
    """The cores that this process may use, at least 1: its affinity, and in a container its quota, rounded down.
    Threads beyond a quota do not only bring nothing, they wait for each other while the container is throttled.

    Args:
        quota_file: `cpu.max` of the container's cgroup (version 2); there need not be one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text(encoding="ascii").split()
    except FileNotFoundError:
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
