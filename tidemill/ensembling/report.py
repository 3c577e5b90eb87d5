"""The experiment's report: members over folds, their training curves, time and speed."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tidemill.binary_metrics import measure
from tidemill.evaluation import plots
from tidemill.evaluation.plots import Series
from tidemill.evaluation.report import environment
from tidemill.models.core.ensemble_model import EnsembleModel
from tidemill.steps.ensemble import EnsembleSpec

if TYPE_CHECKING:
    from tidemill.ensembling.ensemble import OutOfFold, Trained

CONFIDENCE = 0.95
_STYLES = ("c1", "c2", "c3", "c4", "c5", "c6")
_METRICS = ("auc", "log_loss")


def write(
    path: str,
    spec: EnsembleSpec,
    trained: Mapping[str, Sequence[Trained]],
    found: OutOfFold,
    made: EnsembleModel,
    ensemble: dict[str, float],
) -> None:
    """Writes the page, under a temporary name and renamed.

    Args:
        path: The file.
        spec: Of the ensemble.
        trained: The models by member, in the order of folds.
        found: What they say about rows that they have not seen.
        made: The ensemble.
        ensemble: Its metrics on these rows.
    """
    rows = []
    for place, (name, models) in enumerate(trained.items()):
        histories = [one.history() for one in models]
        by_fold = [
            measure(found.labels[found.folds == one.fold], found.scores[found.folds == one.fold, place])
            for one in models
        ]
        entries = [entry for history in histories for entry in history["entries"]]
        seconds = [sum(entry["seconds"] for entry in history["entries"]) for history in histories]
        speeds = [entry["rows_per_second"] for entry in entries]
        weight = made.combination.weights[place] if made.combination.method == "stack" else None
        rows.append(
            {
                "name": name,
                "family": models[0].model.family,
                "style": _STYLES[place % len(_STYLES)],
                "metrics": {m: interval([each[m] for each in by_fold if m in each]) for m in _METRICS},
                "whole": measure(found.labels, found.scores[:, place]),
                "weight": weight,
                "seconds": sum(seconds) / len(seconds),
                "rows_per_second": float(np.median(speeds)) if speeds else None,
                "curve": _curve(histories, _STYLES[place % len(_STYLES)], name),
            }
        )
    text = (
        environment()
        .get_template("experiment.html.jinja")
        .render(
            name=spec.name,
            label=spec.label,
            method=spec.ensemble.method,
            folds=spec.folds,
            confidence=CONFIDENCE,
            rows=rows,
            ensemble=ensemble,
            train_rows=len(found.labels),
        )
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, target)


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """Mean over folds and the interval of Student's t around it; without one where there are fewer than two values.
    Folds share rows of train, so it is narrower than it should be (Bengio & Grandvalet, JMLR 2004)."""
    if not values:
        return {"value": None, "low": None, "high": None}
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"value": mean, "low": None, "high": None}
    from scipy import stats

    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return {"value": mean, "low": mean - float(half), "high": mean + float(half)}


def _curve(histories: Sequence[dict], style: str, name: str) -> str | None:
    """The valid log loss of each fold by epoch or round, as SVG."""
    series = []
    for fold, history in enumerate(histories, 1):
        points = [(e["step"], e["valid"]["log_loss"]) for e in history["entries"] if "log_loss" in e["valid"]]
        series.append(Series(f"fold {fold}", style, points, dots=len(points) < 30))
    points = [point for each in series for point in each.points]
    if not points:
        return None
    x, y = ((min(p[i] for p in points), max(p[i] for p in points)) for i in (0, 1))
    return plots.lines(series, x, y, (histories[0]["unit"], "log loss, valid"), name, False)
