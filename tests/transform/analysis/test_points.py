"""Weighted points stand for all values, as TFT's sketch of the values would have it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_transform import analyzers

from tidemill.transform.analysis.accumulators import WeightedPoints
from tidemill.transform.tft import combiners

VALUES = st.lists(st.floats(width=32, allow_nan=True) | st.integers(-3, 3).map(float), max_size=40)
WEIGHTS = st.floats(-1, 5) | st.just(float("nan"))


def quantiles(combiner, *batches):
    accumulator = combiner.create_accumulator()
    for batch in batches:
        accumulator = combiner.add_input(accumulator, batch)
    return combiner.extract_output(accumulator)[0]


def of_points(combiner, points):
    return combiner.extract_output(points.sketch(combiners.quantiles(combiner)))[0]


@given(parts=st.lists(VALUES, max_size=4), buckets=st.integers(2, 7))
def test_quantiles_of_few_values_are_those_of_the_values(parts, buckets):
    combiner = analyzers.QuantilesCombiner(buckets, 0.01, np.float32)
    arrays = [np.array(part, np.float32) for part in parts]
    points = WeightedPoints.merged([WeightedPoints.of(array) for array in arrays]).thinned(0.01)
    want = quantiles(combiner, *([array] for array in arrays))
    np.testing.assert_array_equal(of_points(combiner, points), want)


@given(rows=st.lists(st.tuples(st.floats(-3, 3, width=32), WEIGHTS), max_size=40), buckets=st.integers(2, 7))
def test_what_has_no_weight_is_not_there(rows, buckets):
    combiner = analyzers.QuantilesCombiner(buckets, 0.01, np.float32, has_weights=True)
    values, weights = np.array(rows, np.float32).reshape(-1, 2).T.copy()
    points = WeightedPoints.merged(
        [WeightedPoints.of(values[::2], weights[::2]), WeightedPoints.of(values[1::2], weights[1::2])]
    )
    assert np.all(points.weights > 0)
    np.testing.assert_array_equal(of_points(combiner, points), quantiles(combiner, [values, weights]))


@given(rows=st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), max_size=40), cut=st.integers(0, 40))
def test_groups_are_kept_apart(rows, cut):
    groups, values = np.array(rows, np.int64).reshape(-1, 2).T
    parts = [WeightedPoints.of(values[s].astype(np.float32), None, groups[s]) for s in (slice(cut), slice(cut, None))]
    points = WeightedPoints.merged(parts)
    got = [(int(g), float(v), float(w)) for v, w, g in zip(*points, strict=True)]
    pairs = sorted(set(rows))
    assert got == [(g, v, rows.count((g, v))) for g, v in pairs]


@pytest.mark.parametrize("epsilon", [0.01, 0.001])
@pytest.mark.parametrize("kind", ["normal", "heavy", "groups"])
def test_thinning_moves_no_rank_by_much(kind, epsilon):
    random = np.random.default_rng(0)
    count = 200_000
    values = random.normal(size=count)
    groups = np.zeros(count, np.int64)
    if kind == "heavy":
        values[: count // 2] = 0.25
    if kind == "groups":
        groups = random.integers(0, 3, count)
        groups[:9] = 7
    thinned = WeightedPoints.of(values, None, groups).thinned(epsilon)
    most = max(8192, int(np.ceil(50 / epsilon)))
    for group in np.unique(groups):
        exact = np.sort(values[groups == group])
        of_group = thinned.groups == group
        assert of_group.sum() <= most + 1
        assert thinned.weights[of_group].sum() == len(exact)
        assert thinned.values[of_group][[0, -1]].tolist() == exact[[0, -1]].tolist()
        if len(exact) < 10:
            assert thinned.values[of_group].tolist() == exact.tolist()
        at = np.cumsum(thinned.weights[of_group])
        points = thinned.values[of_group]
        low, high = np.searchsorted(exact, points, "left"), np.searchsorted(exact, points, "right")
        # A point's share of ranks reaches those of its value, give or take the neighbours that it stands for.
        assert np.all(low <= at + 2 * len(exact) / most) and np.all(high >= at - thinned.weights[of_group] - 1)


def test_quantiles_of_many_values_are_within_epsilon():
    random = np.random.default_rng(1)
    values = random.lognormal(size=300_000).astype(np.float32)
    combiner = analyzers.QuantilesCombiner(20, 0.01, np.float32)
    parts = [WeightedPoints.of(part).thinned(0.01) for part in np.split(values, 10)]
    got = of_points(combiner, WeightedPoints.merged(parts).thinned(0.01)).ravel()
    ranks = np.searchsorted(np.sort(values), got) / len(values)
    assert np.abs(ranks - np.arange(1, 20) / 20).max() <= 0.01


def test_as_many_weights_as_values():
    with pytest.raises(ValueError, match="1 weights for 2 values"):
        WeightedPoints.of(np.zeros(2), np.ones(1))
