"""A model of two labels: evaluated, published and used for batch prediction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from tests.evaluation.rain import evaluate_spec, read_metrics
from tests.publishing.tiny import publish_spec
from tests.training.conftest import ROWS, Shop
from tests.training.two_labels import LABELS, OUTPUTS
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.evaluation.evaluate import EvaluationSummary, evaluate
from tidemill.local.run_outputs import read_member_result
from tidemill.metric_definitions import METRICS
from tidemill.models import load_model
from tidemill.publishing.predict import predict
from tidemill.publishing.publish import publish
from tidemill.runtime import Progress
from tidemill.serving.scorer import Scorer
from tidemill.steps.predict import PredictSpec

pytestmark = pytest.mark.tensorflow


@dataclass(frozen=True)
class Store:
    """Two published models: one of the label `bought`, and one of both labels.

    Attributes:
        one: The shop with the model of one label.
        both: The shop with the model of both labels.
        folder: Folder with the leaderboards `one.html` and `both.html`.
        one_uri: The published model of one label.
        both_uri: The published model of both labels.
    """

    one: Shop
    both: Shop
    folder: Path
    one_uri: str
    both_uri: str


def run_evaluate(shop: Shop, folder: Path, labels=LABELS, baseline=None, **evaluation) -> EvaluationSummary:
    """Evaluates the shop's model, and writes `evaluation` and `report.html` to a folder."""
    settings = {"bootstrap": {"resamples": 20}, **evaluation}
    spec = evaluate_spec(baseline, **settings).model_copy(update={"labels": list(labels)})
    return evaluate(
        spec, shop.examples, shop.transformed, str(shop.folder / "model"),
        evaluation=str(folder / "evaluation"), report=str(folder / "report.html"), progress=Progress("evaluate"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory, trained, mmoe) -> Store:
    folder = tmp_path_factory.mktemp("store")
    shops, uris = {"one": trained("gbdt"), "both": mmoe}, {}
    for name, shop in shops.items():
        (folder / name).mkdir()
        run_evaluate(shop, folder / name, LABELS[: len(uris) + 1])
        uris[name] = publish(
            publish_spec(name), [str(shop.folder / "model")], [str(folder / name / "evaluation")],
            root=str(folder / "root"), report=str(folder / f"{name}.html"),
        ).uri  # fmt: skip
    return Store(shops["one"], shops["both"], folder, uris["one"], uris["both"])


def test_measures_each_label_and_the_means(store, tmp_path):
    summary = run_evaluate(store.both, tmp_path, slices=[["device"]])
    document = read_metrics(tmp_path / "evaluation")
    table = Dataset(store.both.examples).read("test")
    scores = load_model(store.both.folder / "model").predict(Dataset(store.both.transformed), "test")
    assert document["labels"] == list(LABELS) and list(document["by_label"]) == list(LABELS)
    expected = {}
    for i, label in enumerate(LABELS):
        part, labels = document["by_label"][label], table[label].to_numpy()
        assert set(part["test"]["metrics"]) == set(METRICS) and part["test"]["positives"] == labels.sum()
        expected[label] = roc_auc_score(labels, scores[:, i]), log_loss(labels, scores[:, i])
        auc = part["test"]["metrics"]["auc"]
        assert auc["low"] < auc["value"] < auc["high"]
        assert auc["value"] == pytest.approx(expected[label][0]) == summary.metrics[f"auc_{label}"]
        assert part["test"]["metrics"]["log_loss"]["value"] == pytest.approx(expected[label][1])
        assert sum(each["rows"] for each in part["slices"][0]["slices"]) == ROWS["test"]
        assert sum(map(sum, part["confusion"])) == ROWS["test"]
    assert summary.metrics["auc"] == pytest.approx(np.mean([auc for auc, _ in expected.values()]))
    assert document["test"]["metrics"]["log_loss"]["value"] == pytest.approx(np.mean([v for _, v in expected.values()]))
    objectives = [document["by_label"][label]["objective"]["value"] for label in LABELS]
    assert document["objective"]["value"] == pytest.approx(np.mean(objectives))
    assert (summary.roc, summary.confusion) == ([], [])
    assert read_member_result(tmp_path / "evaluation").metrics["auc"] == summary.metrics["auc"]
    page = (tmp_path / "report.html").read_text()
    assert all(f"Curves of {label}" in page and f"Slices of {label}" in page for label in LABELS)
    assert page.count("Training: log loss") == 1


def test_gates_must_hold_for_each_label(store, tmp_path):
    aucs = run_evaluate(store.both, tmp_path).metrics
    low, high = sorted(LABELS, key=lambda label: aucs[f"auc_{label}"])
    between = (aucs[f"auc_{low}"] + aucs[f"auc_{high}"]) / 2
    summary = run_evaluate(store.both, tmp_path, gates={"auc": {"min": between}})
    assert not summary.blessed and len(summary.reasons) == 1
    assert summary.reasons[0].startswith(f"for {low}: AUC ") and "is below" in summary.reasons[0]
    assert f"Gates of {low}" in (tmp_path / "report.html").read_text()
    passed = run_evaluate(store.both, tmp_path, gates={"auc": {"min": aucs[f"auc_{low}"] - 0.01}})
    assert passed.blessed and [reason.partition(":")[0] for reason in passed.reasons] == [
        f"for {label}" for label in LABELS for _ in ("auc", "base rate")
    ]


def test_compares_labels_of_the_same_name(store, tmp_path):
    gates = {"auc": {"better_than_baseline": -0.5}}
    run_evaluate(store.both, tmp_path, baseline=store.both_uri, gates=gates)
    for part in read_metrics(tmp_path / "evaluation")["by_label"].values():
        assert all(abs(each["value"]) < 1e-4 for each in part["test"]["baseline"]["gain"].values())
    summary = run_evaluate(store.both, tmp_path, baseline=store.one_uri, gates=gates)
    bought, back = read_metrics(tmp_path / "evaluation")["by_label"].values()
    assert set(bought["test"]["baseline"]) == {"uri", "metrics", "gain"}
    # No published model predicts this label.
    assert back["test"]["baseline"] is None
    assert summary.blessed and "for sent back: AUC: no published model predicts this label" in summary.reasons[2]
    # A model of one label is compared with the column of this label.
    only = run_evaluate(store.one, tmp_path, LABELS[:1], baseline=store.both_uri, gates=gates)
    assert only.blessed and "skipped" not in read_metrics(tmp_path / "evaluation")["test"]["baseline"]


def test_refuses_a_model_of_other_labels(store, tmp_path):
    with pytest.raises(TidemillError) as error:
        run_evaluate(store.both, tmp_path, LABELS[::-1])
    assert error.value.code is Code.INCOMPLETE_ARTIFACT and list(tmp_path.iterdir()) == []


def test_the_leaderboard_and_the_lineage_hold_the_mean_objective(store):
    page = (store.folder / "both.html").read_text()
    assert "(mean over labels)" in page
    assert all(f"Members on {label}<" in page and f"Curves of {label}" in page for label in LABELS)
    lineage = json.loads((Path(store.both_uri) / "tidemill" / "lineage.json").read_text())
    metrics = json.loads((Path(store.both_uri) / "tidemill" / "metrics.json").read_text())
    assert lineage["model"]["objective_value"] == metrics["objective"]["value"]
    assert "(mean over labels)" not in (store.folder / "one.html").read_text()


def test_predictions_have_one_column_for_each_label(store, tmp_path):
    spec = PredictSpec(
        code="test", experiment="rain", model=store.both_uri, key=["id"], columns=["device"], shards=3, batch_size=170,
        output=str(tmp_path / "predictions"),
    )  # fmt: skip
    predict(spec, store.both.examples, progress=Progress("predict"))
    out = pa.concat_tables(pq.read_table(p) for p in sorted((tmp_path / "predictions").glob("*.parquet")))
    assert out.schema.names == ["id", "device", *OUTPUTS]
    assert {out.schema.field(name).type for name in OUTPUTS} == {pa.float32()}
    data, model = Dataset(store.both.transformed), load_model(store.both.folder / "model")
    direct = np.concatenate([model.predict(data, split) for split in ROWS])
    for i, name in enumerate(OUTPUTS):
        np.testing.assert_allclose(out[name].to_numpy(), direct[:, i], atol=1e-5)
    columns = json.loads((tmp_path / "predictions" / "_SUCCESS").read_text())["columns"]
    assert list(columns) == ["id", "device", *OUTPUTS]


def test_the_scorer_returns_one_column_for_each_label(store):
    with Scorer(store.both_uri) as both, Scorer(store.one_uri) as one:
        assert (both.labels, both.outputs) == (list(LABELS), list(OUTPUTS))
        assert (one.labels, one.outputs) == (list(LABELS[:1]), ["score"])
        batch = next(Dataset(store.both.examples).batches("test", both.names))
        assert both.score(batch).shape == (batch.num_rows, 2)
        assert both.score(batch.slice(0, 0)).shape == (0, 2)
