"""The client of the fork server: starts the server and asks it to run steps.

Importing TensorFlow takes seconds of CPU time. The fork server (`fork_server_process`) imports it once and forks a
child for each step that needs it. This process keeps one server for all its runs.

A request to the server is a JSON text with its length before it, and two file descriptors: the step's log, and a socket
for the answer. The answer is the child's process id, and its exit code when it has ended.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import IO

from tidemill.local.fork_server_process import HEADER, READY, STATUS

PRELOADED = ("tensorflow", "kfp.dsl.executor")
_POLL_S = 0.1
# The shell script of a compiled component, with any interpreter.
_SCRIPT = re.compile(
    r'\s*program_path=\$\(mktemp -d\)\s+printf "%s" "\$0" > "\$program_path/ephemeral_component\.py"'
    r"\s+_KFP_RUNTIME=true .+ -m kfp\.dsl\.executor_main"
    r'\s+--component_module_path\s+"\$program_path/ephemeral_component\.py"\s+"\$@"\s*'
)
# Variables that no import depends on. If another one changes, the server is started anew.
_HARMLESS = {"TMPDIR", "PWD", "OLDPWD", "_", "SHLVL", "COLUMNS", "LINES", "PYTHONUNBUFFERED"}
_HARMLESS_PREFIXES = ("TIDEMILL_", "PYTEST_")


class ServerGone(Exception):
    """The fork server did not start or has ended."""


@dataclass(frozen=True)
class Request:
    """One step for the fork server."""

    name: str
    """The process's short name, as `top` shows it."""
    source: str
    """The component's source."""
    arguments: list[str]
    """The arguments of kfp's executor."""
    env: dict[str, str]
    """The whole environment."""
    cwd: str
    cpus: list[int]
    """The CPUs that the step may use."""


def request(command: Sequence[str], env: Mapping[str, str], name: str) -> Request | None:
    """Reads the command of a compiled component.

    Args:
        command: A shell, its options and script, the component's source and the executor's arguments.
        env: The whole environment.
        name: The step's name.

    Returns:
        The request; None for a command of another form, such as one that installs packages.
    """
    if len(command) < 5 or [*command[:2]] != ["sh", "-ec"] or not _SCRIPT.fullmatch(command[2]):
        return None
    cpus = sorted(os.sched_getaffinity(0))
    return Request(name, command[3], [*command[4:]], {**env, "_KFP_RUNTIME": "true"}, os.getcwd(), cpus)


class ForkedStep:
    """A running child of the fork server.

    Args:
        answer: The socket with the server's answer.

    Attributes:
        pid: The child's process id, which is its process group's too.

    Raises:
        ServerGone: The server ended before the child started.
    """

    def __init__(self, answer: socket.socket):
        self._answer = answer
        self.pid = self._number()

    def wait(self) -> int:
        """Waits for the child and returns its exit code; negative: the signal that ended it.

        Raises:
            ServerGone: The server has ended, and the kernel has killed the child with it.
        """
        with self._answer:
            return self._number()

    def _number(self) -> int:
        data = self._answer.recv(STATUS.size, socket.MSG_WAITALL)
        if len(data) < STATUS.size:
            raise ServerGone
        return STATUS.unpack(data)[0]


class ForkServer:
    """A fork server of this process. It is ready some seconds after the start, and ends with this process.

    Args:
        env: The environment in which the server imports the modules.
        preloaded: Names of the modules. Defaults to TensorFlow and kfp's executor.

    Attributes:
        owner: Id of the process that started it.
        imported_in: The variables of `env` that an import may depend on.
        failed: Whether it could not start.
    """

    def __init__(self, env: Mapping[str, str], preloaded: Sequence[str] = PRELOADED):
        self.owner = os.getpid()
        self.imported_in = _relevant(env)
        self._preloaded = preloaded
        self._env = {
            **env,
            "PYTHONUNBUFFERED": "1",
            # kfp then imports only what a component needs.
            "_KFP_RUNTIME": "true",
            # Otherwise importing Arrow starts a thread.
            "JE_ARROW_MALLOC_CONF": "background_thread:false",
        }
        self._control, self._other_end = socket.socketpair()
        self._sending = threading.Lock()
        self._started = threading.Event()
        self._decided = threading.Event()
        self._process: subprocess.Popen | None = None
        self._ready = False
        self.failed = False
        # The kernel kills the server when the thread that started it ends: hence one that lasts as long as the server.
        threading.Thread(target=self._run, name="tidemill-fork-server", daemon=True).start()

    def wait(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Waits until the server is ready.

        Args:
            stopped: Called ten times a second; the wait ends when it returns True.

        Returns:
            Whether steps can be run. False if the server could not start, has ended, or `stopped` returned true.
        """
        while not self._decided.wait(_POLL_S):
            if stopped():
                return False
        return self._ready

    def fork(self, request: Request, log: IO[bytes]) -> ForkedStep:
        """Runs a step in a child of the server.

        Args:
            request: The step.
            log: An open file for its standard output and standard error.

        Raises:
            ServerGone: The server is not ready, or has ended.
        """
        text = json.dumps(asdict(request)).encode()
        mine, other = socket.socketpair()
        try:
            with self._sending, other:
                socket.send_fds(self._control, [HEADER.pack(len(text))], [log.fileno(), other.fileno()])
                self._control.sendall(text)
            return ForkedStep(mine)
        except (OSError, ServerGone) as error:
            mine.close()
            self._ready = False
            raise ServerGone from error

    @property
    def usable(self) -> bool:
        """Whether the server is starting or ready, in this process."""
        return self.owner == os.getpid() and (self._ready or not self._decided.is_set())

    def close(self) -> None:
        """Lets the server end after the steps that run."""
        self._ready = False
        self._decided.set()
        with contextlib.suppress(OSError):  # raised if the connection is closed already
            self._control.shutdown(socket.SHUT_RDWR)
        self._control.close()

    def kill(self) -> None:
        """Ends the server and the steps that run in it."""
        if self.owner != os.getpid():
            return
        self._ready = False
        self._decided.set()
        self._started.wait()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._control.close()

    def _run(self) -> None:
        try:
            self._process = self._start()
            message = self._message()
        except OSError as error:
            message = str(error).encode()
        finally:
            self._other_end.close()
            self._started.set()
        if not self._decided.is_set():
            self._ready = message == READY
            self.failed = not self._ready
        if self.failed:
            logging.warning("the fork server did not start: %s", message.decode(errors="replace"))
        self._decided.set()
        if self._process is not None:
            self._process.wait()
        self._ready = False

    def _start(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "tidemill.local.fork_server_process"]
        process = subprocess.Popen(
            [*command, str(self._other_end.fileno()), str(self.owner), *self._preloaded],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._env,
            pass_fds=[self._other_end.fileno()],
            start_new_session=True,
        )
        # Without it, the connection would not end with the server.
        self._other_end.close()
        self._started.set()
        return process

    def _message(self) -> bytes:
        """Reads what the server sends first: that it is ready, or why it is not."""
        message = b""
        while message != READY and (part := self._control.recv(1 << 16)):
            message += part
        return message


_lock = threading.Lock()
_server: ForkServer | None = None


def shared(env: Mapping[str, str]) -> ForkServer | None:
    """Returns the fork server of this process, which may still be starting.

    A server that has ended, or that imported TensorFlow in another environment, is replaced.

    Args:
        env: The environment of the step.

    Returns:
        None if no server can start: on systems other than Linux, where a process with loaded libraries cannot be forked
        safely, and after a failure in this environment.
    """
    global _server
    if sys.platform != "linux":
        return None
    with _lock:
        server = _server
        if server is not None and server.failed and server.imported_in == _relevant(env):
            return None
        if server is not None and server.usable and server.imported_in == _relevant(env):
            return server
        if server is not None and server.owner == os.getpid():
            server.close()
            atexit.unregister(server.kill)
        _server = ForkServer(env)
        atexit.register(_server.kill)
        return _server


def _relevant(env: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value for name, value in env.items() if name not in _HARMLESS and not name.startswith(_HARMLESS_PREFIXES)
    }
