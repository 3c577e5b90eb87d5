"""Accumulators: weighted points give the quantiles of TFT's sketch, and merged moments those of all values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_transform import analyzers

from tidemill.transform.analysis.accumulators import (
    MomentsAccumulator,
    WeightedPoints,
    merge_moment_groups,
    merge_moments,
)
from tidemill.transform.tft import combiners

pytestmark = pytest.mark.tensorflow
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
def test_quantiles_of_few_values_are_those_of_tfts_sketch(parts, buckets):
    combiner = analyzers.QuantilesCombiner(buckets, 0.01, np.float32)
    arrays = [np.array(part, np.float32) for part in parts]
    points = WeightedPoints.merged([WeightedPoints.of(array) for array in arrays]).thinned(0.01)
    want = quantiles(combiner, *([array] for array in arrays))
    np.testing.assert_array_equal(of_points(combiner, points), want)


@given(rows=st.lists(st.tuples(st.floats(-3, 3, width=32), WEIGHTS), max_size=40), buckets=st.integers(2, 7))
def test_values_without_weight_do_not_count(rows, buckets):
    combiner = analyzers.QuantilesCombiner(buckets, 0.01, np.float32, has_weights=True)
    values, weights = np.array(rows, np.float32).reshape(-1, 2).T.copy()
    points = WeightedPoints.merged(
        [WeightedPoints.of(values[::2], weights[::2]), WeightedPoints.of(values[1::2], weights[1::2])]
    )
    assert np.all(points.weights > 0)
    np.testing.assert_array_equal(of_points(combiner, points), quantiles(combiner, [values, weights]))


@given(rows=st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), max_size=40), cut=st.integers(0, 40))
def test_groups_are_counted_separately(rows, cut):
    groups, values = np.array(rows, np.int64).reshape(-1, 2).T
    parts = [WeightedPoints.of(values[s].astype(np.float32), None, groups[s]) for s in (slice(cut), slice(cut, None))]
    points = WeightedPoints.merged(parts)
    got = [(int(g), float(v), float(w)) for v, w, g in zip(*points, strict=True)]
    pairs = sorted(set(rows))
    assert got == [(g, v, rows.count((g, v))) for g, v in pairs]


@pytest.mark.parametrize("epsilon", [0.01, 0.001])
@pytest.mark.parametrize("kind", ["normal", "heavy", "groups"])
def test_thinning_changes_ranks_only_a_little(kind, epsilon):
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
        # The rank of a point differs from that of its value at most by the neighbors that were merged into it.
        assert np.all(low <= at + 2 * len(exact) / most) and np.all(high >= at - thinned.weights[of_group] - 1)


def test_quantiles_of_many_values_are_within_epsilon():
    random = np.random.default_rng(1)
    values = random.lognormal(size=300_000).astype(np.float32)
    combiner = analyzers.QuantilesCombiner(20, 0.01, np.float32)
    parts = [WeightedPoints.of(part).thinned(0.01) for part in np.split(values, 10)]
    got = of_points(combiner, WeightedPoints.merged(parts).thinned(0.01)).ravel()
    ranks = np.searchsorted(np.sort(values), got) / len(values)
    assert np.abs(ranks - np.arange(1, 20) / 20).max() <= 0.01


def test_rejects_other_numbers_of_weights_than_values():
    with pytest.raises(ValueError, match="1 weights for 2 values"):
        WeightedPoints.of(np.zeros(2), np.ones(1))


PARTS = st.lists(st.lists(st.floats(-1e6, 1e6), max_size=9), min_size=1, max_size=6)


def moments(values):
    array = np.array(values, np.float64)
    return MomentsAccumulator(
        np.array(len(values)), *(np.array(f(array)) if values else np.array(0.0) for f in (np.mean, np.var))
    )


@given(PARTS)
def test_merged_moments_are_those_of_all_values(parts):
    values = [value for part in parts for value in part]
    got = merge_moments([moments(part) for part in parts])
    want = moments(values)
    assert got.counts == len(values)
    np.testing.assert_allclose([got.mean, got.variance], [want.mean, want.variance], rtol=1e-9, atol=1e-3)


@given(PARTS)
def test_merged_moments_are_those_of_tfts_combiner(parts):
    combiner = analyzers.WeightedMeanAndVarCombiner(np.float32, ())
    accumulators = [(*moments(part), np.array(0.0)) for part in parts]
    merged = combiner.create_accumulator()
    for accumulator in accumulators:
        merged = combiner.add_input(merged, accumulator)
    got = merge_moments([moments(part) for part in parts])
    np.testing.assert_allclose([got.mean, got.variance], [merged.mean, merged.variance], rtol=1e-6, atol=1e-3)


@given(st.floats(-1e300, 1e300), st.lists(st.integers(1, 1000), min_size=1, max_size=9))
def test_variance_of_a_constant_column_is_zero(value, counts):
    parts = [MomentsAccumulator(np.array(count), np.array(value), np.array(0.0)) for count in counts]
    got = merge_moments(parts)
    assert (got.mean, got.variance, got.counts) == (value, 0.0, sum(counts))


def test_moments_of_elements_without_values_are_tfts():
    """TFT's mean of such an element is NaN, or 0 if no element has a value."""
    combiner = analyzers.WeightedMeanAndVarCombiner(np.float32, (2,))
    nothing = MomentsAccumulator(np.zeros(2), np.zeros(2), np.zeros(2))
    some = MomentsAccumulator(np.array([3, 0]), np.array([5.0, 0.0]), np.array([1.0, 0.0]))
    empty = MomentsAccumulator(*combiner.create_accumulator()[:3])
    for parts in ([some, nothing], [nothing, some], [empty, some, empty], [some]):
        accumulators = [(*part, np.zeros(2)) for part in parts]
        want = combiner.merge_accumulators([combiner.create_accumulator(), *accumulators])
        got = merge_moments(parts)
        np.testing.assert_array_equal(got.mean, want[1])
        np.testing.assert_array_equal(got.mean, [5.0, np.nan])
    for parts in ([nothing], [nothing, nothing], [empty], [empty, nothing]):
        assert merge_moments(parts).mean.tolist() == [0.0, 0.0]


def test_shorter_part_counts_as_lacking_the_last_elements():
    short = MomentsAccumulator(np.array([2]), np.array([4.0]), np.array([0.0]))
    long = MomentsAccumulator(np.array([2, 2]), np.array([6.0, 1.0]), np.array([0.0, 3.0]))
    got = merge_moments([short, long])
    assert got.counts.tolist() == [4, 2] and got.mean.tolist() == [5.0, 1.0] and got.variance.tolist() == [1.0, 3.0]


@given(st.lists(PARTS, min_size=1, max_size=4))
def test_merging_groups_equals_merging_each_group(groups):
    parts = [[moments(part) for part in group] for group in groups]
    starts = np.cumsum([0, *map(len, parts)])[:-1]
    stacked = MomentsAccumulator(
        *(np.array([part[k] for group in parts for part in group], np.float64) for k in range(3))
    )
    got = merge_moment_groups(stacked, starts)
    for k, group in enumerate(parts):
        expected = merge_moments(group)
        np.testing.assert_allclose([field[k] for field in got], expected, rtol=1e-12, atol=1e-12)
