"""Mergeable accumulators in numpy: weighted points for quantiles, and moments for mean and variance.

Quantiles: sorting and counting equal values takes a tenth of the time of TFT's sketch, and does not hold Python's lock.
If a column has too many distinct values, neighbors are merged. That moves a value's rank by at most half of the merged
weight, a small share of the sketch's own error.

Moments: the formulas are those of Chan, Golub and LeVeque (1979), "Updating formulae and a pairwise algorithm for
computing sample variances", for any number of parts together. TFT's combiner applies them to two parts at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tidemill.transform.tft.combiners import QuantilesParameters, QuantilesSketch

_FEWEST_KEPT = 1 << 13
_KEPT_PER_EPSILON = 50
_SKETCH_SHARE = 0.8
"""Share of a combiner's epsilon that the sketch may use. Merging neighbors takes far less than the rest: 1 / (2 * 50)
of epsilon each time, a few times."""


class WeightedPoints(NamedTuple):
    """Points: values with weights, sorted by group and then by value. Each value occurs once per group.

    Attributes:
        values: `[points]` numbers, without NaN.
        weights: `[points]` float64, above 0.
        groups: `[points]` int64, from 0.
    """

    values: np.ndarray
    weights: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(
        cls, values: np.ndarray, weights: np.ndarray | None = None, groups: np.ndarray | None = None
    ) -> WeightedPoints:
        """Returns the points of values in any order and shape. Leaves out NaN and values without a weight above 0.

        Args:
            values: Numbers.
            weights: One per value. Defaults to 1 each.
            groups: One int64 per value. Defaults to 0 each.

        Raises:
            ValueError: The numbers of weights and values differ.
        """
        values = np.ravel(values)
        if weights is not None:
            weights = np.ravel(weights).astype(np.float64)
            if len(weights) != len(values):
                raise ValueError(f"{len(weights)} weights for {len(values)} values")
        out = np.isnan(values) if np.issubdtype(values.dtype, np.floating) else np.zeros(len(values), bool)
        if weights is not None:
            out |= ~(weights > 0)
        if out.any():
            values = values[~out]
            weights = None if weights is None else weights[~out]
            groups = None if groups is None else groups[~out]
        if weights is None and groups is None:
            values = np.sort(values)
        else:
            order = np.argsort(values, kind="stable") if groups is None else np.lexsort((values, groups))
            values = values[order]
            weights = None if weights is None else weights[order]
            groups = None if groups is None else groups[order]
        is_first = np.ones(len(values), bool)
        is_first[1:] = values[1:] != values[:-1]
        if groups is not None:
            is_first[1:] |= groups[1:] != groups[:-1]
        starts = np.flatnonzero(is_first)
        if weights is None:
            summed = np.diff(starts, append=len(values)).astype(np.float64)
        else:
            summed = np.add.reduceat(weights, starts) if len(starts) else weights
        return cls(values[starts], summed, np.zeros(len(starts), np.int64) if groups is None else groups[starts])

    @classmethod
    def merged(cls, parts: Sequence[WeightedPoints]) -> WeightedPoints:
        """Returns the points of several parts, or of none."""
        if not parts:
            return cls(np.zeros(0, np.float32), np.zeros(0), np.zeros(0, np.int64))
        if len(parts) == 1:
            return parts[0]
        values, weights, groups = (np.concatenate(field) for field in zip(*parts, strict=True))
        return cls.of(values, weights, groups if groups.any() else None)

    def thinned(self, epsilon: float) -> WeightedPoints:
        """Returns at most `max(8192, 50 / epsilon)` points per group with the same total weight. Keeps the outermost
        values."""
        most = max(_FEWEST_KEPT, int(np.ceil(_KEPT_PER_EPSILON / epsilon)))
        if len(self.values) <= most:
            return self
        starts = np.flatnonzero(np.diff(self.groups, prepend=-1))
        sizes = np.diff(starts, append=len(self.groups))
        if not (sizes > most).any():
            return self
        group = np.repeat(np.arange(len(starts)), sizes)
        total = np.add.reduceat(self.weights, starts)[group]
        ends = np.cumsum(self.weights)
        middle = ends - (ends - self.weights)[starts][group] - self.weights / 2
        part = np.minimum((middle / total * (most - 1)).astype(np.int64), most - 2)
        part = np.where(sizes[group] > most, part, np.arange(len(group)) - starts[group])
        is_first = np.ones(len(group), bool)
        is_first[1:] = (part[1:] != part[:-1]) | (group[1:] != group[:-1])
        # The largest value keeps a point of its own; the smallest represents the first part.
        is_first[starts + sizes - 1] = True
        firsts = np.flatnonzero(is_first)
        lasts = np.append(firsts[1:], len(group)) - 1
        chosen = (firsts + lasts) // 2
        is_smallest = np.isin(firsts, starts)
        chosen[is_smallest] = firsts[is_smallest]
        return WeightedPoints(self.values[chosen], np.add.reduceat(self.weights, firsts), self.groups[chosen])

    def sketch(self, parameters: QuantilesParameters) -> Any:
        """Returns TFT's sketch of all points, regardless of their group."""
        sketch = QuantilesSketch(parameters.epsilon * _SKETCH_SHARE, parameters.max_values, 1)
        if len(self.values):
            sketch.AddValues(pa.array(self.values), pa.array(self.weights))
        return sketch


class MomentsAccumulator(NamedTuple):
    """Moments of values: counts, means and variances, three arrays of one shape with one element per column of
    values."""

    counts: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def merge_moments(parts: Sequence[MomentsAccumulator]) -> MomentsAccumulator:
    """Returns the moments of all parts together.

    Args:
        parts: At least one. If shapes differ, a smaller part has no values in the elements that it lacks.

    Returns:
        Moments in float64. For an element without values they are NaN, or 0 if no element has any, as in TFT.
    """
    filled = [part for part in parts if np.any(part.counts)] or list(parts[-1:])
    shape = tuple(np.max([np.shape(part.mean) for part in filled], axis=0).astype(int))
    stacked = [np.stack([_padded(part[field], shape) for part in filled]) for field in range(3)]
    count, mean, variance = merge_moment_groups(MomentsAccumulator(*stacked), np.zeros(1, np.int64))
    return MomentsAccumulator(count[0], mean[0], variance[0])


def merge_moment_groups(parts: MomentsAccumulator, starts: np.ndarray) -> MomentsAccumulator:
    """Returns the moments of groups of parts.

    Args:
        parts: Arrays `[parts, …]`, group after group. NaN counts as 0.
        starts: `[groups]` the first part of each group.

    Returns:
        Arrays `[groups, …]` in float64; see `merge_moments`.
    """
    counts, means, variances = (np.nan_to_num(np.asarray(field, np.float64)) for field in parts)
    sizes = np.diff(starts, append=len(counts))
    total = np.add.reduceat(counts, starts, axis=0)
    # Distances from a value of the group, so that the variance of a constant column is exactly 0.
    first = means[starts]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        share = counts / np.repeat(total, sizes, axis=0)
        mean = first + np.add.reduceat(share * (means - np.repeat(first, sizes, axis=0)), starts, axis=0)
        distance = means - np.repeat(mean, sizes, axis=0)
        variance = np.add.reduceat(share * (variances + distance * distance), starts, axis=0)
    nothing = ~np.any(total.reshape(len(total), -1), axis=1)
    mean[nothing], variance[nothing] = 0.0, 0.0
    return MomentsAccumulator(total, mean, variance)


def _padded(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(array, np.float64)
    if array.shape == shape:
        return array
    if array.ndim == 0:
        # TFT's empty accumulator has a single count for any shape.
        return np.full(shape, array)
    return np.pad(array, [(0, wide - narrow) for narrow, wide in zip(array.shape, shape, strict=True)])
