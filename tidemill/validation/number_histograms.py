"""Histograms of numbers: those of TFX's statistics, and the edges of the report's charts."""

from __future__ import annotations

import math

import numpy as np
from tensorflow_metadata.proto.v0 import statistics_pb2

from tidemill.validation import distribution
from tidemill.validation.columns import ExampleColumn

_CHART_BARS = 30


def add_histogram(
    stats: statistics_pb2.NumericStatistics,
    kind: str,
    edges: np.ndarray,
    below: np.ndarray,
    total: int,
    infinite: int,
    *,
    point: bool = False,
) -> None:
    """Adds a histogram of half-open buckets. The last bucket is closed. With `point` it holds only the last edge."""
    kinds = statistics_pb2.Histogram.HistogramType
    histogram = stats.histograms.add(type=kinds.Value(kind), num_undefined=infinite)
    counts = distribution.bins(below, total)[1:].tolist()
    if not point and len(edges) > 1:
        counts[-2:] = [counts[-2] + counts[-1]]
    highs = [*edges[1:].tolist(), float(edges[-1])]
    for low, high, count in zip(edges.tolist(), highs, counts, strict=False):
        histogram.buckets.add(low_value=low, high_value=high, sample_count=count)


def chart_edges_of(column: ExampleColumn, summary: distribution.NumberSummary, low: float, high: float) -> np.ndarray:
    """Returns the edges of a number's chart: bars of equal width over the middle 90 % of the rows.

    The range is widened by half of its width on each side, but not beyond the values. The outer bars include all values
    beyond the edges. The width of integers' bars is a whole number.
    """
    if high - low >= _CHART_BARS or column.is_float:
        inner = summary.edges[1:-1] if len(summary.edges) > 2 else summary.edges
        spread = (inner[-1] - inner[0]) / 2
        if spread > 0:
            low, high = max(low, inner[0] - spread), min(high, inner[-1] + spread)
    if column.is_float:
        return distribution.equal_edges(low, high, _CHART_BARS)
    low = math.floor(low)
    width = math.ceil((high - low + 1) / _CHART_BARS)
    return np.unique(low + width * np.arange(math.ceil((high - low + 1) / width) + 1, dtype=np.float64))
