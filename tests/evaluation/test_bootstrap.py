"""Confidence intervals: their coverage, their width, and what makes them fast."""

from __future__ import annotations

import numpy as np
import pytest

from tidemill.evaluation import bootstrap
from tidemill.evaluation.metric_values import group, measure
from tidemill.experiment.evaluation import Bootstrap
from tidemill.metric_definitions import METRICS, goodness


def sample(rows: int, seed: int, noise: float = 0.5):
    """Returns labels, the scores of a model, and those of a noisier model."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=rows) - 1
    y = (rng.random(rows) < 1 / (1 + np.exp(-z))).astype(np.int8)
    return y, 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(-(z + noise * rng.normal(size=rows))))


def truth(noise: float):
    """Returns the metrics and gains of so many rows that they hardly vary."""
    y, p, b = sample(500_000, 10**6, noise)
    own, published = measure(group(y, p)), measure(group(y, b))
    return own, {m: goodness(m, own[m]) - goodness(m, published[m]) for m in METRICS}


def test_intervals_contain_the_true_value_as_often_as_stated():
    own, gain = truth(0.5)
    spec, runs = Bootstrap(resamples=200), 100
    covered = {kind: dict.fromkeys(METRICS, 0) for kind in ("single", "paired", "gain")}
    for seed in range(runs):
        y, p, b = sample(400, seed)
        intervals = {"single": bootstrap.intervals(y, p, 0.5, spec)}
        intervals["paired"], _, intervals["gain"] = bootstrap.paired_intervals(y, p, b, 0.5, spec)
        for kind, each in intervals.items():
            for metric in METRICS:
                low, high = each[metric]
                target = gain[metric] if kind == "gain" else own[metric]
                covered[kind][metric] += low <= target <= high
    for kind, each in covered.items():
        for metric in METRICS:
            # The true ECE is 0, and samples overestimate it. The same holds for the distance of calibration from 1.
            if metric != "ece" and (kind, metric) != ("gain", "calibration"):
                assert 0.87 <= each[metric] / runs <= 1.0, (kind, metric, each[metric] / runs)
    mean = np.mean([covered[k][m] / runs for k in ("single", "paired") for m in METRICS if m != "ece"])
    assert 0.92 <= mean <= 0.975


def test_intervals_are_as_wide_as_those_of_the_plain_bootstrap():
    y, p, b = sample(1500, 3)
    spec = Bootstrap(resamples=1000)
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(y), len(y)) for _ in range(400)]
    plain = [measure(group(y[i], p[i])) for i in draws]
    plain_b = [measure(group(y[i], b[i])) for i in draws]
    single, (paired, _, gain) = bootstrap.intervals(y, p, 0.5, spec), bootstrap.paired_intervals(y, p, b, 0.5, spec)
    for metric in set(METRICS) - {"ece"}:
        values = np.array([v[metric] for v in plain])
        width = np.subtract(*np.quantile(values, [0.975, 0.025]))
        for intervals in (single, paired):
            assert intervals[metric][1] - intervals[metric][0] == pytest.approx(width, rel=0.15), metric
        gains = goodness(metric, values) - goodness(metric, np.array([v[metric] for v in plain_b]))
        width = np.subtract(*np.quantile(gains, [0.975, 0.025]))
        assert gain[metric][1] - gain[metric][0] == pytest.approx(width, rel=0.2), metric


def test_pairing_narrows_the_difference():
    y, p, b = sample(5000, 4, noise=0.2)
    own, published, gain = bootstrap.paired_intervals(y, p, b, 0.5, Bootstrap())
    width = gain["auc"][1] - gain["auc"][0]
    assert width < 0.5 * min(own["auc"][1] - own["auc"][0], published["auc"][1] - published["auc"][0])


def test_the_same_model_has_no_gain():
    y, p, _ = sample(5000, 5)
    own, published, gain = bootstrap.paired_intervals(y, p, p, 0.5, Bootstrap())
    assert own == published
    assert all(gain[m] == pytest.approx((0, 0), abs=1e-12) for m in METRICS)


def test_seed_and_slice_name_seed_the_resampling():
    y, p, _ = sample(800, 6)
    first = bootstrap.intervals(y, p, 0.5, Bootstrap(seed=1), "a")
    assert first == bootstrap.intervals(y, p, 0.5, Bootstrap(seed=1), "a")
    assert first != bootstrap.intervals(y, p, 0.5, Bootstrap(seed=2), "a")
    assert first != bootstrap.intervals(y, p, 0.5, Bootstrap(seed=1), "b")


def test_higher_confidence_is_wider():
    y, p, _ = sample(2000, 7)
    narrow, wide = (bootstrap.intervals(y, p, 0.5, Bootstrap(confidence=c)) for c in (0.8, 0.99))
    assert wide["auc"][0] < narrow["auc"][0] < narrow["auc"][1] < wide["auc"][1]


def test_intervals_contain_the_value():
    for seed in range(20):
        y, p, _ = sample(400, seed)
        values, intervals = measure(group(y, p)), bootstrap.intervals(y, p, 0.5, Bootstrap())
        assert all(intervals[m][0] <= values[m] <= intervals[m][1] for m in METRICS)


@pytest.mark.parametrize("labels", [[], [1], [0, 0, 0], [1, 1], [0, 1]])
def test_an_interval_that_does_not_exist_is_none(labels):
    y = np.array(labels, np.int8)
    p = np.linspace(0.2, 0.6, len(y))
    spec = Bootstrap(resamples=50)
    for intervals in (bootstrap.intervals(y, p, 0.5, spec), *bootstrap.paired_intervals(y, p, p, 0.5, spec)):
        assert set(intervals) == set(METRICS)
        assert intervals["auc"] is None
        for pair in intervals.values():
            assert pair is None or np.isfinite(pair).all()


def test_without_resamples_there_are_no_intervals():
    y, p, b = sample(100, 8)
    assert set(bootstrap.intervals(y, p, 0.5, Bootstrap(resamples=0)).values()) == {None}
    assert all(set(d.values()) == {None} for d in bootstrap.paired_intervals(y, p, b, 0.5, Bootstrap(resamples=0)))


def test_a_subset_of_many_rows_gives_the_same_width(monkeypatch):
    y, p, b = sample(20_000, 9)
    spec = Bootstrap(resamples=600)
    _, _, whole = bootstrap.paired_intervals(y, p, b, 0.5, spec)
    monkeypatch.setattr(bootstrap, "MAX_PAIRED_ROWS", 5_000)
    _, _, subset = bootstrap.paired_intervals(y, p, b, 0.5, spec)
    gain = measure(group(y, p))["auc"] - measure(group(y, b))["auc"]
    assert subset["auc"][0] <= gain <= subset["auc"][1]
    assert subset["auc"][1] - subset["auc"][0] == pytest.approx(whole["auc"][1] - whole["auc"][0], rel=0.2)


def test_poisson_table_has_mean_and_variance_one():
    table = bootstrap._poisson_table()
    assert table.mean() == pytest.approx(1, abs=1e-3)
    assert table.var() == pytest.approx(1, abs=1e-3)
    assert np.mean(table == 0) == pytest.approx(np.exp(-1), abs=1e-4)
