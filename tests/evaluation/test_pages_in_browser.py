"""The pages in a browser: the threshold that moves, and the width of a phone."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

from tests.evaluation.rain import Rain, evaluate_spec, make_model, make_rain, read_metrics, run_evaluate
from tests.pipelines.browser import run_in_pages
from tests.validation.shop_data import FEATURES, Outputs, run, shop
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.evaluation.evaluate import measure_rows
from tidemill.experiment.evaluation import Evaluation
from tidemill.models import load_model
from tidemill.reports import evaluation_page, experiment_page, leaderboard_page
from tidemill.reports.experiment_page import MemberFolds

pytestmark = [pytest.mark.process, pytest.mark.tensorflow]
LONG = "a_name_of_many_characters_that_has_no_place_to_break_it_" * 2
SENTENCE = "a name of many words that a page has to break into several lines " * 2

SET = """
const show = (name) => document.querySelector(`[data-name="${name}"]`);
const move = (name, value) => {
  const input = show(name);
  input.value = value;
  input.dispatchEvent(new window.Event(name === "slider" ? "input" : "change"));
  const cells = ["tn", "fp", "fn", "tp"].map((cell) => show(cell).querySelector("b").textContent.replaceAll(",", ""));
  const rates = ["precision", "recall", "F1", "lift"].map((rate) => show(rate).textContent);
  return { threshold: show("probability").value, cells, rates, note: show("note").textContent };
};
"""


@pytest.fixture(scope="module")
def rain(tmp_path_factory) -> Rain:
    return make_rain(tmp_path_factory.mktemp("rain"), {"train": 3000, "valid": 600, "test": 2500})


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, rain) -> tuple[Path, str]:
    """A folder with an evaluation, and the model's folder."""
    folder = tmp_path_factory.mktemp("evaluated")
    model = make_model(folder, rain)
    run_evaluate(folder, rain, model, evaluate_spec(slices=[["city"], ["city", "wet"]], gates={"auc": {"min": 0.99}}))
    return folder, model


def test_the_threshold_moves(rain, evaluated):
    """The matrix and F1 are scikit-learn's at the threshold that is shown, and the lift is precision over base rate."""
    folder, model = evaluated
    data = Dataset(rain.transformed)
    scores = load_model(model).predict(data, "test")[:, 0].astype(np.float64)
    labels = data.read("test", ["late"])["late"].to_numpy()
    thresholds = read_metrics(folder / "evaluation")["thresholds"]["threshold"]
    low, high = (int(np.searchsorted(thresholds, each)) for each in (scores.min(), scores.max()))
    moves = [("probability", p) for p in (0.1, 0.25, 0.3, 0.437, 0.5, 0.699)]
    moves += [("slider", index) for index in (low, (low + high) // 2, (low + 3 * high) // 4, high)]
    moves += [("cost", ratio) for ratio in (0.2, 1, 3, 10)]
    moves += [("target precision", share) for share in (0.5, 0.7)] + [("target recall", share) for share in (0.5, 0.95)]
    script = f"return [{', '.join(f'move({name!r}, {value})' for name, value in moves)}]"
    [shown] = run_in_pages([(folder / "report.html").read_text()], SET + script)

    def counts(threshold: float) -> list[int]:
        return confusion_matrix(labels, scores >= threshold, labels=[0, 1]).ravel().tolist()

    for (name, value), result in zip(moves, shown, strict=True):
        threshold = float(result["threshold"])
        predicted = scores >= threshold
        assert list(map(int, result["cells"])) == counts(threshold), (name, value)
        if not predicted.any():
            assert result["rates"] == ["–", "0.0000", "0.0000", "–"]  # noqa: RUF001
            continue
        precision, recall, f1, lift = map(float, result["rates"])
        assert precision == pytest.approx(precision_score(labels, predicted), abs=6e-5)
        assert recall == pytest.approx(recall_score(labels, predicted), abs=6e-5)
        assert f1 == pytest.approx(f1_score(labels, predicted), abs=6e-5)
        assert lift == pytest.approx(precision_score(labels, predicted) / labels.mean(), abs=6e-5)
        if name == "probability":
            assert threshold == value
        if name == "target precision":
            assert precision >= value - 6e-5
        if name == "target recall":
            # The next higher score that differs would miss the target.
            higher = scores[scores > threshold + 1e-3].min()
            assert recall >= value > recall_score(labels, scores >= higher + 1e-3)
        if name == "cost":
            _, fp, fn, _ = counts(threshold)
            others = [counts(each) for each in np.linspace(0, 1, 101)]
            assert fp + value * fn <= min(other[1] + value * other[2] for other in others)


def test_says_if_no_threshold_has_the_precision(evaluated):
    script = "const before = move('probability', 0.5); return [before, move('target precision', 1.01)]"
    [[before, after]] = run_in_pages([(evaluated[0] / "report.html").read_text()], SET + script)
    assert after["note"] == "No threshold has a precision of 1.01."
    assert before["note"] == "" and after["cells"] == before["cells"]


def test_a_page_without_script_shows_the_experiments_threshold(rain, evaluated):
    folder, model = evaluated
    page = (folder / "report.html").read_text()
    scores = load_model(model).predict(Dataset(rain.transformed), "test")[:, 0]
    labels = Dataset(rain.transformed).read("test", ["late"])["late"].to_numpy()
    f1 = re.search(r'data-name="F1">([\d.]+)<', page)
    assert f1 is not None and float(f1.group(1)) == pytest.approx(f1_score(labels, scores >= 0.5), abs=6e-5)
    assert '<div class="controls" hidden>' in page


def _long_document(folder: Path, model: str) -> tuple[str, str]:
    """Returns an evaluation page and a leaderboard with long names, several labels and a published model."""
    document = read_metrics(folder / "evaluation")
    rng = np.random.default_rng(0)
    labels = (rng.random(400) < 0.3).astype(int)
    scores = np.clip(0.3 * labels + rng.random(400), 0, 1)
    compared = measure_rows(labels, scores, scores[::-1], Evaluation())
    part = copy.deepcopy(document)
    for slicing in part["slices"]:
        slicing["columns"] = [LONG] * len(slicing["columns"])
        for each, name in zip(slicing["slices"], [LONG, SENTENCE, "x", "y", *"abcdefgh"], strict=False):
            each |= {"values": [name] * len(slicing["columns"]), "name": name} | compared
    part["test"] = {**compared, "baseline": {**compared["baseline"], "uri": f"gs://bucket/{LONG}/7"}}
    kept = ("objective", "valid", "test", "slices", "confusion", "thresholds", "curves", "gates")
    several = {label: {key: part[key] for key in kept} for label in (LONG, "other")}
    long = {**part, "name": LONG, "experiment": LONG, "labels": list(several), "by_label": several}
    long["reasons"], long["warnings"] = [SENTENCE, LONG], [SENTENCE]
    members = [{**long, "name": f"{LONG}{i}"} for i in range(8)]
    content = evaluation_page.read_model(model)
    return evaluation_page.render(long, content), leaderboard_page.render(members)


def _long_validation(folder: Path) -> str:
    """Returns a validation page with long names and values, anomalies and gates that failed."""
    table = shop(600)
    site = [None if value is None else f"{LONG}{value}" for value in table["site"].to_pylist()]
    names = [LONG if name == "visits" else f"{LONG}2" if name == "site" else name for name in table.column_names]
    table = table.set_column(3, "site", pa.array(site)).rename_columns(names)
    other = table.slice(0, 100).set_column(3, names[3], pa.array([f"{SENTENCE}{LONG}"] * 100))
    features = {**{name: FEATURES[name] for name in ("price", "hour")}, LONG: {"kind": "numeric"}}
    features[names[3]] = {"kind": "categorical"}
    with pytest.raises(TidemillError) as stopped:
        changes = {"features": features, "feature_columns": list(features), "unseen": {"max": 0.1}}
        run(folder, {"train": table, "test": other}, drift={"categorical": 0.1}, **changes)
    assert stopped.value.code in (Code.DRIFT, Code.UNSEEN_VALUES)
    return Outputs(folder / "out").page


def _long_cross_validation() -> str:
    entries = [
        {
            "step": i,
            "train": {"log_loss": 0.6},
            "valid": {"log_loss": 0.7 - i / 100},
            "seconds": 2.0,
            "rows_per_second": 1e6,
        }
        for i in range(1, 9)
    ]
    history = {"unit": "epoch", "kept": 8, "entries": entries}
    metrics = {"auc": 0.71, "log_loss": 0.6}
    members = [MemberFolds(f"{LONG}{i}", "dcn_v2", [metrics, metrics], metrics, 0.123, [history] * 2) for i in range(3)]
    return experiment_page.render(LONG, LONG, "stack", 2, 1_234_567, members, metrics)


OVERFLOW = """
const wide = [...document.querySelectorAll("body *")].filter((each) =>
  each.getBoundingClientRect().right > window.innerWidth + 1).map((each) => `${each.tagName} ${each.className}`);
if (document.documentElement.scrollWidth > window.innerWidth) wide.push("page");
const inner = [...document.querySelectorAll("body *")].filter((each) => each.scrollWidth > each.clientWidth + 1
  && each.clientWidth && ["auto", "scroll"].includes(window.getComputedStyle(each).overflowX));
const cut = [...document.querySelectorAll("body *")].filter((each) =>
  window.getComputedStyle(each).textOverflow === "ellipsis" && each.scrollWidth > each.clientWidth);
const text = document.body.innerText.replace(/\\s/g, "");
return [wide, inner.map((each) => each.className), cut.map((each) => each.className), text];
"""


def test_no_page_is_wider_than_a_phone_and_names_are_whole(tmp_path, evaluated):
    evaluation, leaderboard = _long_document(*evaluated)
    pages = {
        "evaluation": (evaluated[0] / "report.html").read_text(),
        "evaluation with long names": evaluation,
        "leaderboard": leaderboard,
        "validation": _long_validation(tmp_path),
        "cross-validation": _long_cross_validation(),
    }
    results = run_in_pages(list(pages.values()), OVERFLOW, width=390)
    for name, (wide, inner, cut, text) in zip(pages, results, strict=True):
        assert not wide, name
        assert not inner and not cut, name
        assert name == "evaluation" or LONG in text, name
    assert SENTENCE.replace(" ", "") in results[1][3] and SENTENCE.replace(" ", "") + LONG in results[3][3]
