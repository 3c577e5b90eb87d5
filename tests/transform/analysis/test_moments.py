"""MomentsAccumulator of parts put together are those of all values."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_transform import analyzers

from tidemill.transform.analysis.accumulators import MomentsAccumulator, merge_moment_groups, merge_moments

PARTS = st.lists(st.lists(st.floats(-1e6, 1e6), max_size=9), min_size=1, max_size=6)


def moments(values):
    array = np.array(values, np.float64)
    return MomentsAccumulator(
        np.array(len(values)), *(np.array(f(array)) if values else np.array(0.0) for f in (np.mean, np.var))
    )


@given(PARTS)
def test_moments_of_parts(parts):
    values = [value for part in parts for value in part]
    got = merge_moments([moments(part) for part in parts])
    want = moments(values)
    assert got.counts == len(values)
    np.testing.assert_allclose([got.mean, got.variance], [want.mean, want.variance], rtol=1e-9, atol=1e-3)


@given(PARTS)
def test_they_are_those_of_tfts_combiner(parts):
    combiner = analyzers.WeightedMeanAndVarCombiner(np.float32, ())
    accumulators = [(*moments(part), np.array(0.0)) for part in parts]
    merged = combiner.create_accumulator()
    for accumulator in accumulators:
        merged = combiner.add_input(merged, accumulator)
    got = merge_moments([moments(part) for part in parts])
    np.testing.assert_allclose([got.mean, got.variance], [merged.mean, merged.variance], rtol=1e-6, atol=1e-3)


@given(st.floats(-1e300, 1e300), st.lists(st.integers(1, 1000), min_size=1, max_size=9))
def test_a_constant_column_has_no_variance(value, counts):
    parts = [MomentsAccumulator(np.array(count), np.array(value), np.array(0.0)) for count in counts]
    got = merge_moments(parts)
    assert (got.mean, got.variance, got.counts) == (value, 0.0, sum(counts))


def test_elements_without_values():
    """What TFT makes of them: NaN, unless there is no value at all."""
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


def test_a_shorter_part_lacks_the_last_elements():
    short = MomentsAccumulator(np.array([2]), np.array([4.0]), np.array([0.0]))
    long = MomentsAccumulator(np.array([2, 2]), np.array([6.0, 1.0]), np.array([0.0, 3.0]))
    got = merge_moments([short, long])
    assert got.counts.tolist() == [4, 2] and got.mean.tolist() == [5.0, 1.0] and got.variance.tolist() == [1.0, 3.0]


@given(st.lists(PARTS, min_size=1, max_size=4))
def test_groups_are_merged_as_each_alone(groups):
    parts = [[moments(part) for part in group] for group in groups]
    starts = np.cumsum([0, *map(len, parts)])[:-1]
    stacked = MomentsAccumulator(
        *(np.array([part[k] for group in parts for part in group], np.float64) for k in range(3))
    )
    got = merge_moment_groups(stacked, starts)
    for k, group in enumerate(parts):
        alone = merge_moments(group)
        np.testing.assert_allclose([field[k] for field in got], alone, rtol=1e-12, atol=1e-12)
