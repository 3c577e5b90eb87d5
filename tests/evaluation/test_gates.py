"""Gates: which conditions hold, and the text of each check."""

from __future__ import annotations

import numpy as np
import pytest

from tidemill.evaluation.blessing import check_base_rate, check_gates
from tidemill.evaluation.metric_values import undefined
from tidemill.experiment.evaluation import Evaluation
from tidemill.metric_definitions import METRICS, goodness

OWN = {
    "auc": 0.70,
    "pr_auc": 0.40,
    "log_loss": 0.50,
    "normalized_entropy": 0.9,
    "calibration": 0.97,
    "ece": 0.01,
    "accuracy": 0.8,
}
BETTER = {
    "auc": 0.71,
    "pr_auc": 0.41,
    "log_loss": 0.49,
    "normalized_entropy": 0.89,
    "calibration": 1.01,
    "ece": 0.005,
    "accuracy": 0.81,
}
WORSE = {
    "auc": 0.69,
    "pr_auc": 0.39,
    "log_loss": 0.51,
    "normalized_entropy": 0.91,
    "calibration": 1.05,
    "ece": 0.02,
    "accuracy": 0.79,
}


def result(own=OWN, baseline=None, rows=100, positives=30):
    def estimates(values):
        reasons = {m: undefined(m, rows, positives) for m in METRICS}
        return {
            m: {"value": None, "low": None, "high": None, "reason": r}
            if (r := reasons[m])
            else {"value": values[m], "low": None, "high": None}
            for m in METRICS
        }

    if isinstance(baseline, dict) and "skipped" not in baseline:
        gain = {m: goodness(m, own[m]) - goodness(m, baseline[m]) for m in METRICS}
        baseline = {"uri": "u", "metrics": estimates(baseline), "gain": estimates(gain)}
    return {"metrics": estimates(own), "baseline": baseline}


def run(gates, **kwargs):
    return check_gates(Evaluation.model_validate({"gates": gates}).gates, result(**kwargs))


@pytest.mark.parametrize(
    ("gates", "kwargs", "holds", "text"),
    [
        ({"auc": {"min": 0.68}}, {}, True, "AUC 0.7000 is at least 0.68"),
        ({"auc": {"min": 0.7}}, {}, True, "AUC 0.7000 is at least 0.7"),
        ({"auc": {"min": 0.72}}, {}, False, "AUC 0.7000 is below 0.72"),
        ({"log_loss": {"max": 0.5}}, {}, True, "log loss 0.5000 is at most 0.5"),
        ({"log_loss": {"max": 0.45}}, {}, False, "log loss 0.5000 is above 0.45"),
        (
            {"auc": {"min": 0.5}},
            {"positives": 0},
            False,
            "AUC has no value (all rows are of class 0), but the gate requires min 0.5",
        ),
        (
            {"auc": {"better_than_baseline": 0.0}},
            {},
            True,
            "AUC: no published model predicts this label, so there is nothing to compare with",
        ),
        (
            {"auc": {"better_than_baseline": 0.0}},
            {"baseline": {"uri": "u", "skipped": "no 'x'"}},
            False,
            "AUC cannot be compared with the published model: no 'x'",
        ),
        (
            {"auc": {"better_than_baseline": 0.02}},
            {"baseline": WORSE},
            False,
            "AUC 0.7000, published model 0.6900: gain +0.0100 is below 0.02",
        ),
        (
            {"pr_auc": {"better_than_baseline": 0.0}},
            {"baseline": WORSE, "positives": 0},
            False,
            "PR-AUC cannot be compared with the published model: it has no value (no row is of class 1)",
        ),
    ],
)
def test_a_condition_holds_or_fails_with_its_numbers(gates, kwargs, holds, text):
    (outcome,) = run(gates, **kwargs)
    assert (outcome["holds"], outcome["text"]) == (holds, text)


@pytest.mark.parametrize("metric", METRICS)
def test_better_than_baseline_follows_the_direction_of_the_metric(metric):
    gates = {metric: {"better_than_baseline": 0.0}}
    assert [c["holds"] for c in run(gates, baseline=WORSE)] == [True]
    assert [c["holds"] for c in run(gates, baseline=OWN)] == [True]
    assert [c["holds"] for c in run(gates, baseline=BETTER)] == [False]


def test_a_negative_margin_tolerates_a_loss():
    assert run({"auc": {"better_than_baseline": -0.02}}, baseline=BETTER)[0]["holds"]


def test_every_condition_is_checked():
    checks = run(
        {"auc": {"min": 0.6, "max": 0.65, "better_than_baseline": 0.0}, "log_loss": {"max": 1}}, baseline=WORSE
    )
    assert [(c["metric"], c["condition"], c["holds"]) for c in checks] == [
        ("auc", "min", True),
        ("auc", "max", False),
        ("auc", "better_than_baseline", True),
        ("log_loss", "max", True),
    ]


def test_without_gates_there_are_no_checks():
    assert run({}) == []


def sliced(values: dict[str, tuple[float | None, int]], **kwargs) -> list[dict]:
    """Slices by `site`: the AUC and the rows of each."""
    slices = []
    for name, (auc, rows) in values.items():
        part = result({**OWN, "auc": auc or 0.0}, **kwargs)
        if auc is None:
            part["metrics"]["auc"] = {"value": None, "low": None, "high": None, "reason": "one class"}
        slices.append({"name": f"site={name}", "values": [name], "rows": rows, **part})
    return [{"columns": ["site"], "slices": slices}]


SLICES = {"a": (0.62, 900), "b": (0.55, 400), "c": (0.41, 300), "d": (0.3, 99), "e": (None, 500)}


@pytest.mark.parametrize(
    ("gate", "holds", "text"),
    [
        ({"min": 0.4}, True, "AUC: all 3 slices by site meet min 0.4"),
        ({"min": 0.6}, False, "slice site=c: AUC 0.4100 is below 0.6; slice site=b: AUC 0.5500 is below 0.6"),
        ({"max": 0.6, "columns": ["site"]}, False, "slice site=a: AUC 0.6200 is above 0.6"),
        ({"min": 0.4, "min_rows": 99}, False, "slice site=d: AUC 0.3000 is below 0.4"),
        ({"min": 0.6, "min_rows": 1000}, True, "AUC: no slice by site has a value and at least 1,000 rows"),
    ],
)
def test_gates_of_slices(gate, holds, text):
    settings = Evaluation.model_validate({"slices": [["site"]], "gates": {"auc": {"slices": [gate]}}})
    (check,) = check_gates(settings.gates, result(), sliced(SLICES))
    assert (check["holds"], check["text"]) == (holds, text)


def test_gates_of_slices_compare_with_the_published_model():
    gates = {"auc": {"min": 0.6, "slices": [{"better_than_baseline": 0.0}]}}
    settings = Evaluation.model_validate({"slices": [["site"]], "gates": gates})
    whole, part = check_gates(settings.gates, result(baseline=WORSE), sliced(SLICES, baseline=BETTER))
    assert whole["holds"]
    assert not part["holds"]
    assert part["condition"] == "better_than_baseline by site"
    assert part["text"].startswith("slice site=c: AUC 0.4100, published model 0.7100")
    _, part = check_gates(settings.gates, result(baseline={"uri": "u", "skipped": "it broke"}), sliced(SLICES))
    assert not part["holds"]
    assert "it broke" in part["text"]


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ({"gates": {"auc": {"slices": [{"min": 0.5}]}}}, "evaluation.slices, which is empty"),
        ({"slices": [["a"]], "gates": {"auc": {"slices": [{"min": 0.5, "columns": ["b"]}]}}}, "not an entry of slices"),
        ({"slices": [["a"]], "gates": {"auc": {"slices": [{"columns": ["a"]}]}}}, "give min, max or"),
        ({"gates": {"auc": {}}}, "better_than_baseline or slices"),
    ],
)
def test_rejects_gates_of_slices_that_cannot_be_checked(evaluation, said):
    with pytest.raises(ValueError, match=said):
        Evaluation.model_validate(evaluation)


def test_log_loss_is_compared_with_that_of_the_base_rate_of_train():
    labels = np.array([1] * 30 + [0] * 70, np.int8)
    # The entropy of 0.3 is 0.6109; predicting 0.1 for 30 % ones costs -0.3 ln 0.1 - 0.7 ln 0.9 = 0.7645.
    for share, loss, holds, text in (
        (0.3, 0.61, True, "log loss 0.6100 is at most 0.6109, that of the base rate of train"),
        (
            0.3,
            0.62,
            False,
            "log loss 0.6200 is above 0.6109, that of the base rate of train (evaluation.better_than_base_rate)",
        ),
        (0.1, 0.76, True, "log loss 0.7600 is at most 0.7645, that of the base rate of train"),
    ):
        check = check_base_rate(share, labels, result({**OWN, "log_loss": loss}))
        assert (check["holds"], check["text"].lower()) == (holds, text)
        assert check["condition"] == "better_than_base_rate"
