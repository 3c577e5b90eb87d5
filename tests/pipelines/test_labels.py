"""The train and batch_predict pipelines with two labels, run with the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipelines.browser import ink, screenshots
from tests.shop import Workspace, shop_experiment

pytestmark = pytest.mark.pipeline

LABELS = ["bought", "returned"]


@pytest.fixture(scope="module")
def two_labels(rows) -> pa.Table:
    """Rows of the shop with a second, rarer label that depends only on the site."""
    site = np.array([int(name.removeprefix("site")) for name in rows["site"].to_pylist()])
    returned = np.random.default_rng(5).random(rows.num_rows) < 1 / (1 + np.exp(5.5 - 0.5 * site))
    return rows.append_column("returned", pa.array(returned.astype(int)))


def experiment() -> dict:
    changed = {key: value for key, value in shop_experiment().items() if key != "label"} | {"labels": LABELS}
    changed["models"] = [{"family": "mmoe", "experts": 2, "expert": [8], "tower": [4], "embedding_dim": 2}]
    changed["training"] = {"epochs": 4, "batch_size": 128, "optimizer": {"learning_rate": 0.01}}
    return changed


@pytest.fixture(scope="module")
def trained(tmp_path_factory, two_labels) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("shop"))
    workspace.write(experiment(), two_labels)
    workspace.succeed()
    return workspace


def test_publishes_a_model_of_both_labels(trained):
    version = trained.root / "models" / "shop" / "1"
    assert (version / "saved_model.pb").is_file()
    assert json.loads((version / "tidemill" / "model.json").read_text())["labels"] == LABELS
    metrics = json.loads((version / "tidemill" / "metrics.json").read_text())
    assert metrics["blessed"] and list(metrics["by_label"]) == LABELS
    # The experiment's gate.
    assert all(part["test"]["metrics"]["auc"]["value"] >= 0.6 for part in metrics["by_label"].values())
    rates = [part["test"]["positives"] / part["test"]["rows"] for part in metrics["by_label"].values()]
    assert rates[0] > 2 * rates[1]
    logged = trained.outputs("evaluate-mmoe")["metrics"]["metadata"]
    assert {"auc", "auc_bought", "auc_returned"} <= set(logged)


def test_reports_are_visible_in_a_browser(trained):
    reports = [Path(report) for report in trained.last()["reports"]]
    assert len(reports) >= 3
    for report, image in zip(reports, screenshots(reports, 1200), strict=True):
        assert all(label in report.read_text() for label in LABELS), report
        assert ink(image) > 0.05, report


def test_predicts_both_labels(trained, two_labels):
    import tensorflow as tf

    trained.succeed("--pipeline", "batch_predict")
    folder = trained.outputs("predict")["uri"]
    success = json.loads(Path(folder, "_SUCCESS").read_text())
    predictions = pq.read_table([f"{folder}/{file['name']}" for file in success["files"]]).sort_by("id")
    assert predictions.schema.names == ["id", "score_bought", "score_returned"]
    assert predictions.num_rows == two_labels.num_rows
    model = tf.saved_model.load(str(trained.root / "models" / "shop" / "1"))
    price = two_labels["price"].to_numpy(zero_copy_only=False).astype(np.float32)
    raw = {name: tf.constant([v.encode() for v in two_labels[name].to_pylist()]) for name in ("site", "device")}
    scores = model.signatures["serving_default"](price=tf.constant(price), **raw)
    for label in LABELS:
        name = f"score_{label}"
        np.testing.assert_allclose(predictions[name].to_numpy(), scores[name].numpy(), atol=1e-6, rtol=0)


def test_rejects_cross_validation(tmp_path, two_labels):
    workspace = Workspace(tmp_path)
    workspace.write(experiment(), two_labels)
    done = workspace.run("--pipeline", "cross_validate")
    assert done.returncode == 2 and "[unsupported]" in done.stdout + done.stderr
    assert not {"done", "cached"} & set(workspace.states().values())
