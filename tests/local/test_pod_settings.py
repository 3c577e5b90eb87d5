"""Settings of pods that are fixed at compile time: `tidemill compile --queue --priority --timeout --output`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tidemill.cli.main import main
from tidemill.local import definitions
from tidemill.local.pod_settings import PodSettings


def documents(text: str) -> list[dict]:
    return list(yaml.load_all(text, Loader=yaml.CSafeLoader))


def executors(text: str) -> dict[str, dict]:
    return documents(text)[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@pytest.fixture
def compile_train(tmp_path, capsys):
    """Compiles the pipeline `train` with options, and returns its YAML."""

    def compile_with(*options: str) -> str:
        code = main(["compile", "train", "--output", str(tmp_path), *options])
        assert code == 0, capsys.readouterr().err
        return (tmp_path / "pipelines" / "train.yaml").read_text()

    return compile_with


def test_only_training_waits_in_the_queue(compile_train):
    text = compile_train("--queue", "tidemill", "--priority", "tidemill-nightly")
    labels = {name: settings.get("podMetadata", {}).get("labels") for name, settings in executors(text).items()}
    wanted = {"kueue.x-k8s.io/queue-name": "tidemill", "kueue.x-k8s.io/priority-class": "tidemill-nightly"}
    assert {name: each for name, each in labels.items() if each} == {"exec-train": wanted}


def test_settings_change_nothing_else(compile_train):
    changed = documents(compile_train("--queue", "tidemill", "--timeout", "ingest=90m"))
    platform = changed[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    del platform["exec-train"]["podMetadata"]
    assert platform.pop("exec-ingest") == {"activeDeadlineSeconds": "5400"}
    [train] = [each for each in definitions.definitions() if each.name == "train" and each.kind == "pipeline"]
    assert changed == documents(train.compiled.read_text())


@pytest.mark.parametrize(
    ("time", "seconds"), [("60", "60"), ("60s", "60"), ("2m", "120"), ("6h", "21600"), ("1d", "86400")]
)
def test_reads_times(compile_train, time, seconds):
    assert executors(compile_train("--timeout", f"train={time}"))["exec-train"]["activeDeadlineSeconds"] == seconds


def test_a_step_that_occurs_twice_is_limited_twice(tmp_path):
    [found] = [each for each in definitions.definitions() if each.name == "cross_validate"]
    copy = Path(tmp_path, "pipeline.yaml")
    copy.write_text(found.compiled.read_text())
    PodSettings(timeouts={"fan_out": 60}).write_into(copy)
    limited = {name for name, each in executors(copy.read_text()).items() if "activeDeadlineSeconds" in each}
    assert limited == {"exec-fan-out", "exec-fan-out-2"}


def test_pipeline_without_settings_of_kubernetes_gets_some(tmp_path):
    [ingest] = [each for each in definitions.definitions() if each.name == "ingest"]
    copy = Path(tmp_path, "component.yaml")
    copy.write_text(ingest.compiled.read_text())
    PodSettings(queue="tidemill").write_into(copy)
    assert copy.read_text() == ingest.compiled.read_text()
    PodSettings(timeouts={"ingest": 60}).write_into(copy)
    assert executors(copy.read_text()) == {"exec-ingest": {"activeDeadlineSeconds": "60"}}
    assert copy.read_text().startswith("# PIPELINE DEFINITION")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--queue", "My_Queue"], "--queue: got 'My_Queue'"),
        (["--priority", "high"], "name the queue too, with --queue"),
        (["--timeout", "trian=6h"], "did you mean 'train'"),
        (["--timeout", "train"], "write a time such as train=6h"),
        (["--timeout", "train=0"], "write a time such as train=6h"),
        (["--timeout", "train=6w"], "write a time such as train=6h"),
    ],
)
def test_rejects_wrong_settings(tmp_path, capsys, options, message):
    assert main(["compile", "train", "--output", str(tmp_path), *options]) == 2
    assert message in capsys.readouterr().err


def test_settings_need_a_folder(capsys):
    assert main(["compile", "train", "--queue", "tidemill"]) == 2
    assert "add --output DIR" in capsys.readouterr().err
