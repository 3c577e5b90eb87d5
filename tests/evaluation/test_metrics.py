"""Metrics and curves, compared with scikit-learn on scores with ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    log_loss,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from tidemill.evaluation import curves, thresholds
from tidemill.evaluation.metric_values import confusion, group, measure, undefined
from tidemill.metric_definitions import METRICS, goodness, mean

few_examples = settings(max_examples=40)
few_scores = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.75, 0.9, 1.0])
any_score = st.floats(0, 1, allow_subnormal=False)
rows = st.lists(st.tuples(st.integers(0, 1), st.one_of(few_scores, any_score)), min_size=1, max_size=60)


def arrays(data):
    return np.array([y for y, _ in data]), np.array([p for _, p in data], np.float64)


def both_classes(data):
    y, p = arrays(data)
    assume(0 < y.sum() < len(y))
    return y, p


@few_examples
@given(rows)
def test_auc_and_average_precision_equal_scikit_learns(data):
    y, p = both_classes(data)
    metrics = measure(group(y, p))
    assert metrics["auc"] == pytest.approx(roc_auc_score(y, p), abs=1e-12)
    assert metrics["pr_auc"] == pytest.approx(average_precision_score(y, p), abs=1e-12)


@few_examples
@given(rows)
def test_losses_and_calibration_equal_scikit_learns(data):
    y, p = both_classes(data)
    metrics = measure(group(y, p))
    expected = log_loss(y, p, labels=[0, 1])
    assert metrics["log_loss"] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    base = np.full(len(y), y.mean())
    assert metrics["normalized_entropy"] == pytest.approx(
        expected / log_loss(y, base, labels=[0, 1]), rel=1e-9, abs=1e-12
    )
    assert metrics["calibration"] == pytest.approx(p.mean() / y.mean(), rel=1e-9, abs=1e-12)


@few_examples
@given(rows, st.sampled_from([0.1, 0.5, 0.5000001, 0.9]))
def test_accuracy_and_confusion_equal_scikit_learns(data, threshold):
    y, p = arrays(data)
    predicted = p >= threshold
    assert measure(group(y, p, threshold))["accuracy"] == pytest.approx(accuracy_score(y, predicted), abs=1e-12)
    assert confusion(y, p, threshold) == confusion_matrix(y, predicted, labels=[0, 1]).tolist()


@few_examples
@given(rows)
def test_calibration_curve_and_ece_equal_scikit_learns(data):
    y, p = both_classes(data)
    shares, means = calibration_curve(y, p, n_bins=10, strategy="quantile")
    points = curves.calibration(y, p)
    assert [b["share"] for b in points] == pytest.approx(shares, abs=1e-12)
    assert [b["score"] for b in points] == pytest.approx(means, abs=1e-12)
    ece = sum(b["rows"] * abs(b["share"] - b["score"]) for b in points) / len(y)
    assert measure(group(y, p))["ece"] == pytest.approx(ece, abs=1e-9)
    assert all(b["low"] <= b["share"] + 1e-12 and b["share"] <= b["high"] + 1e-12 for b in points)


@few_examples
@given(rows)
def test_curves_equal_scikit_learns(data):
    y, p = both_classes(data)
    cells = group(y, p)
    fpr, tpr, thresholds = roc_curve(y, p, drop_intermediate=False)
    assert np.array(curves.roc(cells)) == pytest.approx(np.column_stack([fpr, tpr, [1.0, *thresholds[1:]]]), abs=1e-12)
    precision, recall, thresholds = precision_recall_curve(y, p)
    expected = np.column_stack([recall[:-1], precision[:-1], thresholds])[::-1]
    assert np.array(curves.precision_recall(cells)) == pytest.approx(expected, abs=1e-12)


@few_examples
@given(rows, st.integers(0, 3))
def test_weights_count_as_repeated_rows(data, seed):
    y, p = arrays(data)
    weights = np.random.default_rng(seed).integers(0, 3, len(y))
    assume(0 < (weights * y).sum() < weights.sum())
    cells = group(y, p)
    counts = np.zeros_like(cells.counts)
    np.add.at(counts, (y, cells.index), weights)
    weighted = measure(cells, counts)
    repeated = measure(group(np.repeat(y, weights), np.repeat(p, weights)))
    for name in METRICS:
        if name != "ece":  # its bins come from the whole sample
            assert weighted[name] == pytest.approx(repeated[name], rel=1e-9, abs=1e-9), name


@few_examples
@given(rows, st.integers(0, 100))
def test_order_of_rows_does_not_matter(data, seed):
    y, p = arrays(data)
    order = np.random.default_rng(seed).permutation(len(y))
    a, b = measure(group(y, p)), measure(group(y[order], p[order]))
    for name in METRICS:
        assert a[name] == pytest.approx(b[name], abs=1e-12, nan_ok=True)


@few_examples
@given(rows)
def test_undefined_names_the_metrics_that_do_not_exist(data):
    y, p = arrays(data)
    metrics = measure(group(y, p))
    for name in METRICS:
        assert np.isnan(metrics[name]) == (undefined(name, len(y), int(y.sum())) is not None), name


def test_no_rows_have_no_metrics():
    metrics = measure(group(np.empty(0), np.empty(0)))
    assert all(np.isnan(metrics[name]) and undefined(name, 0, 0) == "no rows" for name in METRICS)
    assert curves.calibration(np.empty(0), np.empty(0)) == []
    assert curves.roc(group(np.empty(0), np.empty(0))) == []


def test_merged_cells_are_fewer_and_change_metrics_little():
    rng = np.random.default_rng(1)
    p = rng.random(50_000) ** 3
    y = rng.random(50_000) < p
    exact, coarse = group(y, p), group(y, p, max_cells=500)
    assert coarse.counts.shape[1] <= 500 and coarse.counts.sum() == 50_000
    assert np.array_equal(np.bincount(coarse.index), coarse.counts.sum(0))
    a, b = measure(exact), measure(coarse)
    for name in ("log_loss", "normalized_entropy", "calibration", "accuracy"):
        assert a[name] == pytest.approx(b[name], abs=1e-12), name
    assert a["auc"] == pytest.approx(b["auc"], abs=1e-5)
    assert a["pr_auc"] == pytest.approx(b["pr_auc"], abs=2e-3)


def test_long_curves_are_thinned_and_keep_their_ends():
    rng = np.random.default_rng(2)
    p = rng.random(20_000)
    points = curves.roc(group(rng.random(20_000) < p, p))
    assert 150 < len(points) <= curves.MAX_POINTS
    assert points[0][:2] == (0.0, 0.0) and points[-1][:2] == (1.0, 1.0)
    gaps = np.abs(np.diff(np.array(points)[:, :2], axis=0)).sum(1)
    assert gaps.max() < 0.05


@pytest.mark.parametrize(
    ("metric", "better", "worse"),
    [
        ("auc", 0.7, 0.6),
        ("pr_auc", 0.7, 0.6),
        ("log_loss", 0.3, 0.4),
        ("normalized_entropy", 0.8, 0.9),
        ("calibration", 1.05, 0.9),
        ("calibration", 0.95, 1.1),
        ("ece", 0.01, 0.02),
        ("accuracy", 0.9, 0.8),
    ],
)
def test_goodness_is_higher_for_the_better_value(metric, better, worse):
    assert goodness(metric, better) > goodness(metric, worse)


def test_mean_over_labels():
    assert mean("auc", [0.6, 0.8]) == pytest.approx(0.7)
    # Scores that are too low for one label do not compensate for scores that are too high for another.
    assert mean("calibration", [0.5, 1.5]) == pytest.approx(1.5)
    assert mean("calibration", [1.0, 1.0]) == 1.0


@few_examples
@given(rows, st.one_of(few_scores, any_score))
def test_counts_at_each_threshold_equal_scikit_learns_confusion_matrix(data, threshold):
    y, p = arrays(data)
    counts = thresholds.count(y, p, threshold)
    values = counts["threshold"]
    assert values == sorted(set(values)) and threshold in values and {0.0, 0.3, 0.999, 1.0} <= set(values)
    # Scores themselves are among the thresholds, as far as six digits hold them.
    assert all(min(abs(np.array(values) - score)) <= 1e-6 for score in p)
    for i in range(0, len(values), 97):
        _, fp, _, tp = confusion_matrix(y, p >= values[i], labels=[0, 1]).ravel()
        assert (counts["true_positives"][i], counts["false_positives"][i]) == (tp, fp)
