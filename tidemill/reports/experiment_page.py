"""The experiment report: the members of an ensemble over folds, with their training curves, time and speed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from markupsafe import Markup

from tidemill.artifacts.evaluation_artifact import Estimate
from tidemill.reports import plots
from tidemill.reports.plots import Series
from tidemill.reports.templates import environment, style_of

CONFIDENCE = 0.95
_METRICS = ("auc", "log_loss")
_MAX_DOTS = 30


@dataclass(frozen=True)
class MemberFolds:
    """One member of the ensemble.

    Attributes:
        name: The member's name.
        family: The member's family.
        fold_metrics: `auc` and `log_loss` of each fold; without those that do not exist.
        metrics: The same of all rows together.
        weight: Weight in a stacked ensemble, else None.
        histories: The `history.json` of each fold.
    """

    name: str
    family: str
    fold_metrics: Sequence[Mapping[str, float]]
    metrics: Mapping[str, float]
    weight: float | None
    histories: Sequence[Mapping[str, Any]]


def render(
    name: str,
    label: str,
    method: str,
    folds: int,
    rows: int,
    members: Sequence[MemberFolds],
    ensemble: Mapping[str, float],
) -> str:
    """Returns the page as HTML.

    Args:
        name: The ensemble's name.
        label: The label.
        method: How the ensemble combines its members.
        folds: Number of folds.
        rows: Rows of train.
        members: The members. All metrics are of rows that a model has not seen.
        ensemble: `auc` and `log_loss` of the ensemble.
    """
    return (
        environment()
        .get_template("experiment.html.jinja")
        .render(
            name=name,
            label=label,
            method=method,
            folds=folds,
            confidence=CONFIDENCE,
            rows=[_row(member, style_of(i)) for i, member in enumerate(members)],
            ensemble=ensemble,
            train_rows=rows,
        )
    )


def _row(member: MemberFolds, style: str) -> dict[str, Any]:
    entries = [entry for history in member.histories for entry in history["entries"]]
    speeds = [entry["rows_per_second"] for entry in entries]
    return {
        "name": member.name,
        "family": member.family,
        "style": style,
        "metrics": {m: interval([each[m] for each in member.fold_metrics if m in each]) for m in _METRICS},
        "whole": member.metrics,
        "weight": member.weight,
        "seconds": sum(entry["seconds"] for entry in entries) / len(member.histories),
        "rows_per_second": float(median(speeds)) if speeds else None,
        "curve": _curve(member, style),
    }


def interval(values: Sequence[float]) -> Estimate:
    """Returns the mean over folds with its Student's t interval, which needs two values.

    The interval is narrower than it should be, because the folds share training rows (Bengio & Grandvalet, JMLR 2004).
    """
    if not values:
        return {"value": None, "low": None, "high": None}
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"value": mean, "low": None, "high": None}
    from scipy import stats

    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return {"value": mean, "low": mean - float(half), "high": mean + float(half)}


def _curve(member: MemberFolds, style: str) -> Markup | None:
    """Returns a plot of the valid log loss of each fold; None without a valid split."""
    series = []
    for fold, history in enumerate(member.histories, 1):
        points = [(e["step"], e["valid"]["log_loss"]) for e in history["entries"] if "log_loss" in e["valid"]]
        series.append(Series(f"fold {fold}", style, points, dots=len(points) < _MAX_DOTS))
    points = [point for each in series for point in each.points]
    if not points:
        return None
    x, y = ((min(p[i] for p in points), max(p[i] for p in points)) for i in (0, 1))
    return plots.lines(series, x, y, (member.histories[0]["unit"], "log loss, valid"), member.name, False)
