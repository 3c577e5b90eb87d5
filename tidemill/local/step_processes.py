"""The operating-system processes of a run: one group a step, none of which outlives the run."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from tidemill.errors import Code, TidemillError

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class StepProcesses:
    """The steps' processes. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen] = set()
        self.stopped = False
        """Whether `stop` was called."""

    def run(self, command: Sequence[str], env: dict[str, str], log: Path) -> int:
        """Runs a command in a process group of its own and waits for it.

        On Linux the kernel kills the command when this process dies, however it dies.

        Args:
            command: The command and its arguments.
            env: The whole environment.
            log: File to which standard output and standard error are appended.

        Returns:
            The exit code; negative: the signal that ended it. After `stop` nothing is started and the result is -9.

        Raises:
            TidemillError: `unsupported` where the arguments are larger than the operating system takes.
        """
        with open(log, "ab") as output:
            with self._lock:
                if self.stopped:
                    return -signal.SIGKILL
                process = _start(command, env, output)
                self._running.add(process)
            exit_code = process.wait()
            with self._lock:
                self._running.discard(process)
            return exit_code

    def stop(self) -> None:
        """Kills everything that runs, with its children, and lets nothing start any more."""
        with self._lock:
            self.stopped = True
            for process in self._running:
                _kill_group(process)


def _start(command: Sequence[str], env: dict[str, str], output) -> subprocess.Popen:
    run_pid = os.getpid()

    def die_with_run() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != run_pid:
            os._exit(1)

    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
            preexec_fn=die_with_run,
        )
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise
        got = "parameters that are longer than a command line can be (128 KiB on Linux)"
        raise TidemillError(Code.UNSUPPORTED, "experiment", got, "shorten the SQL or the transform module") from error


def _kill_group(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
