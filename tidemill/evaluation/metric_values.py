"""Metrics of binary predictions, computed from counts.

Rows are grouped into *cells*: the distinct scores in ascending order, each with its number of rows of class 0 and of
class 1. Every metric is a function of these counts. A resample of the rows is another set of counts over the same
cells, so it needs no sorting, and hundreds of resamples are one array operation.

Ties are handled as in scikit-learn: rows of equal score are one step of the ROC and the precision-recall curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidemill.auc_and_log_loss import row_log_loss

CALIBRATION_BINS = 10


def undefined(metric: str, rows: int, positives: int) -> str | None:
    """Returns why a metric has no value; None if it has one.

    Args:
        metric: One of `tidemill.metric_definitions.METRICS`.
        rows: Number of rows.
        positives: Number of rows of class 1.
    """
    if rows == 0:
        return "no rows"
    if metric in ("auc", "normalized_entropy") and positives in (0, rows):
        return f"all rows are of class {int(positives > 0)}"
    if metric in ("pr_auc", "calibration") and positives == 0:
        return "no row is of class 1"
    return None


@dataclass(frozen=True)
class Cells:
    """Cells: rows grouped by score, in ascending order of the score. K is the number of cells.

    An entry [c, k] is a mean over the rows of class c in cell k; it is 0 if there are none.

    Attributes:
        index: [rows] int32, the cell of each row.
        labels: [rows] int8, 0 or 1.
        score: [2, K] float64, mean score.
        loss: [2, K] float64, mean log loss in nats.
        above: [2, K] float64, share of rows with a score of at least the threshold.
        top: [K] float64, highest score of the cell.
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
        threshold: Lowest score that counts as positive. Defaults to 0.5.
        max_cells: Maximum number of cells. With more distinct scores, neighbors are merged into cells of equal
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
    divisor = np.maximum(counts, 1)
    return Cells(
        index=index.astype(np.int32),
        labels=labels,
        score=per_cell(scores) / divisor,
        loss=per_cell(row_log_loss(labels, scores)) / divisor,
        above=per_cell((scores >= threshold).astype(np.float64)) / divisor,
        top=top,
        bin_starts=_bin_starts(scores, top),
        counts=counts,
    )


def calibration_bins(scores: np.ndarray, bins: int = CALIBRATION_BINS) -> np.ndarray:
    """Returns the inner edges of equal-frequency bins, [bins - 1] float64.

    A score belongs to the first bin whose edge it does not exceed, so equal scores share a bin. scikit-learn's
    `calibration_curve` does the same with `strategy="quantile"`.
    """
    return np.quantile(scores, np.linspace(0, 1, bins + 1)[1:-1]) if len(scores) else np.empty(0)


def _bin_starts(scores: np.ndarray, top: np.ndarray) -> np.ndarray:
    bins = np.searchsorted(calibration_bins(scores), top)
    return np.flatnonzero(np.diff(bins, prepend=-1))


def measure(cells: Cells, counts: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Returns all metrics of one or many sets of counts over the same cells.

    Args:
        cells: The cells.
        counts: [..., 2, K], rows of class 0 and 1 in each cell. Defaults to the counts of the cells themselves.

    Returns:
        Arrays [...] of float64 by metric. A value is NaN if the metric has no value (see `undefined`).

        - auc: area under the ROC curve.
        - pr_auc: average precision.
        - log_loss: mean log loss in nats.
        - normalized_entropy: log loss over the entropy of the base rate (He et al., 2014, ADKDD); below 1 is better
          than predicting the base rate.
        - calibration: mean prediction divided by the base rate (ibid.).
        - ece: expected calibration error, the mean over ten equal-frequency bins of |mean score - share of class 1|,
          weighted by rows (Naeini et al., 2015, AAAI).
        - accuracy: share of rows on the correct side of the threshold.
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
    """Returns the sum over all cells of (rows of class 1) * (precision at the score of the cell)."""
    hits = np.cumsum(positives[..., ::-1], -1)
    predicted = np.cumsum((positives + negatives)[..., ::-1], -1)
    precision = np.divide(hits, predicted, out=np.zeros_like(hits, dtype=np.float64), where=predicted > 0)
    return (positives[..., ::-1] * precision).sum(-1)


def _calibration_gap(cells: Cells, counts: np.ndarray) -> np.ndarray:
    if not len(cells.bin_starts):
        return np.zeros(counts.shape[:-2])
    gaps = (counts * cells.score).sum(-2) - counts[..., 1, :]
    return np.abs(np.add.reduceat(gaps, cells.bin_starts, axis=-1)).sum(-1)


def confusion(labels: np.ndarray, scores: np.ndarray, threshold: float) -> list[list[int]]:
    """Returns the confusion matrix `[[tn, fp], [fn, tp]]`. A score of at least the threshold counts as positive."""
    predicted = np.asarray(scores) >= threshold
    flat = np.bincount(np.asarray(labels).astype(np.int64) * 2 + predicted, minlength=4)
    return flat.reshape(2, 2).tolist()
