"""The containers of a run: one for each step, none of which outlives the run.

A container is as on a cluster: the step's image, a user without privileges, a root file system that is read-only, and
`/tmp`. Besides, it sees the folders and files that the run's steps share, at their own paths.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill.errors import Code, TidemillError
from tidemill.local import docker_engine
from tidemill.local.container_mounts import Mount
from tidemill.local.images import RELEASED, Images, asks_for_gpu, gpu_counts, image_names
from tidemill.local.step_processes import StepProcesses

_LABEL = "dev.tidemill.run"
_ENGINE_FAILED = 125
"""Exit code of `docker run` if the container does not start."""
_ENGINE_ERROR = re.compile(r"docker: (.+?)\.?(?:\n\s*(?:See|Run) 'docker run --help'.*)?\s*$", re.DOTALL)
_CREDENTIALS = "GOOGLE_APPLICATION_CREDENTIALS"
_PASSED_ON = (_CREDENTIALS, "GOOGLE_CLOUD_PROJECT", "STORAGE_EMULATOR_HOST")
"""Environment variables that steps need to reach an object store."""
_LAST_BYTES = 4000
_EXECUTOR_INPUT = "--executor_input"


@dataclass(frozen=True)
class ContainerSettings:
    """How a run's steps run in containers."""

    images: Images = RELEASED
    mounts: tuple[Mount, ...] = ()
    """What the steps see besides the root."""

    def start(self, pipeline_spec: dict[str, Any], root: Path, temporary: Path) -> StepContainers:
        """Checks the engine and the images of a compiled pipeline, and returns the containers of its steps.

        Args:
            pipeline_spec: The compiled pipeline, with the names of the images.
            root: Folder of artifacts, runs and models.
            temporary: Folder for the steps' temporary files.

        Raises:
            TidemillError: `no-engine` or `missing-image`.
        """
        mounts = [Mount(root, writable=True), *self.mounts]
        containers = StepContainers(mounts, temporary, gpu_counts(pipeline_spec))
        docker_engine.check_images(image_names(pipeline_spec))
        return containers


class StepContainers:
    """The steps' containers. Safe to use from several threads.

    Args:
        mounts: What all steps see.
        temporary: Folder for the steps' temporary files.
        gpu_counts: How many GPUs components ask for, as a compiled pipeline says it. A step that asks for one or more
            gets all GPUs of this machine, if it has any. Defaults to none.
    """

    def __init__(self, mounts: Sequence[Mount], temporary: Path, gpu_counts: Mapping[str, str] | None = None):
        options = docker_engine.security_options()
        self._mounts = [*mounts, *_credentials()]
        self._temporary = temporary
        self._gpu_counts = (gpu_counts or {}) if docker_engine.has_gpu() else {}
        # In a rootless engine, root is the user who started it.
        rootless = any(option.startswith("name=rootless") for option in options)
        self._user = "0:0" if rootless else f"{os.getuid()}:{os.getgid()}"
        self._security = ["no-new-privileges"]
        if any(option.startswith("name=selinux") for option in options):
            self._security.append("label=disable")  # else SELinux hides the mounts
        self._run = uuid.uuid4().hex
        self._number = itertools.count(1)
        self._lock = threading.Lock()
        self._names: set[str] = set()
        self._clients = StepProcesses()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._clients.stopped

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Removes the containers at the end of the block, or when this process ends, however it ends."""
        command = docker_engine.remove_containers(f"{_LABEL}={self._run}")
        # In a session of its own, so that Ctrl-C does not end it. It waits for the end of this process's pipe.
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ):
            yield

    def run(self, image: str, command: Sequence[str], env: Mapping[str, str], log: Path, *, component: str) -> int:
        """Runs a command in a container and waits for it.

        Args:
            image: Name of the image.
            command: The command and its arguments, instead of the image's own.
            env: Environment variables besides the image's.
            log: File to which standard output and standard error are appended.
            component: Name of the component.

        Returns:
            The exit code; 128 and the signal's number if a signal ended the command. After `stop` nothing is started
            and the result is not 0.

        Raises:
            TidemillError: `no-engine` if the engine does not start the container, `unsupported` if the arguments are
                longer than the operating system accepts.
        """
        name = f"tidemill-{self._run[:8]}-{next(self._number)}-{component.replace('_', '-')}"
        with tempfile.TemporaryDirectory(dir=self._temporary) as folder:
            options = [
                *self._options(Path(folder)),
                *self._gpus(component, command),
                "--name",
                name,
                "--label",
                f"{_LABEL}={self._run}",
            ]
            variables = [f"--env={key}={value}" for key, value in {**_passed_on(), **env}.items()]
            client = ["docker", "run", *options, *variables, "--entrypoint", command[0], image, *command[1:]]
            with self._lock:
                self._names.add(name)
            try:
                # In its own session and with the whole environment, which may name the engine.
                code = self._clients.run(client, dict(os.environ), log)
            finally:
                with self._lock:
                    self._names.discard(name)
        if code == _ENGINE_FAILED and not self.stopped and (reason := _engine_error(log)):
            want = "correct Docker's set-up, or leave out the runner, so that the steps run in processes"
            raise TidemillError(Code.NO_ENGINE, "docker", reason, want)
        return code

    def stop(self) -> None:
        """Kills all running containers. No command starts afterwards."""
        with self._lock:
            names = sorted(self._names)
        if names:
            docker_engine.docker("kill", *names)
        self._clients.stop()

    def _gpus(self, component: str, command: Sequence[str]) -> list[str]:
        if component not in self._gpu_counts:
            return []
        executor_input = json.loads(command[command.index(_EXECUTOR_INPUT) + 1])
        parameters = executor_input.get("inputs", {}).get("parameterValues", {})
        return ["--gpus=all"] if asks_for_gpu(self._gpu_counts[component], parameters) else []

    def _options(self, folder: Path) -> list[str]:
        mounts = [*self._mounts, Mount(folder, "/tmp", writable=True)]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidemill"
        if cache.is_dir() and os.access(cache, os.W_OK):
            mounts.append(Mount(cache, "/tmp/.cache/tidemill", writable=True))
        for mount in mounts:
            _make_mount_point(mount, folder)
        return [
            "--rm",
            "--init",
            "--pull=never",
            "--read-only",
            "--cap-drop=ALL",
            *(f"--security-opt={option}" for option in self._security),
            f"--user={self._user}",
            *(f"--mount={mount.option()}" for mount in mounts),
        ]


def _make_mount_point(mount: Mount, folder: Path) -> None:
    """Makes the place of a mount below `/tmp` in the folder that is mounted there. Docker would make it as root."""
    target = Path(mount.target or mount.source)
    if target.is_relative_to("/tmp") and target != Path("/tmp"):
        place = folder / target.relative_to("/tmp")
        (place if mount.source.is_dir() else place.parent).mkdir(parents=True, exist_ok=True)
        if not mount.source.is_dir():
            place.touch()


def _passed_on() -> dict[str, str]:
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


def _credentials() -> list[Mount]:
    path = os.environ.get(_CREDENTIALS)
    return [Mount(Path(path))] if path and os.path.isfile(path) else []


def _engine_error(log: Path) -> str | None:
    """Returns what `docker run` wrote last, if it is an error of its own."""
    end = log.read_bytes()[-_LAST_BYTES:].decode("utf-8", errors="replace")
    start = end.rfind("docker: ")
    found = _ENGINE_ERROR.match(end[start:]) if start >= 0 else None
    return " ".join(found[1].split()) if found else None
