"""The local container engine, through the command `docker`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence

from tidemill.errors import Code, TidemillError

_TIMEOUT_S = 60
_GPU_DEVICES = ("/dev/nvidia0", "/dev/dxg")
"""A GPU under Linux, and under Windows' subsystem for Linux."""


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `docker` with these arguments and returns its exit code, standard output and standard error.

    Raises:
        TidemillError: `no-engine` if the command is not installed.
    """
    if shutil.which("docker") is None:
        want = "install Docker, or leave out the runner, so that the steps run in processes"
        raise TidemillError(Code.NO_ENGINE, "docker", "no such command", want)
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S)


def security_options() -> list[str]:
    """Returns the engine's security options, such as `name=rootless` and `name=selinux`.

    Raises:
        TidemillError: `no-engine` if no engine answers.
    """
    answer = docker("info", "--format", "{{json .SecurityOptions}}")
    # Some versions exit with 0 and an empty answer if no engine runs.
    if answer.returncode or not answer.stdout.strip():
        reason = (answer.stderr.strip().splitlines() or ["no answer"])[-1]
        want = "start the Docker engine, or leave out the runner, so that the steps run in processes"
        raise TidemillError(Code.NO_ENGINE, "docker", reason.removeprefix("ERROR: "), want)
    return json.loads(answer.stdout) or []


def check_images(names: Iterable[str]) -> None:
    """Checks that the engine has images.

    Raises:
        TidemillError: `missing-image`.
    """
    for name in sorted(set(names)):
        if docker("image", "inspect", "--format", "{{.Id}}", name).returncode:
            want = "build it with `make images`, get it with `docker pull`, or name another one with --images and --tag"
            if "gpu" in name:
                want += "; --cpu-only needs no GPU image"
            raise TidemillError(Code.MISSING_IMAGE, "docker", f"no image {name!r}", want)


def repository_digest(name: str) -> str | None:
    """Returns an image's name with the digest that its registry has it under.

    Args:
        name: Repository and tag, such as `registry/image:1.0`.

    Returns:
        For example `registry/image@sha256:…`. None if there is no engine, or it has not pushed or pulled the image.
    """
    if shutil.which("docker") is None:
        return None
    answer = docker("image", "inspect", "--format", "{{json .RepoDigests}}", name)
    if answer.returncode:
        return None
    repository = name.rpartition(":")[0]
    return next((digest for digest in json.loads(answer.stdout) or [] if digest.startswith(f"{repository}@")), None)


def has_gpu() -> bool:
    """Returns whether this machine has a GPU that a container can be given."""
    return any(os.path.exists(device) for device in _GPU_DEVICES)


def remove_containers(label: str) -> Sequence[str]:
    """Returns a command that waits until its standard input ends and then removes the containers with a label.

    Args:
        label: `key=value`.
    """
    script = (
        'cat >/dev/null; ids=$(docker ps --all --quiet --filter "label=$0"); [ -z "$ids" ] || docker rm --force $ids'
    )
    return ["sh", "-c", script, label]
