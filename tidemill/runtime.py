"""What surrounds the work of every step: progress, error codes, and dying with the process that started it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from tidemill.errors import EXIT_CODE, TidemillError, from_system_error

PROGRESS_FILE = "TIDEMILL_PROGRESS_FILE"
ERROR_FILE = "TIDEMILL_ERROR_FILE"
RUN_PID = "TIDEMILL_RUN_PID"
PREEMPTED_EXIT_CODE = 128 + signal.SIGTERM
"""Of a step that was told to end and can go on from where it was; as a shell gives it."""
_PR_SET_PDEATHSIG = 1
_MIN_INTERVAL_S = 0.2


class Preempted(Exception):
    """The process was told to end, and has kept what it needs to go on."""


class Progress:
    """Reports how far a step is. Costs nothing to call often: events are written at most five times a second.

    Without the environment variable `TIDEMILL_PROGRESS_FILE` (a step on a cluster) the same facts go to the log, at
    most every ten seconds.
    """

    def __init__(self, step: str):
        self.step = step
        self._file = os.environ.get(PROGRESS_FILE)
        self._interval_s = _MIN_INTERVAL_S if self._file else 10.0
        self._started = time.monotonic()
        self._last = 0.0

    def rows(self, done: int, total: int | None = None, what: str = "") -> None:
        """`done` rows of `total` (None: not known) of the phase `what` are through."""
        now = time.monotonic()
        if now - self._last < self._interval_s and done != total:
            return
        self._last = now
        self._write({"rows": int(done), "total": total if total is None else int(total), "what": what})

    def phase(self, what: str) -> None:
        """A new phase of the step begins, for example `export`."""
        self._last = 0.0
        self._write({"what": what})

    def _write(self, event: dict) -> None:
        event = {"step": self.step, "seconds": round(time.monotonic() - self._started, 3), **event}
        line = json.dumps(event)
        if self._file:
            with open(self._file, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        else:
            print(line, flush=True)


@contextlib.contextmanager
def step(name: str) -> Iterator[Progress]:
    """Surrounds the body of a component.

    A `TidemillError` inside ends the process with exit code 2 after printing one line `error [code] message` and, when
    the environment variable `TIDEMILL_ERROR_FILE` names a file, writing it there as JSON. So does an error of the file
    system that is the user's to mend. `Preempted` ends it with `PREEMPTED_EXIT_CODE`.

    Args:
        name: The component's name.

    Yields:
        A `Progress` for the library functions.
    """
    die_with_run()
    try:
        yield Progress(name)
    except TidemillError as error:
        _refuse(name, error)
    except Preempted:
        print(f"{name} was told to end; the next attempt goes on from here", file=sys.stderr, flush=True)
        sys.exit(PREEMPTED_EXIT_CODE)
    except Exception as error:
        if (mistake := from_system_error(error)) is None:
            raise
        traceback.print_exception(error)
        _refuse(name, mistake)


def _refuse(name: str, error: TidemillError) -> NoReturn:
    if path := os.environ.get(ERROR_FILE):
        # On a full disk there is no place for it.
        with contextlib.suppress(OSError):
            Path(f"{path}.partial").write_text(json.dumps({"step": name, **error.to_dict()}), encoding="ascii")
            os.replace(f"{path}.partial", path)
    print(f"error [{error.code.code}] {error}", file=sys.stderr, flush=True)
    sys.exit(EXIT_CODE)


def die_with_run() -> None:
    """Sees to it (on Linux) that this process ends with the local run that started it: a killed run leaves none behind.

    The kernel is asked to end it when its parent, a shell, dies, which itself dies with the run. Where that happened
    before, the run is no longer among the ancestors.
    """
    run = os.environ.get(RUN_PID)
    if run is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if int(run) not in _ancestors():
        os.kill(os.getpid(), signal.SIGKILL)


def _ancestors() -> Iterator[int]:
    pid = os.getppid()
    while pid > 0:
        yield pid
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            return
