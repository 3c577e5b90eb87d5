"""The operating-system processes of a run: one group for each step, none of which outlives the run."""

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
from typing import IO

from tidemill.errors import Code, TidemillError
from tidemill.local import fork_server

_MAX_ARGUMENT = 32 * 4096
"""Linux's limit for one argument, in bytes, including the final zero byte."""
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class StepProcesses:
    """The steps' processes. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: set[int] = set()
        self.stopped = False
        """Whether `stop` was called."""

    def run(
        self,
        command: Sequence[str],
        env: dict[str, str],
        log: Path,
        *,
        name: str = "",
        server: fork_server.ForkServer | None = None,
    ) -> int:
        """Runs a command in a process group of its own and waits for it.

        On Linux, the kernel kills the command when this process dies for any reason.

        Args:
            command: The command and its arguments.
            env: The whole environment.
            log: File to which standard output and standard error are appended.
            name: Short name for the process.
            server: Runs the command if it is that of a compiled component and the server can run it. None: a new
                process runs it.

        Returns:
            The exit code; negative: the signal that ended it. After `stop` nothing is started and the result is -9.

        Raises:
            TidemillError: `unsupported` if the arguments are longer than the operating system accepts.
        """
        request = None if server is None else fork_server.request(command, env, name)
        with open(log, "ab") as output:
            if server is not None and request is not None and server.wait(lambda: self.stopped):
                _check_length(command)
                with contextlib.suppress(fork_server.ServerGone):
                    return self._run_forked(server, request, output)
            return self._run_new(command, env, output)

    def stop(self) -> None:
        """Kills all running commands and their children. No command starts afterwards."""
        with self._lock:
            self.stopped = True
            for group in self._groups:
                _kill_group(group)

    def _run_new(self, command: Sequence[str], env: dict[str, str], output: IO[bytes]) -> int:
        with self._lock:
            if self.stopped:
                return -signal.SIGKILL
            process = _start(command, env, output)
            self._groups.add(process.pid)
        try:
            return process.wait()
        finally:
            self._remove(process.pid)

    def _run_forked(self, server: fork_server.ForkServer, request: fork_server.Request, output: IO[bytes]) -> int:
        step = server.fork(request, output)
        with self._lock:
            self._groups.add(step.pid)
            if self.stopped:
                _kill_group(step.pid)
        try:
            exit_code = step.wait()
        except fork_server.ServerGone:
            exit_code = -signal.SIGKILL
        finally:
            self._remove(step.pid)
        # A shell, which starts the component elsewhere, reports a killed child in this way.
        return exit_code if exit_code >= 0 or self.stopped else 128 - exit_code

    def _remove(self, group: int) -> None:
        with self._lock:
            self._groups.discard(group)


def _check_length(command: Sequence[str]) -> None:
    """Rejects arguments that a new process would not accept, so that a pipeline behaves as on a cluster."""
    if any(len(os.fsencode(argument)) >= _MAX_ARGUMENT for argument in command):
        raise _timeout_error()


def _timeout_error() -> TidemillError:
    got = "parameters that are longer than a command line can be (128 KiB on Linux)"
    return TidemillError(Code.UNSUPPORTED, "experiment", got, "shorten the SQL or the transform module")


def _start(command: Sequence[str], env: dict[str, str], output: IO[bytes]) -> subprocess.Popen:
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
        raise _timeout_error() from error


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
