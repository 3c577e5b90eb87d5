"""Counts at many thresholds, from which the report computes the confusion matrix at each of them."""

from __future__ import annotations

import numpy as np

from tidemill.artifacts.evaluation_artifact import ThresholdCounts

STEPS = 1000
"""Thresholds with three digits after the point are among those that are counted."""
QUANTILES = 500
_DIGITS = 6


def count(labels: np.ndarray, scores: np.ndarray, threshold: float) -> ThresholdCounts:
    """Returns the rows of each class with a score of at least each of many thresholds.

    The thresholds are multiples of 0.001, quantiles of the scores rounded to six digits, and `threshold`.

    Args:
        labels: [rows], 0 or 1.
        scores: [rows], probabilities of class 1.
        threshold: A threshold that is among the result's.
    """
    grid = np.arange(STEPS + 1) / STEPS
    quantiles = np.quantile(scores, np.linspace(0, 1, QUANTILES), method="nearest") if len(scores) else np.empty(0)
    rounded = [float(f"{value:.{_DIGITS}g}") for value in np.unique(quantiles)]
    thresholds = np.unique(np.concatenate([grid, np.clip(rounded, 0, 1), [threshold]]))
    positives, negatives = (np.sort(scores[np.asarray(labels) == c]) for c in (1, 0))
    return {
        "threshold": thresholds.tolist(),
        "true_positives": (len(positives) - np.searchsorted(positives, thresholds)).tolist(),
        "false_positives": (len(negatives) - np.searchsorted(negatives, thresholds)).tolist(),
    }
