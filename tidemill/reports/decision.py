"""The confusion matrix of a report at a threshold that its reader can move.

The page holds the counts at many thresholds. Its script computes all other numbers from them, as this module does for
the threshold that the page starts with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tidemill.artifacts.evaluation_artifact import LabelMetrics


def decision(part: LabelMetrics, threshold: float) -> dict[str, Any]:
    """Returns the content of the section.

    Args:
        part: The measurements of one label.
        threshold: The experiment's threshold.

    Returns:
        `threshold`, `matrix`, `rates` (name, meaning and text of each number), and `counts`, the data of the script:
        None if the evaluation is of an earlier version.
    """
    (tn, fp), (fn, tp) = part["confusion"]
    counts = part.get("thresholds")
    return {
        "threshold": threshold,
        "matrix": _matrix(part["confusion"]),
        "rates": _rates(tn, fp, fn, tp),
        "counts": None if counts is None else {**counts, "negatives": tn + fp, "positives": fn + tp},
    }


def _matrix(confusion: Sequence[Sequence[int]]) -> list[list[dict[str, Any]]]:
    """Returns the confusion matrix with the share of each cell in its row and the shade of its color."""
    result = []
    for names, row in zip((("tn", "fp"), ("fn", "tp")), confusion, strict=True):
        total = max(sum(row), 1)
        shares = [n / total for n in row]
        cells = zip(names, row, shares, strict=True)
        result.append([{"name": k, "rows": n, "share": s, "shade": round(0.05 + 0.5 * s, 3)} for k, n, s in cells])
    return result


def _rates(tn: int, fp: int, fn: int, tp: int) -> list[dict[str, str]]:
    """Returns the numbers below the matrix. A number that does not exist is a dash."""
    rows, predicted, positives = tn + fp + fn + tp, tp + fp, tp + fn

    def text(numerator: float, denominator: float) -> str:
        return f"{numerator / denominator:.4f}" if denominator else "\N{EN DASH}"

    rates = {
        "precision": (text(tp, predicted), "share of class 1 among rows that are predicted 1"),
        "recall": (text(tp, positives), "share of rows predicted 1 among class 1"),
        "F1": (text(2 * tp, 2 * tp + fp + fn), "harmonic mean of precision and recall"),
        "lift": (text(tp * rows, predicted * positives), "precision divided by the share of class 1 in all rows"),
        "predicted 1": (text(predicted, rows), "share of rows predicted 1"),
    }
    return [{"name": name, "text": value, "meaning": meaning} for name, (value, meaning) in rates.items()]
