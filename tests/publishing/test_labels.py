"""A model of two labels through evaluation, the store and batch prediction."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from tests.evaluation.rain import evaluate_spec, read_metrics
from tests.publishing.tiny import publish_spec
from tests.training.conftest import Shop
from tests.training.two_labels import LABELS, MMOE, OUTPUTS, make_two_label_shop
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.evaluation.evaluate import EvaluationSummary, evaluate
from tidemill.local.run_outputs import read_member_result
from tidemill.metrics import METRICS
from tidemill.models import load_model
from tidemill.publishing.predict import predict
from tidemill.publishing.publish import publish
from tidemill.runtime import Progress
from tidemill.serving.scorer import Scorer
from tidemill.steps.predict import PredictSpec

SIZES = {"train": 1500, "valid": 400, "test": 500}
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Store:
    """A shop with a trained model of both labels, and one of the first alone, both published."""

    shop: Shop
    root: str
    one: str
    both: str


def judge(shop: Shop, folder: Path, model: str, labels=LABELS, baseline=None, **told) -> EvaluationSummary:
    spec = evaluate_spec(baseline, **told).model_copy(update={"labels": list(labels)})
    return evaluate(
        spec, shop.examples, shop.transformed, str(shop.folder / model),
        evaluation=str(folder / "evaluation"), report=str(folder / "report.html"), progress=Progress("evaluate"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    folder = tmp_path_factory.mktemp("store")
    shop = make_two_label_shop(folder, SIZES)
    uris = {}
    for name, labels in (("one", LABELS[:1]), ("both", LABELS)):
        replace(shop, labels=labels).train(MMOE, name, epochs=5)
        (folder / f"judged-{name}").mkdir()
        judge(shop, folder / f"judged-{name}", name, labels)
        evaluation, report = str(folder / f"judged-{name}" / "evaluation"), str(folder / f"{name}.html")
        spec = publish_spec(name)
        uris[name] = publish(spec, [str(folder / name)], [evaluation], root=str(folder / "root"), report=report).uri
    return Store(shop, str(folder / "root"), uris["one"], uris["both"])


def test_all_metrics_of_each_label_and_their_means(store, tmp_path):
    found = judge(store.shop, tmp_path, "both", slices=[["device"]], bootstrap={"resamples": 20})
    document = read_metrics(tmp_path / "evaluation")
    table = Dataset(store.shop.examples).read("test")
    scores = load_model(store.shop.folder / "both").predict(Dataset(store.shop.transformed), "test")
    assert document["labels"] == list(LABELS) and list(document["by_label"]) == list(LABELS)
    wanted = {}
    for place, label in enumerate(LABELS):
        part, labels = document["by_label"][label], table[label].to_numpy()
        assert set(part["test"]["metrics"]) == set(METRICS) and part["test"]["positives"] == labels.sum()
        wanted[label] = roc_auc_score(labels, scores[:, place]), log_loss(labels, scores[:, place])
        auc = part["test"]["metrics"]["auc"]
        assert auc["low"] < auc["value"] < auc["high"]
        assert auc["value"] == pytest.approx(wanted[label][0]) == found.metrics[f"auc_{label}"]
        assert part["test"]["metrics"]["log_loss"]["value"] == pytest.approx(wanted[label][1])
        assert sum(each["rows"] for each in part["slices"][0]["slices"]) == SIZES["test"]
        assert sum(map(sum, part["confusion"])) == SIZES["test"]
    assert found.metrics["auc"] == pytest.approx(np.mean([auc for auc, _ in wanted.values()]))
    assert document["test"]["metrics"]["log_loss"]["value"] == pytest.approx(np.mean([v for _, v in wanted.values()]))
    objectives = [document["by_label"][label]["objective"]["value"] for label in LABELS]
    assert document["objective"]["value"] == pytest.approx(np.mean(objectives))
    assert (found.roc, found.confusion) == ([], [])
    assert read_member_result(tmp_path / "evaluation").metrics["auc"] == found.metrics["auc"]
    page = (tmp_path / "report.html").read_text()
    assert all(f"Curves of {label}" in page and f"Slices of {label}" in page for label in LABELS)
    assert page.count("Training: log loss") == 1


def test_the_gates_must_hold_for_each_label(store, tmp_path):
    aucs = judge(store.shop, tmp_path, "both").metrics
    low, high = sorted(LABELS, key=lambda label: aucs[f"auc_{label}"])
    between = (aucs[f"auc_{low}"] + aucs[f"auc_{high}"]) / 2
    found = judge(store.shop, tmp_path, "both", gates={"auc": {"min": between}})
    assert not found.blessed and len(found.reasons) == 1
    assert found.reasons[0].startswith(f"for {low}: AUC ") and "is below" in found.reasons[0]
    assert f"Gates of {low}" in (tmp_path / "report.html").read_text()
    held = judge(store.shop, tmp_path, "both", gates={"auc": {"min": aucs[f"auc_{low}"] - 0.01}})
    assert held.blessed and [reason.partition(":")[0] for reason in held.reasons] == [
        f"for {label}" for label in LABELS
    ]


def test_against_itself_and_against_a_model_of_one_label(store, tmp_path):
    gates = {"auc": {"better_than_baseline": -0.5}}
    judge(store.shop, tmp_path, "both", baseline=store.both, gates=gates)
    for part in read_metrics(tmp_path / "evaluation")["by_label"].values():
        assert all(abs(each["value"]) < 1e-4 for each in part["test"]["baseline"]["gain"].values())
    found = judge(store.shop, tmp_path, "both", baseline=store.one, gates=gates)
    bought, back = read_metrics(tmp_path / "evaluation")["by_label"].values()
    assert set(bought["test"]["baseline"]) == {"uri", "metrics", "gain"}
    # A label that nobody has predicted yet has nothing to be better than.
    assert back["test"]["baseline"] is None
    assert found.blessed and "for sent back: AUC: no published model predicts this label" in found.reasons[1]
    # And a model of one label against the one of both.
    alone = judge(store.shop, tmp_path, "one", LABELS[:1], baseline=store.both, gates=gates)
    assert alone.blessed and "skipped" not in read_metrics(tmp_path / "evaluation")["test"]["baseline"]


def test_a_model_of_other_labels_is_refused(store, tmp_path):
    with pytest.raises(TidemillError) as error:
        judge(store.shop, tmp_path, "both", LABELS[::-1])
    assert error.value.code is Code.INCOMPLETE_ARTIFACT and list(tmp_path.iterdir()) == []


def test_the_leaderboard_and_the_lineage(store):
    page = (store.shop.folder / "both.html").read_text()
    assert "(mean over labels)" in page
    assert all(f"Members on {label}<" in page and f"Curves of {label}" in page for label in LABELS)
    lineage = json.loads((Path(store.both) / "tidemill" / "lineage.json").read_text())
    metrics = json.loads((Path(store.both) / "tidemill" / "metrics.json").read_text())
    assert lineage["model"]["objective_value"] == metrics["objective"]["value"]
    assert "(mean over labels)" not in (store.shop.folder / "one.html").read_text()


def test_predictions_have_a_column_a_label(store, tmp_path):
    spec = PredictSpec(
        code="test", experiment="rain", model=store.both, key=["id"], columns=["device"], shards=3, batch_size=170,
        output=str(tmp_path / "predictions"),
    )  # fmt: skip
    predict(spec, store.shop.examples, predictions=str(tmp_path / "predictions"), progress=Progress("predict"))
    out = pa.concat_tables(pq.read_table(p) for p in sorted((tmp_path / "predictions").glob("*.parquet")))
    assert out.schema.names == ["id", "device", *OUTPUTS]
    assert {out.schema.field(name).type for name in OUTPUTS} == {pa.float32()}
    data, model = Dataset(store.shop.transformed), load_model(store.shop.folder / "both")
    direct = np.concatenate([model.predict(data, split) for split in SIZES])
    for place, name in enumerate(OUTPUTS):
        np.testing.assert_allclose(out[name].to_numpy(), direct[:, place], atol=1e-5)
    columns = json.loads((tmp_path / "predictions" / "_SUCCESS").read_text())["columns"]
    assert list(columns) == ["id", "device", *OUTPUTS]


def test_the_scorer_says_what_is_what(store):
    with Scorer(store.both) as both, Scorer(store.one) as one:
        assert (both.labels, both.outputs) == (list(LABELS), list(OUTPUTS))
        assert (one.labels, one.outputs) == (list(LABELS[:1]), ["score"])
        batch = next(Dataset(store.shop.examples).batches("test", both.names))
        assert both.score(batch).shape == (batch.num_rows, 2)
        assert both.score(batch.slice(0, 0)).shape == (0, 2)
