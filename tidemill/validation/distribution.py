"""Distribution of one number: mean, deviation, quantiles and histograms.

All functions read (value, count) pairs in ascending order, each value once. So the result is exact, does not depend on
the order of the rows, and needs memory for only one batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

BUCKETS = 10
QUANTILE_BUCKETS = 20

CountedValues = Iterable[tuple[np.ndarray, np.ndarray]]
"""Batches of (values, counts) in ascending order: float64 or int64 [n], and int64 [n]."""


@dataclass(frozen=True)
class NumberSummary:
    """Summary of a number's values.

    Attributes:
        mean: The mean.
        std_dev: The population standard deviation.
        median: The mean of the two middle values.
        edges: The distinct quantiles at 0, 1/20 … 1, float64 [e]. The quantile q is the smallest value that is at
            least as large as a share q of the rows.
        below: For each edge the number of rows that are less, int64 [e].
    """

    mean: float
    std_dev: float
    median: float
    edges: np.ndarray
    below: np.ndarray


def summarize(counted: CountedValues, total: int) -> NumberSummary:
    """Summarizes a distribution in one pass.

    The mean and the variance are combined batch by batch (Chan, Golub and LeVeque, 1979).

    Args:
        counted: The values.
        total: The sum of all counts, at least 1.
    """
    quantiles = np.arange(QUANTILE_BUCKETS + 1) / QUANTILE_BUCKETS
    ranks = np.maximum(np.ceil(quantiles * total).astype(np.int64), 1)
    middle = np.array([(total + 1) // 2, total // 2 + 1])
    below_edges: dict[float, int] = {}
    middles: list[float] = []
    done, mean, squares = 0, 0.0, 0.0
    for values, counts in counted:
        upto = done + np.cumsum(counts)
        rows = int(upto[-1]) - done
        for rank in ranks[(ranks > done) & (ranks <= upto[-1])]:
            at = int(np.searchsorted(upto, rank))
            below_edges.setdefault(float(values[at]), int(upto[at] - counts[at]))
        middles += [float(values[np.searchsorted(upto, r)]) for r in middle if done < r <= upto[-1]]
        numbers = values.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            batch_mean = float(((numbers - numbers[0]) * counts).sum()) / rows + float(numbers[0])
            delta = batch_mean - mean
            squares += float(((numbers - batch_mean) ** 2 * counts).sum()) + delta * delta * done * rows / (done + rows)
        mean += delta * rows / (done + rows)
        done += rows
    edges = np.array(list(below_edges), dtype=np.float64)
    below = np.array(list(below_edges.values()), dtype=np.int64)
    return NumberSummary(mean, math.sqrt(squares / total), sum(middles) / 2, edges, below)


def count_below(counted: CountedValues, edge_sets: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Counts in one pass the rows that are less than each edge.

    Args:
        counted: The values.
        edge_sets: Arrays of ascending edges, float64 [e].

    Returns:
        For each array of edges the counts, int64 [e].
    """
    totals = [np.zeros(len(edges), dtype=np.int64) for edges in edge_sets]
    for values, counts in counted:
        cumulative = np.concatenate([[0], np.cumsum(counts)])
        for edges, total in zip(edge_sets, totals, strict=True):
            total += cumulative[np.searchsorted(values, edges, side="left")]
    return totals


def equal_edges(low: float, high: float, buckets: int = BUCKETS) -> np.ndarray:
    """Returns the edges of buckets of equal width. Only one edge if the width is 0 or exceeds the range of a float."""
    width = (high - low) / buckets
    if not width > 0 or not math.isfinite(width):
        return np.array([low])
    edges = low + width * np.arange(buckets + 1)
    edges[-1] = high
    return np.unique(edges)


def bins(below: np.ndarray, total: int) -> np.ndarray:
    """Converts counts below edges to counts of bins.

    The first bin is below the first edge, the last bin begins with the last edge, and the bins between are half-open.

    Args:
        below: Number of rows less than each edge, int64 [e].
        total: Number of all rows.

    Returns:
        The rows in each bin, int64 [e + 1]. Their sum is `total`.
    """
    return np.diff(np.concatenate([[0], below, [total]]))
