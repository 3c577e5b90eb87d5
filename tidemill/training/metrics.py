"""The two metrics that training watches. `tidemill.evaluation.metrics` has all of them; these are cheap enough for
every boosting round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

METRICS = ("auc", "log_loss")
_EPSILON = float(np.finfo(np.float64).eps)


def log_loss(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean log loss in nats, scores clipped to [eps, 1 - eps] of float64.

    Args:
        labels: [rows], 0 or 1.
        scores: [rows], probabilities of class 1.
    """
    scores = np.clip(scores, _EPSILON, 1 - _EPSILON)
    return float(-np.where(labels > 0, np.log(scores), np.log1p(-scores)).mean())


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve, ties counted half; NaN where the labels have one class.

    Args:
        labels: [rows], 0 or 1.
        scores: [rows], any number that orders the rows.
    """
    order = np.argsort(scores)
    scores, labels = scores[order], labels[order] > 0
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    positives = np.diff(np.cumsum(labels)[ends], prepend=0).astype(np.float64)
    negatives = np.diff(ends, prepend=-1) - positives
    pairs = positives.sum() * negatives.sum()
    below = np.cumsum(negatives) - negatives / 2
    return float((positives * below).sum() / pairs) if pairs else float("nan")


def measure(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """`auc` and `log_loss` by name; without `auc` where the labels have one class, and empty without rows."""
    if not len(labels):
        return {}
    values = {"auc": auc(labels, scores), "log_loss": log_loss(labels, scores)}
    return {name: value for name, value in values.items() if not np.isnan(value)}


def measure_labels(names: Sequence[str], labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """`auc` and `log_loss` of several labels.

    Args:
        names: The labels' names.
        labels: [rows, labels], 0 or 1.
        scores: [rows, labels], probabilities of class 1.

    Returns:
        As `measure` where there is one label. With several the means over labels, of those metrics that all have, and
        those of each as `auc_<name>` and `log_loss_<name>`.
    """
    each = {name: measure(labels[:, place], scores[:, place]) for place, name in enumerate(names)}
    if len(names) == 1:
        return each[names[0]]
    shared = [metric for metric in METRICS if all(metric in found for found in each.values())]
    means = {metric: float(np.mean([found[metric] for found in each.values()])) for metric in shared}
    return means | {f"{metric}_{name}": value for name, found in each.items() for metric, value in found.items()}


def better(metric: str, value: float, than: float) -> bool:
    """Whether the value is strictly better."""
    return value < than if metric == "log_loss" else value > than
