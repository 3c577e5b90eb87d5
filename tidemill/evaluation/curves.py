"""The curves of a report, thinned to a few hundred points."""

from __future__ import annotations

import math

import numpy as np

from tidemill.artifacts.evaluation_artifact import CalibrationBin, Histogram
from tidemill.evaluation.metric_values import Cells, calibration_bins

MAX_POINTS = 200
HISTOGRAM_BINS = 40
_Z = 1.959963984540054


def roc(cells: Cells, max_points: int = MAX_POINTS) -> list[tuple[float, float, float]]:
    """Returns the ROC curve.

    Args:
        cells: Exact cells (grouped without `max_cells`).
        max_points: Maximum number of points, spread evenly along the curve. Both ends are kept. Defaults to 200.

    Returns:
        Points (false positive rate, true positive rate, threshold) from (0, 0) to (1, 1). A score of at least the
        threshold counts as positive. The first threshold, which no score reaches, is 1. Empty if a class is missing.
    """
    hits, alarms = _cumulative_counts(cells)
    if not len(hits) or not hits[-1] or not alarms[-1]:
        return []
    x, y = np.append(0, alarms / alarms[-1]), np.append(0, hits / hits[-1])
    thresholds = np.append(1.0, cells.top[::-1])
    keep = _thin(np.abs(np.diff(x)) + np.abs(np.diff(y)), max_points)
    return [(float(x[i]), float(y[i]), float(thresholds[i])) for i in keep]


def precision_recall(cells: Cells, max_points: int = MAX_POINTS) -> list[tuple[float, float, float]]:
    """Returns the precision-recall curve: points (recall, precision, threshold) by descending threshold.

    It is empty if class 1 is missing.

    Args:
        cells: Exact cells (grouped without `max_cells`).
        max_points: Maximum number of points. Defaults to 200.
    """
    hits, alarms = _cumulative_counts(cells)
    if not len(hits) or not hits[-1]:
        return []
    recall, precision = hits / hits[-1], hits / (hits + alarms)
    thresholds = cells.top[::-1]
    keep = _thin(np.abs(np.diff(recall)) + np.abs(np.diff(precision)) / 4, max_points)
    return [(float(recall[i]), float(precision[i]), float(thresholds[i])) for i in keep]


def _cumulative_counts(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of class 1 and of class 0 with at least each score, from the highest score down, [K]."""
    return np.cumsum(cells.counts[1, ::-1]), np.cumsum(cells.counts[0, ::-1])


def _thin(steps: np.ndarray, max_points: int) -> np.ndarray:
    """Returns the indices of at most `max_points` points, spread evenly along a curve with these step lengths.

    The first and the last point are always among them.
    """
    if len(steps) + 1 <= max_points:
        return np.arange(len(steps) + 1)
    length = np.append(0, np.cumsum(steps))
    return np.unique(np.append(np.searchsorted(length, np.linspace(0, length[-1], max_points - 1)), len(steps)))


def calibration(labels: np.ndarray, scores: np.ndarray) -> list[CalibrationBin]:
    """Returns the calibration curve: one entry for each equal-frequency bin of the score that has rows.

    The interval of the share of class 1 is the Wilson interval of 95 %.

    Args:
        labels: [rows], 0 or 1.
        scores: [rows], probabilities of class 1.
    """
    bins = np.searchsorted(calibration_bins(scores), scores)
    rows = np.bincount(bins)
    hits = np.bincount(bins, weights=labels)
    means = np.bincount(bins, weights=scores) / np.maximum(rows, 1)
    points: list[CalibrationBin] = []
    for k in np.flatnonzero(rows):
        low, high = _wilson(float(hits[k]), int(rows[k]))
        share = float(hits[k] / rows[k])
        points.append({"score": float(means[k]), "share": share, "low": low, "high": high, "rows": int(rows[k])})
    return points


def _wilson(hits: float, rows: int) -> tuple[float, float]:
    share, z2 = hits / rows, _Z * _Z
    center = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = _Z * math.sqrt(share * (1 - share) / rows + z2 / (4 * rows * rows)) / (1 + z2 / rows)
    return max(0.0, center - half), min(1.0, center + half)


def histogram(labels: np.ndarray, scores: np.ndarray) -> Histogram:
    """Returns the number of rows of each class by score.

    The edges run from 0 to the 99.9 % quantile of the scores; higher scores count in the last bin.

    Args:
        labels: [rows], 0 or 1.
        scores: [rows], probabilities of class 1.
    """
    top = float(np.quantile(scores, 0.999)) if len(scores) else 1.0
    edges = np.linspace(0, min(1.0, max(top, 1e-6)), HISTOGRAM_BINS + 1)
    clipped = np.clip(scores, 0, edges[-1])
    return {
        "edges": edges.tolist(),
        "negatives": np.histogram(clipped[labels == 0], edges)[0].tolist(),
        "positives": np.histogram(clipped[labels == 1], edges)[0].tolist(),
    }
