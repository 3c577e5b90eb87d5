"""The fork server: a process that imports TensorFlow once and forks a child for each step.

A child starts with TensorFlow loaded and is otherwise like a new process: its environment, working directory, log,
session and exit are its own. Nothing that a step does reaches the server or another step.

The server itself executes nothing of TensorFlow: a process that has run it has threads, and a child that is forked
then may hang. `fork_server` starts this module as a program and describes the messages.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

HEADER = struct.Struct("!Q")
"""Precedes a request: the number of bytes of its JSON text."""
STATUS = struct.Struct("!i")
"""A number in an answer: the child's process id, and later its exit code."""
READY = b"ready"
_PR_SET_NAME, _PR_SET_PDEATHSIG = 15, 1
_MAX_NAME = 15


class RequestLoop:
    """A loop that forks a child for each request until the other end closes the connection.

    Args:
        control: The connection to the process that runs the pipeline.
    """

    def __init__(self, control: socket.socket):
        self._control = control
        self._answers: dict[int, socket.socket] = {}
        self._wake, self._woken = os.pipe()
        os.set_blocking(self._woken, False)
        signal.set_wakeup_fd(self._woken)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> dict[str, Any] | None:
        """Serves requests.

        Returns:
            In a child, the request that it has to carry out. In the server, None at the end of all requests.
        """
        open_control = True
        while open_control or self._answers:
            sources = [self._wake, *([self._control] if open_control else [])]
            readable, _, _ = select.select(sources, [], [])
            if self._wake in readable:
                os.read(self._wake, 4096)
                self._reap()
            if self._control in readable:
                request = self._receive()
                if request is None:
                    open_control = False
                elif self._fork(request):
                    return request
        return None

    def _receive(self) -> dict[str, Any] | None:
        header, fds, _, _ = socket.recv_fds(self._control, HEADER.size, 2)
        if not header:
            return None
        header += _read(self._control, HEADER.size - len(header))
        request = json.loads(_read(self._control, *HEADER.unpack(header)))
        return request | {"log": fds[0], "answer": fds[1]}

    def _fork(self, request: dict[str, Any]) -> bool:
        """Forks a child. Returns whether this is the child."""
        answer = socket.socket(fileno=request.pop("answer"))
        server = os.getpid()
        pid = os.fork()
        if pid:
            os.close(request["log"])
            self._answers[pid] = answer
            return False
        os.setsid()
        end_with_parent(server)
        self._control.close()
        for other in self._answers.values():
            other.close()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(self._wake)
        os.close(self._woken)
        _take_over(request)
        # Only now the process that runs the pipeline can kill the child's whole process group.
        answer.sendall(STATUS.pack(os.getpid()))
        answer.close()
        return True

    def _reap(self) -> None:
        while self._answers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            answer = self._answers.pop(pid)
            # The other end is closed if nobody waits for the step any more.
            with answer, contextlib.suppress(OSError):
                answer.sendall(STATUS.pack(os.waitstatus_to_exitcode(status)))


def end_with_parent(parent: int) -> None:
    """Asks the kernel to kill this process when its parent dies, and exits if that has happened already.

    Args:
        parent: The parent's process id.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def preload(modules: Sequence[str]) -> str:
    """Imports what steps need and checks that the process can still be forked.

    Args:
        modules: Names of the modules to import.

    Returns:
        An empty text, or the reason why forking is not safe.
    """
    # Collecting garbage while importing takes a sixth of the time and finds nothing.
    gc.disable()
    for name in modules:
        importlib.import_module(name)
    gc.enable()
    # Children neither traverse nor copy the objects of the imports.
    gc.freeze()
    # OpenBLAS starts threads when it is loaded, and ends them before a fork.
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    threads = os.listdir("/proc/self/task")
    return "" if len(threads) == 1 else f"{len(threads)} threads run after importing {', '.join(modules)}"


def _take_over(request: dict[str, Any]) -> None:
    """Makes this child look like a new process with the request's environment, working directory and log."""
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (request["log"], 1), (request["log"], 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(request["log"])
    if sys.path[0] == os.getcwd():
        sys.path[0] = request["cwd"]
    os.chdir(request["cwd"])
    os.sched_setaffinity(0, request["cpus"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    tempfile.tempdir = None
    if numpy := sys.modules.get("numpy"):
        # Otherwise all children draw the same random numbers.
        numpy.random.seed()
    ctypes.CDLL(None).prctl(_PR_SET_NAME, request["name"].encode(errors="replace")[:_MAX_NAME])


def _execute(request: dict[str, Any]) -> None:
    """Runs the component as the compiled command does, where a shell writes the source and starts the executor."""
    component = os.path.join(tempfile.mkdtemp(), "ephemeral_component.py")
    with open(component, "w", encoding="utf-8") as file:
        file.write(request["source"])
    sys.argv = ["", "--component_module_path", component, *request["arguments"]]
    runpy.run_module("kfp.dsl.executor_main", run_name="__main__", alter_sys=True)


def _read(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = connection.recv(min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _exit(control: socket.socket, message: str) -> NoReturn:
    control.sendall(message.encode())
    os._exit(1)


def main() -> None:
    """Serves requests. Returns in a child, after its step, so that Python ends it as it ends any process.

    The arguments are the control connection's file descriptor, the parent's process id and the modules to import.
    """
    control = socket.socket(fileno=int(sys.argv[1]))
    end_with_parent(int(sys.argv[2]))
    try:
        problem = preload(sys.argv[3:])
    except BaseException:
        _exit(control, traceback.format_exc())
    if problem:
        _exit(control, problem)
    control.sendall(READY)
    request = RequestLoop(control).serve()
    if request is None:
        os._exit(0)
    _execute(request)


if __name__ == "__main__":
    main()
