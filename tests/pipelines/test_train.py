"""The train and batch_predict pipelines, run with the command line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipelines.browser import ink, screenshots
from tests.shop import Workspace, shop_experiment, wait_for
from tidemill.artifacts import artifact, model_store

pytestmark = pytest.mark.pipeline

BEFORE_TRAINING = ["ingest", "validate", "preprocess"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, rows) -> Workspace:
    """A workspace after one successful run."""
    workspace = Workspace(tmp_path_factory.mktemp("shop"))
    workspace.write(shop_experiment(), rows)
    workspace.succeed()
    return workspace


@pytest.fixture
def rerun(trained, tmp_path) -> Workspace:
    """The trained workspace. A test may change its experiment and rows, which are restored afterwards.

    A test that publishes another model changes the baseline of later runs: tests of cached runs come first.
    """
    workspace = Workspace(trained.folder)
    originals = {path: path.read_bytes() for path in (workspace.file, workspace.folder / "rows.csv")}
    yield workspace
    for path, content in originals.items():
        path.write_bytes(content)


def states(workspace: Workspace, *names: str) -> list[str]:
    by_name = workspace.states()
    return [by_name[name] for name in names]


def test_first_run_publishes_a_blessed_model_with_reports(trained):
    version = trained.root / "models" / "shop" / "1"
    assert (version / "saved_model.pb").is_file()
    lineage = json.loads((version / "tidemill" / "lineage.json").read_text())
    source = trained.root / "sources" / f"{lineage['source_fingerprint']}.json"
    [file] = json.loads(source.read_text())["files"]
    assert file["uri"].endswith("rows.csv") and file["bytes"] == (trained.folder / "rows.csv").stat().st_size
    assert {"validate", "publish"} <= {s["name"] for s in trained.last()["steps"]}
    assert all(Path(report).read_text()[:15].lower() == "<!doctype html>" for report in trained.last()["reports"])


def test_logs_have_phases_metrics_and_rates_and_no_inputs(trained):
    logs = {step["name"]: Path(step["log"]).read_text() for step in trained.last()["steps"]}
    assert not [name for name, log in logs.items() if "executor_input" in log or "parameterValues" in log]
    kept = (
        r"^ +\d+\.\d s  keeps (epoch|round) \d+ of \d+: log loss 0\.\d{4} train, .*; AUC 0\.\d{4} valid, [\d,]+ rows/s$"
    )
    for name in ("train-dcn_v2", "train-gbdt"):
        assert re.search(kept, logs[name], re.M), logs[name]
    assert re.search(r"^ +\d+\.\d s  done: 3,000 rows, [\d,]+ rows/s$", logs["ingest"], re.M), logs["ingest"]


@pytest.mark.parametrize("width", [1200, 390])
def test_reports_are_visible_in_a_browser(trained, width):
    reports = [Path(report) for report in trained.last()["reports"]]
    assert len(reports) >= 4
    for report, image in zip(reports, screenshots(reports, width), strict=True):
        assert ink(image) > 0.05, report
        assert not re.search(r"""(src|href)=["']https?:""", report.read_text()), f"{report} loads a file"


def test_second_run_is_cached(rerun):
    states_by_name = rerun.succeed()
    assert {state for name, state in states_by_name.items() if not name.startswith("plan")} == {"cached"}
    assert rerun.last()["every_step_cached"]


def test_a_moved_file_reruns_nothing(rerun, tmp_path):
    shutil.copy(rerun.folder / "rows.csv", tmp_path / "moved.csv")
    experiment = shop_experiment()
    experiment["source"]["tables"]["rows"] = str(tmp_path / "moved.csv")
    rerun.write(experiment)
    states_by_name = rerun.succeed()
    assert {state for name, state in states_by_name.items() if not name.startswith("plan")} == {"cached"}


def test_a_changed_hyperparameter_reruns_only_its_member_and_publish(rerun):
    experiment = shop_experiment()
    experiment["models"][1]["rounds"] = 25
    rerun.write(experiment)
    rerun.succeed()
    assert states(rerun, *BEFORE_TRAINING, "train-dcn_v2") == ["cached"] * 4
    assert states(rerun, "train-gbdt", "evaluate-gbdt", "publish") == ["done"] * 3


def test_a_changed_row_reruns_all_steps(rerun, rows):
    ids = rows["id"].to_numpy()
    changed = rows.set_column(
        1, "price", pa.array(np.where(ids == 7, 123.0, rows["price"].to_numpy(zero_copy_only=False)))
    )
    experiment = shop_experiment()
    del experiment["models"][0]  # one member is enough
    rerun.write(experiment, changed)
    rerun.succeed()
    assert states(rerun, *BEFORE_TRAINING, "train-gbdt", "evaluate-gbdt", "publish") == ["done"] * 6


def test_predictions_equal_those_of_the_served_model(rerun, rows):
    import tensorflow as tf

    rerun.succeed("--pipeline", "batch_predict")
    folder = rerun.outputs("predict")["uri"]
    success = json.loads(Path(folder, "_SUCCESS").read_text())
    predictions = pq.read_table([f"{folder}/{file['name']}" for file in success["files"]])
    assert predictions.num_rows == success["rows"] == rows.num_rows
    by_id = dict(zip(predictions["id"].to_pylist(), predictions["score"].to_pylist(), strict=True))

    newest = max((rerun.root / "models" / "shop").glob("[0-9]*"), key=lambda p: int(p.name))
    model = tf.saved_model.load(str(newest))
    price = rows["price"].to_numpy(zero_copy_only=False).astype(np.float32)
    raw = {name: tf.constant([v.encode() for v in rows[name].to_pylist()]) for name in ("site", "device")}
    scores = model.signatures["serving_default"](price=tf.constant(price), **raw)["score"].numpy()
    np.testing.assert_allclose([by_id[i] for i in rows["id"].to_pylist()], scores, atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, rows) -> Workspace:
    """A workspace after one run that trains one member for 30 epochs."""
    experiment = shop_experiment()
    experiment["training"] |= {"epochs": 30, "early_stopping": None, "checkpoint_steps": 10}
    experiment["models"] = experiment["models"][:1]
    workspace = Workspace(tmp_path_factory.mktemp("undisturbed"))
    workspace.write(experiment, rows)
    workspace.succeed()
    return workspace


def test_a_run_that_is_killed_twice_resumes_and_has_the_same_weights(tmp_path, undisturbed):
    shutil.copytree(undisturbed.folder, tmp_path / "killed", ignore=shutil.ignore_patterns("root"))
    killed = Workspace(tmp_path / "killed")
    for epoch in (2, 15):
        killed.kill(when=lambda epoch=epoch: f'"epoch {epoch}/' in progress(runs(killed)))
    killed.succeed()
    assert states(killed, *BEFORE_TRAINING) == ["cached"] * 3
    assert progress(runs(killed)).count("resumes at epoch") == 2, "a run did not resume from a checkpoint"
    assert weights(killed.last()) == weights(undisturbed.last())


def test_runs_started_together_on_one_root_do_not_notice_each_other(undisturbed):
    """All train the same model at the same time. One is killed."""
    alone, earlier = weights(undisturbed.last()), runs(undisturbed)
    started = [undisturbed.start("--no-cache") for _ in range(3)]
    wait_for(lambda: '"epoch 3/' in progress(runs(undisturbed) - earlier))
    started.pop().kill()
    assert [process.wait() for process in started] == [0, 0]
    started = [undisturbed.start("--no-cache") for _ in range(2)]
    assert [process.wait() for process in started] == [0, 0]

    records = [json.loads((run / "run.json").read_text()) for run in sorted(runs(undisturbed) - earlier)]
    assert sorted(record["status"] for record in records) == ["running", *["succeeded"] * 4]
    finished = [record for record in records if record["status"] == "succeeded"]
    assert [weights(record) for record in finished] == [alone] * 4
    assert model_store.versions(str(undisturbed.root), "shop") == [1, 2, 3, 4, 5]
    for version in range(1, 6):
        artifact.open_folder(model_store.version_uri(str(undisturbed.root), "shop", version), deep=True)
    assert not [*(undisturbed.root / "checkpoints").iterdir(), *(undisturbed.root / "models").rglob("*partial*")]


def runs(workspace: Workspace) -> set[Path]:
    return {record.parent for record in workspace.root.glob("runs/*/run.json")}


def progress(folders: Iterable[Path]) -> str:
    """Returns what the trainings of some runs have reported so far."""
    return "".join(file.read_text() for folder in folders for file in folder.glob("steps/train*.progress.jsonl"))


def weights(record: dict) -> list[bytes]:
    """Returns the weights that a run has trained."""
    import keras

    import tidemill.models.core.layers  # noqa: F401 - registers its layers

    [model] = [step["outputs"]["model"]["uri"] for step in record["steps"] if step["name"] == "train-dcn_v2"]
    return [
        np.asarray(w).tobytes() for w in keras.saving.load_model(f"{model}/model.keras", compile=False).get_weights()
    ]
