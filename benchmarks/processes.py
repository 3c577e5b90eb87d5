"""Measures functions in fresh processes, so that no function profits from what an earlier one loaded or cached."""

from __future__ import annotations

import importlib
import multiprocessing
import resource
import time
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from typing import Any


@dataclass(frozen=True)
class Usage:
    """What one call took.

    Attributes:
        wall: Seconds of the call.
        cpu: User and system seconds of the call, of all threads.
        process_cpu: User and system seconds of the whole process, with the start of Python and all imports.
        peak_gib: Peak resident memory of the process, in GiB.
        result: What the function returned.
    """

    wall: float
    cpu: float
    process_cpu: float
    peak_gib: float
    result: Any


def measure(function: str, *args: object) -> Usage:
    """Calls `module:function` in a fresh process. The module is imported before the clock starts.

    Args:
        function: A function of a module that can be imported.
        *args: Its arguments, which can be pickled.

    Raises:
        SystemExit: The process failed.
    """
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=_run, args=(function, args, queue))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"{function} ended with exit code {process.exitcode}")
    return queue.get()


def _run(function: str, args: tuple, queue: SimpleQueue) -> None:
    module, _, name = function.partition(":")
    call = getattr(importlib.import_module(module), name)
    wall, cpu = time.perf_counter(), _cpu()
    result = call(*args)
    wall, cpu = time.perf_counter() - wall, _cpu() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    queue.put(Usage(wall, cpu, _cpu(), peak, result))


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
