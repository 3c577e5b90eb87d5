"""Metrics of binary predictions, all computed from counts.

Rows are grouped into *cells*: the distinct scores in ascending order, each with its number of rows of class 0 and of
class 1. Every metric is a function of these counts, so that a resample of the rows is nothing but other counts over the
same cells: it needs no sorting, and hundreds of resamples are one array operation.

Ties are handled as scikit-learn does: rows of equal score are one step of the ROC and the precision-recall curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from tidemill.experiment.evaluation import Metric

METRICS: tuple[str, ...] = get_args(Metric)
CALIBRATION_BINS = 10
NAMES = {
    "auc": "AUC",
    "pr_auc": "PR-AUC",
    "log_loss": "log loss",
    "normalized_entropy": "normalised entropy",
    "calibration": "calibration",
    "ece": "ECE",
    "accuracy": "accuracy",
}
_EPSILON = float(np.finfo(np.float64).eps)

_GOODNESS = {
    "auc": lambda value: value,
    "pr_auc": lambda value: value,
    "log_loss": lambda value: -value,
    "normalized_entropy": lambda value: -value,
    "calibration": lambda value: -np.abs(value - 1),
    "ece": lambda value: -value,
    "accuracy": lambda value: value,
}


def goodness(metric: str, value):
    """The metric turned so that more is better: log loss, normalised entropy and ECE change their sign, and calibration
    becomes minus its distance from 1.

    Args:
        metric: One of `METRICS`.
        value: A number or an array.
    """
    return _GOODNESS[metric](value)


def mean(metric: str, values: Sequence[float]) -> float:
    """A metric's mean over labels. That of calibration is 1 plus the mean distance from 1: scores that are too high for
    one label do not make up for scores that are too low for another."""
    if metric == "calibration":
        return float(1 + np.mean(np.abs(np.asarray(values) - 1)))
    return float(np.mean(values))


def undefined(metric: str, rows: int, positives: int) -> str | None:
    """Why the metric does not exist for so many rows, of which so many are of class 1. None where it exists."""
    if rows == 0:
        return "no rows"
    if metric in ("auc", "normalized_entropy") and positives in (0, rows):
        return f"all rows are of class {int(positives > 0)}"
    if metric in ("pr_auc", "calibration") and positives == 0:
        return "no row is of class 1"
    return None


@dataclass(frozen=True)
class Cells:
    """Rows grouped by score, in ascending order of the score. K is the number of cells.

    Attributes:
        index: [rows] int32, the cell of each row.
        labels: [rows] int8, 0 or 1.
        score: [2, K] float64, mean score of the cell's rows of class 0 and 1 (0 where it has none).
        loss: [2, K] float64, likewise the mean log loss, in nats.
        above: [2, K] float64, likewise the share of rows with a score of at least the threshold.
        top: [K] float64, the cell's highest score.
        bin_starts: [bins] int64, the first cell of each calibration bin.
        counts: [2, K] float64, rows of class 0 and 1.
    """

    index: np.ndarray
    labels: np.ndarray
    score: np.ndarray
    loss: np.ndarray
    above: np.ndarray
    top: np.ndarray
    bin_starts: np.ndarray
    counts: np.ndarray


def group(labels: np.ndarray, scores: np.ndarray, threshold: float = 0.5, max_cells: int | None = None) -> Cells:
    """Groups rows into cells.

    Args:
        labels: [rows], 0 or 1, of any numeric or boolean type.
        scores: [rows], probabilities of class 1.
        threshold: Score from which on a row counts as positive. Defaults to 0.5.
        max_cells: With more distinct scores than this, neighbours are put together into so many cells of equal
            frequency. Defaults to no limit, which makes all metrics exact.
    """
    labels = np.asarray(labels).astype(np.int8)
    scores = np.asarray(scores, np.float64)
    distinct, index, rows = np.unique(scores, return_inverse=True, return_counts=True)
    top = distinct
    if max_cells is not None and len(distinct) > max_cells:
        middle = np.cumsum(rows) - rows / 2
        merged = np.unique((middle * (max_cells / len(scores))).astype(np.int64), return_inverse=True)[1]
        index = merged[index]
        top = distinct[np.append(np.flatnonzero(np.diff(merged)), len(distinct) - 1)]
    width = len(top)

    def per_cell(values: np.ndarray | None) -> np.ndarray:
        flat = np.bincount(labels * np.int64(width) + index, weights=values, minlength=2 * width)
        return flat.reshape(2, width).astype(np.float64)

    counts = per_cell(None)
    some = np.maximum(counts, 1)
    return Cells(
        index=index.astype(np.int32),
        labels=labels,
        score=per_cell(scores) / some,
        loss=per_cell(row_log_loss(labels, scores)) / some,
        above=per_cell((scores >= threshold).astype(np.float64)) / some,
        top=top,
        bin_starts=_bin_starts(scores, top),
        counts=counts,
    )


def row_log_loss(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Log loss of each row in nats, [rows] float64; scores are clipped to [eps, 1 - eps] of float64."""
    clipped = np.clip(np.asarray(scores, np.float64), _EPSILON, 1 - _EPSILON)
    return -np.where(np.asarray(labels) == 1, np.log(clipped), np.log1p(-clipped))


def calibration_bins(scores: np.ndarray, bins: int = CALIBRATION_BINS) -> np.ndarray:
    """The inner edges of equal-frequency bins, [bins - 1] float64. A score is in the first bin whose edge it does not
    exceed, so that equal scores share a bin (scikit-learn's `calibration_curve` with `strategy="quantile"`)."""
    return np.quantile(scores, np.linspace(0, 1, bins + 1)[1:-1]) if len(scores) else np.empty(0)


def _bin_starts(scores: np.ndarray, top: np.ndarray) -> np.ndarray:
    bins = np.searchsorted(calibration_bins(scores), top)
    return np.flatnonzero(np.diff(bins, prepend=-1))


def measure(cells: Cells, counts: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """All metrics of one or many sets of counts over the same cells.

    Args:
        cells: The cells.
        counts: [..., 2, K], rows of class 0 and 1 in each cell. Defaults to the cells' own.

    Returns:
        For each of `METRICS` an array [...] of float64, NaN where the metric does not exist (see `undefined`).

        - auc: area under the ROC curve.
        - pr_auc: average precision.
        - log_loss: mean log loss in nats.
        - normalized_entropy: log loss over the entropy of the base rate (He et al., 2014, ADKDD); below 1 is better
          than predicting the base rate.
        - calibration: mean prediction over base rate (ibid.).
        - ece: expected calibration error, the mean over ten equal-frequency bins of |mean score - share of class 1|,
          weighted by rows (Naeini et al., 2015, AAAI).
        - accuracy: share of rows on the right side of the threshold.
    """
    counts = cells.counts if counts is None else counts
    negatives, positives = counts[..., 0, :], counts[..., 1, :]
    total_negatives, total_positives = negatives.sum(-1), positives.sum(-1)
    total = total_negatives + total_positives
    with np.errstate(divide="ignore", invalid="ignore"):
        base_rate = total_positives / total
        entropy = -(base_rate * np.log(base_rate) + (1 - base_rate) * np.log1p(-base_rate))
        log_loss = _weighted(counts, cells.loss) / total
        below = np.cumsum(negatives, -1) - negatives / 2
        values = {
            "auc": (positives * below).sum(-1) / (total_positives * total_negatives),
            "pr_auc": _average_precision(positives, negatives) / total_positives,
            "log_loss": log_loss,
            "normalized_entropy": log_loss / entropy,
            "calibration": _weighted(counts, cells.score) / total_positives,
            "ece": _calibration_gap(cells, counts) / total,
            "accuracy": (_weighted(positives, cells.above[1]) + _weighted(negatives, 1 - cells.above[0])) / total,
        }
    return {name: np.where(np.isfinite(value), value, np.nan) for name, value in values.items()}


def _weighted(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    axes = tuple(range(counts.ndim - values.ndim, counts.ndim))
    return (counts * values).sum(axis=axes)


def _average_precision(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Sum over the cells from the top of (class-1 rows in the cell) * (precision at its score)."""
    hits = np.cumsum(positives[..., ::-1], -1)
    called = np.cumsum((positives + negatives)[..., ::-1], -1)
    precision = np.divide(hits, called, out=np.zeros_like(hits, dtype=np.float64), where=called > 0)
    return (positives[..., ::-1] * precision).sum(-1)


def _calibration_gap(cells: Cells, counts: np.ndarray) -> np.ndarray:
    if not len(cells.bin_starts):
        return np.zeros(counts.shape[:-2])
    gaps = (counts * cells.score).sum(-2) - counts[..., 1, :]
    return np.abs(np.add.reduceat(gaps, cells.bin_starts, axis=-1)).sum(-1)


def confusion(labels: np.ndarray, scores: np.ndarray, threshold: float) -> list[list[int]]:
    """The confusion matrix `[[tn, fp], [fn, tp]]`; a row counts as positive from the threshold on."""
    called = np.asarray(scores) >= threshold
    flat = np.bincount(np.asarray(labels).astype(np.int64) * 2 + called, minlength=4)
    return flat.reshape(2, 2).tolist()
