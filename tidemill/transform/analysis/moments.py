"""Mean and variance of parts, put together in float64.

The formulas are those of Chan, Golub and LeVeque (1979), "Updating formulae and a pairwise algorithm for computing
sample variances", for any number of parts at once; TFT's combiner applies them to two at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """Count, mean and variance of values, three arrays of one shape: an element is a column of values."""

    count: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def merge(parts: Sequence[Moments]) -> Moments:
    """The moments of all values together.

    Args:
        parts: At least one. Where shapes differ, a smaller part has no values in the elements that it lacks.

    Returns:
        Moments in float64. Where an element has no values they are NaN, or 0 if no element has any, as TFT has it.
    """
    filled = [part for part in parts if np.any(part.count)] or list(parts[-1:])
    shape = tuple(np.max([np.shape(part.mean) for part in filled], axis=0).astype(int))
    stacked = [np.stack([_padded(part[field], shape) for part in filled]) for field in range(3)]
    count, mean, variance = merge_groups(Moments(*stacked), np.zeros(1, np.int64))
    return Moments(count[0], mean[0], variance[0])


def merge_groups(parts: Moments, starts: np.ndarray) -> Moments:
    """The moments of groups of parts.

    Args:
        parts: Arrays `[parts, …]`, group after group. NaN counts as 0.
        starts: `[groups]` where each group begins.

    Returns:
        Arrays `[groups, …]` in float64; see `merge`.
    """
    counts, means, variances = (np.nan_to_num(np.asarray(field, np.float64)) for field in parts)
    sizes = np.diff(starts, append=len(counts))
    total = np.add.reduceat(counts, starts, axis=0)
    # Distances from a value of the group, so that a constant column keeps a variance of 0.
    first = means[starts]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        share = counts / np.repeat(total, sizes, axis=0)
        mean = first + np.add.reduceat(share * (means - np.repeat(first, sizes, axis=0)), starts, axis=0)
        distance = means - np.repeat(mean, sizes, axis=0)
        variance = np.add.reduceat(share * (variances + distance * distance), starts, axis=0)
    nothing = ~np.any(total.reshape(len(total), -1), axis=1)
    mean[nothing], variance[nothing] = 0.0, 0.0
    return Moments(total, mean, variance)


def _padded(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(array, np.float64)
    if array.shape == shape:
        return array
    if array.ndim == 0:
        # TFT's empty accumulator has a single count whatever the shape.
        return np.full(shape, array)
    return np.pad(array, [(0, wide - narrow) for narrow, wide in zip(array.shape, shape, strict=True)])
