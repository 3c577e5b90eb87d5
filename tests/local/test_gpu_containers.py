"""Which containers of a run get the machine's GPUs. `docker` is a script here, which runs the step's command itself."""

import os
import sys
from pathlib import Path

import pytest
from kfp import dsl

from tests.local.toy_pipelines import Toy, ingest
from tidemill.local import docker_engine
from tidemill.local.execution import run_pipeline
from tidemill.local.step_containers import ContainerSettings

_DOCKER = """#!/bin/bash
echo "$@" >> "$(dirname "$0")/calls"
case "$1" in
  info) echo '[]';;
  run)
    while [ "$1" != --entrypoint ]; do shift; done
    program=$2; shift 3; exec "$program" "$@";;
esac
"""


@dsl.pipeline(name="gpus")
def gpus(gpus: str, root: str):
    ingest(rows=1, seconds=0.0, root=root).set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpus)


@pytest.mark.parametrize(("asked", "option"), [("", False), ("0", False), ("1", True)])
def test_only_a_step_that_asks_for_a_gpu_gets_it(tmp_path, monkeypatch, asked, option):
    script = tmp_path / "docker"
    script.write_text(_DOCKER)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setattr(docker_engine, "_GPU_DEVICES", ["/dev/null"])
    root = tmp_path / "root"
    values = {"root": str(root), "gpus": asked}
    source = Toy("pipeline", "gpus", Path("."), "tests", gpus)
    result = run_pipeline(source, values, experiment="toy", file="f", root=root, containers=ContainerSettings())
    assert result.succeeded
    (call,) = [line for line in (tmp_path / "calls").read_text().splitlines() if line.startswith("run ")]
    assert ("--gpus=all" in call) is option
