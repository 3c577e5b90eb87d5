"""The script for Google Cloud: it cannot run here, so its commands are recorded and compared with gcloud's own."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

MANIFESTS = Path(__file__).parents[2] / "manifests"

pytestmark = pytest.mark.process

RECORDER = """#!/bin/sh
{ for word in "$@"; do printf '%s\\t' "$word"; done; echo; } >>"$RECORD"
case " $* " in *" describe "*) [ "$EXISTS" = yes ] ;; esac
"""


@functools.cache
def gcloud_commands() -> dict[str, Any]:
    """Returns gcloud's table of commands and options, which its completion in shells reads."""
    gcloud = shutil.which("gcloud")
    table = Path(os.path.realpath(gcloud)).parents[1] / "data" / "cli" / "gcloud_completions.py" if gcloud else None
    if table is None or not table.is_file():
        pytest.skip("needs the gcloud command, for the table of its options")
    namespace: dict[str, Any] = {}
    exec(table.read_text(), namespace)
    return namespace["STATIC_COMPLETION_CLI_TREE"]


def run(folder: Path, exists: str) -> list[list[str]]:
    """Runs a copy of the script with a `gcloud` that records and answers, and returns the recorded commands."""
    shutil.copytree(MANIFESTS, folder / "manifests")
    (folder / "bin").mkdir()
    gcloud, record = folder / "bin" / "gcloud", folder / "commands"
    gcloud.write_text(RECORDER)
    gcloud.chmod(0o755)
    settings = {"PROJECT": "my-project", "REGION": "europe-west4", "ZONE": "europe-west4-a"}
    settings |= {"RECORD": str(record), "EXISTS": exists, "PATH": f"{gcloud.parent}:{os.environ['PATH']}"}
    script = folder / "manifests" / "gke" / "create.sh"
    done = subprocess.run(["bash", script], env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line.rstrip("\t").split("\t") for line in record.read_text().splitlines()]


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> tuple[list[list[str]], Path]:
    """The commands in an empty project, and the folder of the overlay."""
    folder = tmp_path_factory.mktemp("project")
    return run(folder, exists="no"), folder / "manifests" / "overlays" / "gke"


def check(command: list[str]) -> None:
    """Checks that gcloud knows a command and its options."""
    node, words = gcloud_commands(), list(command)
    known = set(node["flags"])
    while words and words[0] in node["commands"]:
        node = node["commands"][words.pop(0)]
    assert not node["commands"], f"gcloud {' '.join(command)} stops at a group of commands"
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert options <= known | set(node["flags"]), f"{sorted(options - known - set(node['flags']))} in {command}"


def test_gcloud_knows_all_commands_and_options(first):
    commands, _ = first
    assert len(commands) > 25
    for command in commands:
        check(command)


def test_script_makes_nothing_twice(tmp_path):
    assert [command for command in run(tmp_path, exists="yes") if "create" in command] == []


def test_script_fills_in_the_overlay(first):
    _, overlay = first
    lines = (overlay / "settings.env").read_text().splitlines()
    assert lines[1:] == ["root=gs://my-project-tidemill/tidemill", "accounts=my-project.iam.gserviceaccount.com"]
    image = "europe-west4-docker.pkg.dev/my-project/tidemill/tidemill-python-cpu"
    assert f"newName: {image}, " in (overlay / "kustomization.yaml").read_text()


def test_only_spot_pools_are_tainted(first):
    made = [command for command in first[0] if command[:3] == ["container", "node-pools", "create"]]
    taint = "--node-taints=cloud.google.com/gke-spot=true:NoSchedule"
    tainted = {command[3]: taint in command for command in made}
    assert tainted == {"cpu": False, "cpu-spot": True, "gpu": False, "gpu-spot": True}


def test_script_names_what_is_missing():
    script = MANIFESTS / "gke" / "create.sh"
    done = subprocess.run(["bash", script], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert done.returncode != 0 and "PROJECT: the id of the project" in done.stderr
