"""Gates: which conditions hold, and the text of each check."""

from __future__ import annotations

import pytest

from tidemill.evaluation.blessing import check_gates
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
