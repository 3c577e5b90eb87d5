"""The distribution of one number: moments, quantiles and histograms from its values in ascending order.

The values come as (value, count) pairs, each value once, so that the result is exact, is the same for every order of
the rows, and needs memory for one batch alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

BUCKETS = 10
QUANTILE_BUCKETS = 20

Scan = Iterable[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Moments:
    """Mean, population standard deviation and median of a number; `edges` are its distinct quantiles at 0, 1/20 … 1,
    and `below` holds for each edge the number of rows that are less."""

    mean: float
    std_dev: float
    median: float
    edges: np.ndarray
    below: np.ndarray


def moments(scan: Scan, total: int) -> Moments:
    """Summarises a distribution in one pass.

    The mean and the variance are combined batch by batch (Chan, Golub and LeVeque, 1979).

    Args:
        scan: Batches of (values, counts), ascending: float64 or int64 [n] and int64 [n].
        total: The sum of all counts, at least 1.

    Returns:
        The moments; a quantile q is the least value that at least a share q of the rows does not exceed, and the
        median is the mean of the two middle values.
    """
    quantiles = np.arange(QUANTILE_BUCKETS + 1) / QUANTILE_BUCKETS
    ranks = np.maximum(np.ceil(quantiles * total).astype(np.int64), 1)
    middle = np.array([(total + 1) // 2, total // 2 + 1])
    found: dict[float, int] = {}
    middles: list[float] = []
    done, mean, squares = 0, 0.0, 0.0
    for values, counts in scan:
        upto = done + np.cumsum(counts)
        rows = int(upto[-1]) - done
        for rank in ranks[(ranks > done) & (ranks <= upto[-1])]:
            at = int(np.searchsorted(upto, rank))
            found.setdefault(float(values[at]), int(upto[at] - counts[at]))
        middles += [float(values[np.searchsorted(upto, r)]) for r in middle if done < r <= upto[-1]]
        numbers = values.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            batch_mean = float(((numbers - numbers[0]) * counts).sum()) / rows + float(numbers[0])
            delta = batch_mean - mean
            squares += float(((numbers - batch_mean) ** 2 * counts).sum()) + delta * delta * done * rows / (done + rows)
        mean += delta * rows / (done + rows)
        done += rows
    edges = np.array(list(found), dtype=np.float64)
    below = np.array(list(found.values()), dtype=np.int64)
    return Moments(mean, math.sqrt(squares / total), sum(middles) / 2, edges, below)


def count_below(scan: Scan, edge_sets: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each edge of each set, the number of rows that are less than it, in one pass.

    Args:
        scan: As for `moments`.
        edge_sets: Arrays of ascending edges, float64 [e].

    Returns:
        An int64 array [e] for each set.
    """
    totals = [np.zeros(len(edges), dtype=np.int64) for edges in edge_sets]
    for values, counts in scan:
        cumulated = np.concatenate([[0], np.cumsum(counts)])
        for edges, total in zip(edge_sets, totals, strict=True):
            total += cumulated[np.searchsorted(values, edges, side="left")]
    return totals


def equal_edges(low: float, high: float, buckets: int = BUCKETS) -> np.ndarray:
    """Edges of buckets of equal width; a single edge where there is no width, or where it is beyond a float's
    range."""
    width = (high - low) / buckets
    if not width > 0 or not math.isfinite(width):
        return np.array([low])
    edges = low + width * np.arange(buckets + 1)
    edges[-1] = high
    return np.unique(edges)


def bins(below: np.ndarray, total: int) -> np.ndarray:
    """Rows between edges: less than the first, in each half-open interval, and from the last edge on.

    Args:
        below: Rows less than each edge, int64 [e].
        total: All rows.

    Returns:
        int64 [e + 1], which adds up to `total`.
    """
    return np.diff(np.concatenate([[0], below, [total]]))
