"""The metrics of binary predictions: their names and which direction is better.

`tidemill.evaluation.metric_values` computes them. This module does not import NumPy, because the experiment file needs
the names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar, cast, get_args

if TYPE_CHECKING:
    import numpy as np

Metric = Literal["auc", "pr_auc", "log_loss", "normalized_entropy", "calibration", "ece", "accuracy"]
METRICS: tuple[Metric, ...] = get_args(Metric)
_Value = TypeVar("_Value", float, "np.ndarray")


@dataclass(frozen=True)
class MetricDefinition:
    """One metric.

    Attributes:
        name: The name in texts.
        best: `high`, `low`, or `one` for calibration, whose best value is 1.
    """

    name: str
    best: Literal["high", "low", "one"]


DEFINITIONS: dict[str, MetricDefinition] = {
    "auc": MetricDefinition("AUC", "high"),
    "pr_auc": MetricDefinition("PR-AUC", "high"),
    "log_loss": MetricDefinition("log loss", "low"),
    "normalized_entropy": MetricDefinition("normalized entropy", "low"),
    "calibration": MetricDefinition("calibration", "one"),
    "ece": MetricDefinition("ECE", "low"),
    "accuracy": MetricDefinition("accuracy", "high"),
}


def name_of(metric: str) -> str:
    """Returns the name of a metric in texts, for example `log loss`."""
    return DEFINITIONS[metric].name


def goodness(metric: str, value: _Value) -> _Value:
    """Returns a metric turned so that higher is better.

    Log loss, normalized entropy and ECE change their sign. Calibration becomes minus its distance from 1.

    Args:
        metric: One of `METRICS`.
        value: A number or an array.
    """
    best = DEFINITIONS[metric].best
    if best == "high":
        return value
    turned = -value if best == "low" else -abs(value - 1)
    return cast("_Value", turned)


def mean(metric: str, values: Sequence[float]) -> float:
    """Returns the mean of a metric over labels.

    The mean calibration is 1 plus the mean distance from 1: scores that are too high for one label do not compensate
    for scores that are too low for another.
    """
    if metric == "calibration":
        return 1 + sum(abs(value - 1) for value in values) / len(values)
    return sum(values) / len(values)
