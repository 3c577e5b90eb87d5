from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.validation import distribution

finite = st.floats(-1e6, 1e6) | st.integers(-5, 5).map(float)
samples = st.lists(finite, min_size=1, max_size=200).map(np.array)


def scan(sample: np.ndarray, batch: int) -> list[tuple[np.ndarray, np.ndarray]]:
    values, counts = np.unique(sample, return_counts=True)
    return [(values[i : i + batch], counts[i : i + batch]) for i in range(0, len(values), batch)]


@given(samples, st.integers(1, 50))
def test_summary_equals_numpy(sample, batch):
    summary = distribution.summarize(scan(sample, batch), len(sample))
    assert summary.mean == pytest.approx(sample.mean(), abs=1e-6)
    assert summary.std_dev == pytest.approx(sample.std(), rel=1e-6, abs=1e-3)
    assert summary.median == np.median(sample)
    quantiles = np.quantile(sample, np.arange(21) / 20, method="inverted_cdf")
    np.testing.assert_array_equal(summary.edges, np.unique(quantiles))
    np.testing.assert_array_equal(summary.below, [(sample < edge).sum() for edge in summary.edges])


@given(samples, st.lists(finite, min_size=1, max_size=20, unique=True).map(sorted).map(np.array), st.integers(1, 50))
def test_bins_count_each_row_once(sample, edges, batch):
    (below,) = distribution.count_below(scan(sample, batch), [edges])
    bins = distribution.bins(below, len(sample))
    assert bins.sum() == len(sample)
    np.testing.assert_array_equal(bins[1:-1], [((sample >= a) & (sample < b)).sum() for a, b in pairwise(edges)])


@given(finite, finite)
def test_equal_edges_span_the_range(one, two):
    low, high = sorted((one, two))
    edges = distribution.equal_edges(low, high)
    assert edges[0] == low
    assert edges[-1] == high or len(edges) == 1
    assert (np.diff(edges) > 0).all()


def test_variance_survives_a_large_offset():
    sample = 1e9 + np.array([0.0, 1.0, 2.0, 3.0])
    assert distribution.summarize(scan(sample, 2), 4).std_dev == pytest.approx(np.sqrt(1.25))
