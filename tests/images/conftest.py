"""The CPU image, which is built once per test session."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.sharing import once

ROOT = Path(__file__).parents[2]
BASE = "python:3.11-slim-bookworm"
TAG = "test"
IMAGE = f"tidemill-python-cpu:{TAG}"
VERSION, COMMIT = "1.2.3-test", "0123456789abcdef"


@pytest.fixture(scope="session")
def engine() -> None:
    """Skips the test if there is no Docker engine."""
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("needs a Docker engine")


@pytest.fixture(scope="session")
def image(engine, tmp_path_factory) -> str:
    """Builds the CPU image and returns its name."""
    inspect = ["docker", "image", "inspect", BASE]
    if subprocess.run(inspect, capture_output=True).returncode:
        pulled = subprocess.run(["docker", "pull", "-q", BASE], capture_output=True, text=True, timeout=300)
        if pulled.returncode:
            pytest.skip(f"needs the image {BASE}: {pulled.stderr.strip()[-200:]}")
    once(tmp_path_factory, "cpu-image", lambda _: _build())
    return IMAGE


def _build() -> None:
    arguments = [f"--build-arg={name}={value}" for name, value in (("VERSION", VERSION), ("COMMIT", COMMIT))]
    command = ["docker", "build", "-q", "-f", "images/cpu/Dockerfile", "-t", IMAGE, *arguments, "."]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1500)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-4000:]
