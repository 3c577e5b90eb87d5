"""The CPU image: Docker builds it, and the compiled pipeline runs with each step in a container."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shop import Workspace, shop_experiment

pytestmark = pytest.mark.container

ROOT = Path(__file__).parents[2]
BASE = "python:3.11-slim-bookworm"
TAGS = ("tidemill-python-cpu:0.1.0", "tidemill-python-gpu:0.1.0")

# Runs in a separate process, because kfp.local keeps its settings in globals.
RUN = """
import sys
import docker.types
from kfp import components, local
from tidemill.experiment import dump, load

folder, pipeline = sys.argv[1:]
mount = docker.types.Mount(folder, folder, type="bind")
local.init(local.DockerRunner(mounts=[mount], network_mode="none"), pipeline_root=f"{folder}/artifacts")
run = components.load_component_from_file(pipeline)
run(experiment=dump(load(f"{folder}/experiment.yaml")), root=f"{folder}/root")
"""


@pytest.fixture(scope="module")
def image() -> None:
    """Builds the image and tags it with both names in the compiled pipelines, so that `train` runs on the CPU."""
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("needs a Docker engine")
    inspect = ["docker", "image", "inspect", BASE]
    if subprocess.run(inspect, capture_output=True).returncode:
        pulled = subprocess.run(["docker", "pull", "-q", BASE], capture_output=True, text=True, timeout=300)
        if pulled.returncode:
            pytest.skip(f"needs the image {BASE}: {pulled.stderr.strip()[-200:]}")
    build = ["docker", "build", "-q", "-f", str(ROOT / "images" / "cpu" / "Dockerfile"), "-t", TAGS[0], str(ROOT)]
    built = subprocess.run(build, capture_output=True, text=True, timeout=840)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-4000:]
    subprocess.run(["docker", "tag", *TAGS], check=True)


@pytest.mark.timeout(1500)
def test_every_step_runs_in_a_container(image, tmp_path, rows):
    workspace = Workspace(tmp_path)
    workspace.write(shop_experiment(), rows)
    pipeline = str(ROOT / "pipelines" / "train" / "pipeline.yaml")
    done = subprocess.run([sys.executable, "-c", RUN, str(tmp_path), pipeline], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert (workspace.root / "models" / "shop" / "1" / "saved_model.pb").is_file()
