"""The files that the images are built from, without an engine."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "images"
TOGETHER = {"tensorflow-cpu": "tensorflow"}
"""Distributions of the images that stand for one of `requirements.lock`, with the same version."""


def versions(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


@pytest.mark.parametrize("image", ["cpu", "gpu"])
def test_an_image_has_the_versions_that_the_tests_have(image):
    tested = versions(ROOT / "requirements.lock")
    locked = versions(IMAGES / image / "requirements.lock")
    differing = {name for name, version in locked.items() if tested.get(TOGETHER.get(name, name)) != version}
    assert {name for name in differing if not name.startswith(("nvidia-", "jax-cuda12-"))} == set()
    assert not {"pytest", "ruff", "pyright", "docker", "libclang", "google-cloud-aiplatform"} & set(locked)


def test_only_the_gpu_image_has_cuda_and_has_each_library_once():
    cpu, gpu = (set(versions(IMAGES / image / "requirements.lock")) for image in ("cpu", "gpu"))
    assert cpu - gpu == {"tensorflow-cpu"}
    assert {name for name in gpu - cpu if not name.startswith(("nvidia-", "jax-cuda12-"))} == {"tensorflow"}
    assert all(name.endswith("-cu12") for name in gpu if name.startswith("nvidia-"))


def test_the_dockerfiles_differ_in_what_is_the_gpus_only():
    cpu, gpu = ((IMAGES / image / "Dockerfile").read_text().splitlines() for image in ("cpu", "gpu"))
    changed = [line for line in difflib.ndiff(cpu, gpu) if line[0] in "+-"]
    added = [line[1:].strip() for line in changed if line[0] == "+"]
    removed = [line[1:].strip() for line in changed if line[0] == "-"]
    nvidia = [line for line in added if line.startswith("NVIDIA_")]
    rest = [line.replace("gpu", "cpu").replace("GPU", "CPU") for line in added if line not in nvidia]
    assert [line.removesuffix(" \\") for line in rest] == [line.removesuffix(" \\") for line in removed]
    assert len(nvidia) == 2
