"""`tidemill run --runner docker`: every step in a container of the CPU image."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

import tidemill
from tests.images.conftest import IMAGE, TAG
from tests.shop import Workspace, shop_experiment, wait_for
from tidemill.errors import Code, TidemillError
from tidemill.local import step_containers
from tidemill.local.container_mounts import Mount
from tidemill.local.step_containers import StepContainers

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

OPTIONS = ("--runner", "docker", "--tag", TAG, "--cpu-only")


@pytest.fixture
def workspace(tmp_path, rows) -> Workspace:
    workspace = Workspace(tmp_path)
    workspace.write(shop_experiment(), rows)
    return workspace


def containers(folder: Path) -> list[str]:
    """Returns the containers that see a folder, also those that have ended."""
    command = ["docker", "ps", "--all", "--quiet", "--filter", f"volume={folder}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def predictions(result: tidemill.FinishedRun) -> pd.DataFrame:
    return pq.read_table(result.predictions_uri).to_pandas().sort_values("id", ignore_index=True)


def test_containers_and_processes_give_the_same_metrics_and_predictions(image, workspace, tmp_path):
    in_containers = {"root": workspace.root, "runner": "docker", "tag": TAG, "cpu_only": True}
    results = []
    for options in (in_containers, {"root": tmp_path / "processes"}):
        trained = tidemill.run(workspace.file, **options)
        results.append((trained, tidemill.run(workspace.file, pipeline="batch_predict", **options)))
    (trained, predicted), (expected, expected_predictions) = results
    pd.testing.assert_frame_equal(trained.metrics, expected.metrics, rtol=0, atol=1e-6)
    pd.testing.assert_frame_equal(predictions(predicted), predictions(expected_predictions), rtol=0, atol=1e-6)
    record = json.loads((trained.folder / "run.json").read_text())
    assert [step["name"] for step in record["steps"] if not (step["log"] and step["reasons"])] == ["plan-training"]
    written = [path for path in workspace.root.rglob("*") if path.is_file()]
    assert written and {path.stat().st_uid for path in written} == {os.getuid()}
    progress = (trained.folder / "steps" / "train-dcn_v2.progress.jsonl").read_text()
    assert '"rows"' in progress

    again = tidemill.run(workspace.file, **in_containers)
    assert again.every_step_cached
    assert containers(workspace.root) == []


def test_a_mistake_ends_with_its_code(image, workspace):
    workspace.write({**shop_experiment(), "label": "sold"})
    done = workspace.run(*OPTIONS)
    assert done.returncode == 2, done.stderr
    assert "error [missing-column] label: got 'sold'" in done.stderr
    assert workspace.states()["ingest"] == "failed"


@pytest.mark.parametrize(("signum", "exit_code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_no_container_outlives_the_run(image, workspace, signum, exit_code):
    command = [sys.executable, "-m", "tidemill.cli.main", *workspace.arguments(*OPTIONS)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: containers(workspace.root) or process.poll() is not None)
    process.send_signal(signum)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == exit_code, output
    wait_for(lambda: containers(workspace.root) == [], seconds=60)


class TestStepContainers:
    def test_writes_as_the_calling_user(self, image, tmp_path, monkeypatch):
        folder = tmp_path / "shared"
        folder.mkdir()
        folder.chmod(0o777)
        monkeypatch.setattr(step_containers.os, "getuid", lambda: 12345)
        runner = StepContainers([Mount(folder, "/data", writable=True)], tmp_path)
        script = 'echo "$KEY" > /data/file; cat /proc/self/status; touch /usr/file || echo read-only'
        code = runner.run(image, ["sh", "-c", script], {"KEY": "a b"}, tmp_path / "log", component="toy")
        log = (tmp_path / "log").read_text()
        assert code == 0, log
        assert (folder / "file").read_text() == "a b\n"
        assert (folder / "file").stat().st_uid == 12345
        assert "CapEff:\t0000000000000000" in log and "NoNewPrivs:\t1" in log and "read-only" in log

    def test_returns_the_exit_code(self, image, tmp_path):
        runner = StepContainers([], tmp_path)
        assert runner.run(image, ["sh", "-c", "exit 7"], {}, tmp_path / "log", component="toy") == 7
        runner.stop()
        assert runner.run(image, ["true"], {}, tmp_path / "log", component="toy") != 0

    def test_reports_why_the_engine_does_not_start_a_container(self, image, tmp_path):
        runner = StepContainers([Mount(tmp_path / "nothing")], tmp_path)
        with pytest.raises(TidemillError, match=r"nothing.*correct Docker's set-up") as raised:
            runner.run(image, ["true"], {}, tmp_path / "log", component="toy")
        assert raised.value.code is Code.NO_ENGINE

    def test_rejects_arguments_that_are_too_long(self, image, tmp_path):
        with pytest.raises(TidemillError, match="128 KiB") as raised:
            StepContainers([], tmp_path).run(image, ["echo", "x" * 200_000], {}, tmp_path / "log", component="toy")
        assert raised.value.code is Code.UNSUPPORTED


class TestBeforeTheFirstStep:
    def test_without_docker(self, workspace, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        done = workspace.run(*OPTIONS)
        assert (done.returncode, done.stderr) == (2, f"error [no-engine] {Code.NO_ENGINE.value.example}\n")

    def test_without_an_engine(self, engine, workspace, tmp_path, monkeypatch):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
        done = workspace.run(*OPTIONS)
        assert done.returncode == 2 and "start the Docker engine" in done.stderr

    def test_without_the_image(self, engine, workspace):
        done = workspace.run("--runner", "docker", "--tag", "no-such-tag", "--cpu-only")
        example = Code.MISSING_IMAGE.value.example.replace("0.1.0", "no-such-tag")
        assert (done.returncode, done.stderr) == (2, f"error [missing-image] {example}\n")

    def test_a_missing_gpu_image_names_the_way_without(self, image, workspace):
        done = workspace.run("--runner", "docker", "--tag", TAG)
        assert f"no image '{IMAGE.replace('cpu', 'gpu')}'" in done.stderr and "--cpu-only" in done.stderr
