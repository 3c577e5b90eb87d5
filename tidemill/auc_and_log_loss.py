"""AUC and log loss of binary labels.

These two metrics are cheap enough to compute after every boosting round. `tidemill.evaluation.metric_values` builds all
metrics of a report on the same formulas.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

METRICS = ("auc", "log_loss")
_EPSILON = float(np.finfo(np.float64).eps)


def row_log_loss(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the log loss of each row in nats, [rows] float64.

    Args:
        labels: [rows], 0 or 1.
        scores: [rows], probabilities of class 1. They are clipped to [eps, 1 - eps] of float64.
    """
    clipped = np.clip(np.asarray(scores, np.float64), _EPSILON, 1 - _EPSILON)
    return -np.where(np.asarray(labels) > 0, np.log(clipped), np.log1p(-clipped))


def log_loss(labels: np.ndarray, scores: np.ndarray) -> float:
    """Returns the mean log loss in nats. Arguments as for `row_log_loss`."""
    return float(row_log_loss(labels, scores).mean())


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Returns the area under the ROC curve, or NaN if all labels are equal. Ties count half.

    Args:
        labels: [rows], 0 or 1.
        scores: [rows], any numbers that order the rows.
    """
    order = np.argsort(scores)
    scores, labels = scores[order], labels[order] > 0
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    positives = np.diff(np.cumsum(labels)[ends], prepend=0).astype(np.float64)
    negatives = np.diff(ends, prepend=-1) - positives
    return float(auc_of_counts(negatives, positives))


def auc_of_counts(negatives: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Returns the area under the ROC curve for rows that are grouped by score.

    Args:
        negatives: [..., groups] float64, rows of class 0 in each group, in ascending order of the score.
        positives: [..., groups] float64, rows of class 1 in each group.

    Returns:
        [...] float64, NaN without rows of both classes.
    """
    below = np.cumsum(negatives, -1) - negatives / 2
    pairs = positives.sum(-1) * negatives.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (positives * below).sum(-1) / pairs


def measure(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Returns `auc` and `log_loss` by name: without `auc` if all labels are equal, and empty without rows."""
    if not len(labels):
        return {}
    values = {"auc": auc(labels, scores), "log_loss": log_loss(labels, scores)}
    return {name: value for name, value in values.items() if not np.isnan(value)}


def measure_labels(names: Sequence[str], labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Returns the metrics of one or several labels.

    Args:
        names: The labels' names.
        labels: [rows, labels], 0 or 1.
        scores: [rows, labels], probabilities of class 1.

    Returns:
        For one label, the result of `measure`. For several, `auc` and `log_loss` are means over the labels, each
        present only if every label has it; `auc_<name>` and `log_loss_<name>` are the metrics of each label.
    """
    by_label = {name: measure(labels[:, i], scores[:, i]) for i, name in enumerate(names)}
    if len(names) == 1:
        return by_label[names[0]]
    shared = [metric for metric in METRICS if all(metric in values for values in by_label.values())]
    means = {metric: float(np.mean([values[metric] for values in by_label.values()])) for metric in shared}
    return means | {f"{metric}_{name}": value for name, values in by_label.items() for metric, value in values.items()}


def is_better(metric: str, value: float, other: float) -> bool:
    """Returns whether `value` is strictly better than `other`."""
    return value < other if metric == "log_loss" else value > other
