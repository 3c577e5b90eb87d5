"""The `evaluate` step on trained models."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.evaluation.rain import Rain, evaluate_spec, make_model, make_rain, read_metrics, run_evaluate
from tests.publishing.tiny import member, publish_spec, save_tiny_model, tiny_score
from tidemill.artifacts import artifact, evaluation_artifact
from tidemill.artifacts.examples import Dataset, DatasetWriter
from tidemill.errors import Code, TidemillError
from tidemill.metric_definitions import METRICS
from tidemill.models import load_model
from tidemill.publishing.publish import publish
from tidemill.reports import evaluation_page, leaderboard_page

pytestmark = pytest.mark.tensorflow
SIZES = {"train": 3000, "valid": 600, "test": 900}
GATES = {"auc": {"min": 0.6, "better_than_baseline": -0.05}, "log_loss": {"max": 0.69}}


@pytest.fixture(scope="module")
def rain(tmp_path_factory) -> Rain:
    return make_rain(tmp_path_factory.mktemp("rain"), SIZES)


@pytest.fixture(scope="module")
def model(tmp_path_factory, rain) -> str:
    return make_model(tmp_path_factory.mktemp("model"), rain)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> str:
    """A published model that has the true weights and a wrong bias."""
    folder = tmp_path_factory.mktemp("published")
    save_tiny_model(folder / "serving", bias=-0.6)
    path, evaluation = member(folder, folder / "serving", "tiny", 0.7)
    return publish(publish_spec(), [path], [evaluation], root=str(folder / "root")).uri


def test_writes_metrics_slices_and_the_verdict(tmp_path, rain, model):
    spec = evaluate_spec(slices=[["city"], ["city", "wet"]], gates=GATES, max_slices=6)
    summary = run_evaluate(tmp_path, rain, model, spec)
    document = read_metrics(tmp_path / "evaluation")
    table = Dataset(rain.examples).read("test")
    scores = load_model(model).predict(Dataset(rain.transformed), "test")[:, 0]
    labels = table["late"].to_numpy()
    assert summary.blessed and summary.metrics["auc"] == pytest.approx(roc_auc_score(labels, scores))
    assert document["test"]["rows"] == 900 and document["test"]["positives"] == labels.sum()
    assert set(document["test"]["metrics"]) == set(METRICS)
    auc = document["test"]["metrics"]["auc"]
    assert auc["low"] < auc["value"] < auc["high"]
    cities, combined = document["slices"]
    for each in cities["slices"]:
        city = None if each["values"] == ["(missing)"] else each["values"][0]
        rows = np.array([c == city for c in table["city"].to_pylist()])
        assert each["rows"] == rows.sum()
        assert each["metrics"]["auc"]["value"] == pytest.approx(roc_auc_score(labels[rows], scores[rows]))
    assert [s["name"] for s in combined["slices"]][-1] == "(other)" and len(combined["slices"]) == 7
    assert sum(s["rows"] for s in combined["slices"]) == 900
    assert sum(map(sum, summary.confusion)) == 900
    assert summary.roc[0][:2] == (0.0, 0.0) and summary.roc[-1][:2] == (1.0, 1.0)
    assert document["objective"]["metric"] == "auc" and 0.6 < document["objective"]["value"] < 0.9


def test_the_folder_of_a_blessed_model_is_whole(tmp_path, rain, model):
    summary = run_evaluate(tmp_path, rain, model, evaluate_spec(gates=GATES))
    manifest = artifact.open_folder(tmp_path / "evaluation", deep=True)
    assert sorted(f["name"] for f in manifest["files"]) == ["BLESSED", "metrics.json", "report.html"]
    facts = manifest["metadata"]
    assert (facts["name"], facts["family"], facts["blessed"], facts["objective"]) == ("gbdt", "gbdt", True, "auc")
    assert facts["model_fingerprint"] == artifact.read_manifest(model)["metadata"]["model_fingerprint"]
    assert facts["objective_value"] == read_metrics(tmp_path / "evaluation")["objective"]["value"]
    assert summary.fingerprint == manifest["fingerprint"]
    lines = (tmp_path / "evaluation" / "BLESSED").read_text().splitlines()
    assert (
        lines == summary.reasons
        and "AUC: no published model predicts this label, so there is nothing to compare with" in lines
    )
    assert (tmp_path / "report.html").read_bytes() == (tmp_path / "evaluation" / "report.html").read_bytes()


def test_a_failed_gate_is_a_reason(tmp_path, rain, model):
    summary = run_evaluate(tmp_path, rain, model, evaluate_spec(gates={"auc": {"min": 0.99}, "log_loss": {"max": 5}}))
    assert not summary.blessed and len(summary.reasons) == 1 and summary.reasons[0].endswith("is below 0.99")
    assert (tmp_path / "evaluation" / "NOT_BLESSED").read_text().splitlines() == summary.reasons
    assert not (tmp_path / "evaluation" / "BLESSED").exists()
    assert "NOT BLESSED" in (tmp_path / "report.html").read_text()


def test_the_same_input_gives_the_same_bytes(tmp_path, rain, model, published):
    spec = evaluate_spec(published, slices=[["city"]], gates=GATES)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        run_evaluate(tmp_path / name, rain, model, spec)
    files = [p.name for p in (tmp_path / "a" / "evaluation").iterdir()]
    assert len(files) == 4
    for name in files:
        assert (tmp_path / "a" / "evaluation" / name).read_bytes() == (
            tmp_path / "b" / "evaluation" / name
        ).read_bytes()


def test_the_published_model_scores_the_same_rows(tmp_path, rain, model, published):
    summary = run_evaluate(tmp_path, rain, model, evaluate_spec(published, slices=[["city"]], gates=GATES))
    test = read_metrics(tmp_path / "evaluation")["test"]
    table = Dataset(rain.examples).read("test")
    truth = tiny_score(table["x"].to_numpy(), table["city"].to_pylist(), bias=-0.6)
    auc = roc_auc_score(table["late"].to_numpy(), truth)
    assert test["baseline"]["uri"] == published
    assert test["baseline"]["metrics"]["auc"]["value"] == pytest.approx(auc, abs=1e-6)
    gain = test["baseline"]["gain"]
    assert gain["auc"]["value"] == pytest.approx(summary.metrics["auc"] - auc, abs=1e-6)
    assert gain["auc"]["low"] < gain["auc"]["value"] < gain["auc"]["high"]
    assert gain["log_loss"]["value"] == pytest.approx(
        test["baseline"]["metrics"]["log_loss"]["value"] - summary.metrics["log_loss"]
    )
    assert gain["calibration"]["value"] > 0, "the published model's bias is wrong"
    for each in read_metrics(tmp_path / "evaluation")["slices"][0]["slices"]:
        assert set(each["baseline"]) == {"metrics", "gain"}
    assert summary.blessed and any(", published model 0." in reason for reason in summary.reasons)


def test_a_model_that_is_worse_than_the_published_one_is_not_blessed(tmp_path, rain, published):
    weak = make_model(tmp_path, rain, "weak", rounds=2, columns=("city",))
    summary = run_evaluate(tmp_path, rain, weak, evaluate_spec(published, gates={"auc": {"better_than_baseline": 0.0}}))
    assert not summary.blessed and "gain \N{MINUS SIGN}0." in summary.reasons[0]


def test_a_baseline_that_needs_other_columns_is_skipped_and_its_gate_fails(tmp_path, rain, model, published):
    table = Dataset(rain.examples)
    changed = tmp_path / "changed"
    schema = table.schema().remove(table.schema().get_field_index("city"))
    with DatasetWriter(changed, schema) as writer:
        for split in SIZES:
            writer.write(split, table.read(split, schema.names))
    other = Rain(str(changed), rain.transformed)
    summary = run_evaluate(tmp_path, other, model, evaluate_spec(published, gates=GATES))
    baseline = read_metrics(tmp_path / "evaluation")["test"]["baseline"]
    assert set(baseline) == {"uri", "skipped"} and "'city'" in baseline["skipped"]
    assert not summary.blessed and len(summary.reasons) == 1 and "cannot be compared" in summary.reasons[0]
    assert "'city'" in (tmp_path / "report.html").read_text().replace("&#39;", "'")
    assert run_evaluate(tmp_path, other, model, evaluate_spec(published, gates={"auc": {"min": 0.6}})).blessed


def test_refuses_a_baseline_that_does_not_exist(tmp_path, rain, model):
    with pytest.raises(TidemillError) as error:
        run_evaluate(tmp_path, rain, model, evaluate_spec(str(tmp_path / "models" / "rain" / "7")))
    assert error.value.code is Code.NO_MODEL and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("sizes", "one_class"), [({"test": 1}, ()), ({"test": 50}, ("test",)), ({"valid": 0}, ())])
def test_metrics_that_do_not_exist_are_null_and_have_a_reason(tmp_path, model, sizes, one_class):
    rain = make_rain(tmp_path / "w", {**SIZES, **sizes}, one_class=one_class)
    summary = run_evaluate(tmp_path, rain, model, evaluate_spec(slices=[["city"]], gates={"auc": {"min": 0.5}}))
    document = read_metrics(tmp_path / "evaluation")
    for part in (document["valid"], document["test"], *document["slices"][0]["slices"]):
        for estimate in part["metrics"].values():
            assert (estimate["value"] is None) == ("reason" in estimate)
    if "test" in sizes:
        assert summary.metrics["auc"] is None and not summary.blessed and summary.roc == []
        assert "all rows are of class" in summary.reasons[0]
    else:
        assert document["objective"]["value"] is None and summary.blessed
        assert document["valid"]["metrics"]["auc"] == {"value": None, "low": None, "high": None, "reason": "no rows"}
    page = (tmp_path / "report.html").read_text()
    assert "nan" not in page.lower().replace("finance", "") and "None" not in page


def test_refuses_an_empty_test_split(tmp_path, model):
    rain = make_rain(tmp_path / "w", {**SIZES, "test": 0})
    with pytest.raises(TidemillError) as error:
        run_evaluate(tmp_path, rain, model, evaluate_spec())
    assert error.value.code is Code.EMPTY_SPLIT and not (tmp_path / "evaluation").exists()


def test_refuses_a_slice_by_a_missing_column(tmp_path, rain, model):
    with pytest.raises(TidemillError) as error:
        run_evaluate(tmp_path, rain, model, evaluate_spec(slices=[["carrier"]]))
    assert error.value.code is Code.MISSING_COLUMN and list(tmp_path.iterdir()) == []


def test_refuses_examples_of_another_length(tmp_path, rain, model):
    other = make_rain(tmp_path / "w", {**SIZES, "test": 899})
    with pytest.raises(TidemillError) as error:
        run_evaluate(tmp_path, Rain(other.examples, rain.transformed), model, evaluate_spec())
    assert error.value.code is Code.INCOMPLETE_ARTIFACT


_WITHOUT_TENSORFLOW = """
import sys
from pathlib import Path
from tests.evaluation.rain import Rain, evaluate_spec, run_evaluate
heavy = {"tensorflow", "apache_beam", "tensorflow_transform"}
before = heavy & set(sys.modules)
run_evaluate(Path(sys.argv[1]), Rain(sys.argv[2], sys.argv[3]), sys.argv[4], evaluate_spec(slices=[["city"]]))
print("imported", sorted(before | heavy & set(sys.modules)))
"""


@pytest.mark.process
def test_gradient_boosting_is_evaluated_without_tensorflow(tmp_path, rain, model):
    command = [sys.executable, "-c", _WITHOUT_TENSORFLOW, str(tmp_path), rain.examples, rain.transformed, model]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
    assert done.stdout.splitlines()[-1] == "imported []"


class _Page(HTMLParser):
    """Collects what a page would load, and checks that its tags are closed."""

    VOID = frozenset({"meta", "br", "link", "img", "input"})

    def __init__(self):
        super().__init__()
        self.open, self.loads = [], []

    def handle_starttag(self, tag, attrs):
        self.loads += [v for k, v in attrs if k in ("src", "href", "data", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.loads += [v for k, v in attrs if k in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


@pytest.mark.parametrize("baseline", [False, True])
def test_pages_load_nothing(tmp_path, rain, model, published, baseline):
    run_evaluate(tmp_path, rain, model, evaluate_spec(published if baseline else None, slices=[["city"]], gates=GATES))
    pages = [
        (tmp_path / "report.html").read_text(),
        leaderboard_page.render(
            [evaluation_artifact.read_document(tmp_path / "evaluation")],
            published="gbdt",
            costs={"gbdt": leaderboard_page.Cost(12.4, 1_440_000)},
        ),
    ]
    for text in pages:
        page = _Page()
        page.feed(text)
        assert page.open == [] and page.loads == []
        assert "@import" not in text and "url(" not in text and "NaN" not in text
    assert "<script src" not in pages[0] and "<script" not in pages[1]
    assert 'data-label="training">12 s<' in pages[1] and 'data-label="size">1.4 MB<' in pages[1]
    assert baseline == ("version 1" in pages[0]) == ("No published model predicts this label" not in pages[0])
    for part in ("BLESSED", "city", ">Lyon</td>", "Confusion matrix", "num_leaves", "Training: log loss"):
        assert part in pages[0], part


def test_names_are_escaped_in_pages(tmp_path, rain, model):
    run_evaluate(tmp_path, rain, model, evaluate_spec(slices=[["city"]]))
    document = read_metrics(tmp_path / "evaluation")
    document["slices"][0]["slices"][0]["values"] = ["<script>alert(1)</script>"]
    assert "alert(1)</script>" not in evaluation_page.render(document, evaluation_page.read_model(model))
