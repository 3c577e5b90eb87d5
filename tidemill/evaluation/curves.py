"""The curves that a report draws, thinned to a few hundred points."""

from __future__ import annotations

import math

import numpy as np

from tidemill.evaluation.metrics import Cells, calibration_bins

MAX_POINTS = 200
HISTOGRAM_BINS = 40
_Z = 1.959963984540054


def roc(cells: Cells, max_points: int = MAX_POINTS) -> list[tuple[float, float, float]]:
    """The ROC curve.

    Args:
        cells: Exact cells (grouped without `max_cells`).
        max_points: Most points; the rest is left out evenly along the curve, the two ends never.

    Returns:
        Points (false positive rate, true positive rate, threshold) from (0, 0) to (1, 1), where rows from the threshold
        on are called positive. The first threshold, which no row reaches, is given as 1. Empty unless both classes are
        there.
    """
    hits, alarms = _from_the_top(cells)
    if not len(hits) or not hits[-1] or not alarms[-1]:
        return []
    x, y = np.append(0, alarms / alarms[-1]), np.append(0, hits / hits[-1])
    thresholds = np.append(1.0, cells.top[::-1])
    keep = _thin(np.abs(np.diff(x)) + np.abs(np.diff(y)), max_points)
    return [(float(x[i]), float(y[i]), float(thresholds[i])) for i in keep]


def precision_recall(cells: Cells, max_points: int = MAX_POINTS) -> list[tuple[float, float, float]]:
    """The precision-recall curve: points (recall, precision, threshold) by falling threshold. Empty without class 1."""
    hits, alarms = _from_the_top(cells)
    if not len(hits) or not hits[-1]:
        return []
    recall, precision = hits / hits[-1], hits / (hits + alarms)
    thresholds = cells.top[::-1]
    keep = _thin(np.abs(np.diff(recall)) + np.abs(np.diff(precision)) / 4, max_points)
    return [(float(recall[i]), float(precision[i]), float(thresholds[i])) for i in keep]


def _from_the_top(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    return np.cumsum(cells.counts[1, ::-1]), np.cumsum(cells.counts[0, ::-1])


def _thin(steps: np.ndarray, most: int) -> np.ndarray:
    """Indices of at most `most` points, evenly along a curve with these step lengths, first and last always kept."""
    if len(steps) + 1 <= most:
        return np.arange(len(steps) + 1)
    length = np.append(0, np.cumsum(steps))
    return np.unique(np.append(np.searchsorted(length, np.linspace(0, length[-1], most - 1)), len(steps)))


def calibration(labels: np.ndarray, scores: np.ndarray) -> list[dict]:
    """The calibration curve over equal-frequency bins of the score.

    Returns:
        For each bin that has rows: `score` (mean score), `share` (of class 1), `low` and `high` (its Wilson interval of
        95 %), `rows`.
    """
    bins = np.searchsorted(calibration_bins(scores), scores)
    rows = np.bincount(bins)
    hits = np.bincount(bins, weights=labels)
    means = np.bincount(bins, weights=scores) / np.maximum(rows, 1)
    points = []
    for k in np.flatnonzero(rows):
        low, high = _wilson(float(hits[k]), int(rows[k]))
        share = float(hits[k] / rows[k])
        points.append({"score": float(means[k]), "share": share, "low": low, "high": high, "rows": int(rows[k])})
    return points


def _wilson(hits: float, rows: int) -> tuple[float, float]:
    share, z2 = hits / rows, _Z * _Z
    centre = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = _Z * math.sqrt(share * (1 - share) / rows + z2 / (4 * rows * rows)) / (1 + z2 / rows)
    return max(0.0, centre - half), min(1.0, centre + half)


def histogram(labels: np.ndarray, scores: np.ndarray) -> dict:
    """Rows of each class by score.

    Returns:
        `edges` [bins + 1] from 0 to where all but one row in a thousand lie (the rest counts in the last bin),
        `negatives` and `positives` [bins] numbers of rows.
    """
    top = float(np.quantile(scores, 0.999)) if len(scores) else 1.0
    edges = np.linspace(0, min(1.0, max(top, 1e-6)), HISTOGRAM_BINS + 1)
    clipped = np.clip(scores, 0, edges[-1])
    return {
        "edges": edges.tolist(),
        "negatives": np.histogram(clipped[labels == 0], edges)[0].tolist(),
        "positives": np.histogram(clipped[labels == 1], edges)[0].tolist(),
    }
