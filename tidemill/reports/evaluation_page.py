"""The report of one evaluated model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup

from tidemill.artifacts.evaluation_artifact import (
    Estimate,
    EvaluationDocument,
    LabelMetrics,
    ModelCurves,
    SliceMetrics,
    Slicing,
    by_label,
)
from tidemill.metric_definitions import METRICS, name_of
from tidemill.reports import plots
from tidemill.reports.decision import decision
from tidemill.reports.model_settings import settings
from tidemill.reports.plots import Series
from tidemill.reports.templates import environment, metric_display, verdict

_MAX_DOTS = 15


def read_model(folder: str) -> dict[str, Any]:
    """Returns the parts of a model folder that the report shows.

    Returns:
        `model`: the content of `model.json`; `history`: that of `history.json`; None for a missing file.
    """
    content = {}
    for key in ("model", "history"):
        file = Path(folder) / f"{key}.json"
        content[key] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return content


def render(document: EvaluationDocument, model: Mapping[str, Any]) -> str:
    """Returns the page as HTML.

    Args:
        document: The content of `metrics.json`.
        model: The result of `read_model`.
    """
    main = metric_display(document["objective"]["metric"])
    training = training_curves(model["history"])
    return (
        environment()
        .get_template("evaluation.html.jinja")
        .render(
            d=document,
            labels=[_label(label, part, main, document["threshold"]) for label, part in by_label(document).items()],
            metrics=[metric_display(key) for key in METRICS],
            main=main,
            training=training,
            training_plot=_training_plot(training),
            settings=settings(model["model"] or {}),
        )
    )


def _label(label: str, part: LabelMetrics, main: dict[str, Any], threshold: float) -> dict[str, Any]:
    """Returns the content of the page for one label."""
    baseline = part["test"].get("baseline")
    compared = baseline is not None and "skipped" not in baseline
    return {
        "label": label,
        "part": part,
        "compared": compared,
        "version": baseline["uri"].rstrip("/").rsplit("/", 1)[-1] if baseline and "uri" in baseline else None,
        "legend": [("model", "this model"), ("baseline", "published")] if compared else [],
        "plots": _plots(part["curves"]),
        "decision": decision(part, threshold),
        "slicings": [_slicing(part, slicing, main["key"], compared) for slicing in part["slices"]],
        "failed": [check for check in part["gates"] if not check["holds"]],
    }


def _plots(curves: ModelCurves) -> dict[str, Markup | None]:
    """Returns the plots of a label. ROC and precision-recall are None if a class is missing."""
    models = [("model", curves["model"])]
    if curves["baseline"] is not None:
        models.append(("baseline", curves["baseline"]))

    def unit_square(
        key: Literal["roc", "precision_recall"], labels: tuple[str, str], title: str, diagonal: bool
    ) -> Markup | None:
        if not curves["model"][key]:
            return None
        series = [Series(style, style, plots.points_of(key, each)) for style, each in models]
        return plots.lines(series, (0, 1), (0, 1), labels, title, diagonal)

    return {
        "roc": unit_square("roc", ("false positive rate", "true positive rate"), "ROC curve", True),
        "precision_recall": unit_square("precision_recall", ("recall", "precision"), "Precision-recall curve", False),
        "calibration": plots.calibration([(style, style, each["calibration"]) for style, each in models]),
        "histogram": plots.histogram(curves["model"]["histogram"]),
    }


def training_curves(history: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Returns the training curves of a model.

    Args:
        history: The content of `history.json`, or None.

    Returns:
        `metric` and `unit` (texts of the axes), `kept` (the step whose weights the model has), `series` (train and
        valid) and `legend`. None if the history has no metric.
    """
    if not history or not (entries := history.get("entries")):
        return None
    splits = ("train", "valid")
    metric = next((m for m in ("log_loss", "auc") if any(m in e[s] for e in entries for s in splits)), None)
    if metric is None:
        return None
    series = []
    for split in splits:
        points = [(e["step"], e[split][metric]) for e in entries if e[split].get(metric) is not None]
        if points:
            series.append(Series(split, split, points, dots=len(points) <= _MAX_DOTS))
    return {
        "metric": name_of(metric),
        "unit": history["unit"],
        "kept": history.get("kept"),
        "series": series,
        "legend": [(each.style, each.name) for each in series],
    }


def _training_plot(curves: Mapping[str, Any] | None) -> Markup | None:
    if curves is None:
        return None
    points = [p for each in curves["series"] for p in each.points]
    values = [v for _, v in points]
    margin = (max(values) - min(values)) * 0.06
    last = max(step for step, _ in points)
    axes = plots.Axes(
        (min(1, last - 1), last), (min(values) - margin, max(values) + margin), curves["unit"], curves["metric"]
    )
    if curves["kept"]:
        axes.guide((curves["kept"], axes.y[0]), (curves["kept"], axes.y[1]))
    for each in curves["series"]:
        axes.line(each)
    return axes.svg("Training")


def _slicing(part: LabelMetrics, slicing: Slicing, metric: str, compared: bool) -> dict[str, Any]:
    """Returns one table of slices: all rows of the test split first, then each slice."""
    whole: SliceMetrics = {**part["test"], "name": "all rows", "values": None}
    rows = [whole, *slicing["slices"]]
    values = [row["metrics"][metric] for row in rows]
    gains = [_gain(row, metric) for row in rows] if compared else []
    low, high = _range(values)
    gain_low, gain_high = _range([*gains, *(Estimate(value=v, low=None, high=None) for v in (-1e-3, 1e-3))])
    shown = []
    for i, row in enumerate(rows):
        bar = plots.interval_bar(values[i], low, high, values[0]["value"])
        gain_bar = plots.interval_bar(gains[i], gain_low, gain_high, 0.0, verdict(gains[i])) if compared else None
        name = _slice_name(row, slicing)
        shown.append({**row, "all": i == 0, "name": name, "bar": bar, "gain_bar": gain_bar})
    return {"title": ", ".join(slicing["columns"]), "rows": shown}


def _gain(row: SliceMetrics, metric: str) -> Estimate:
    baseline = row.get("baseline")
    assert baseline is not None and "gain" in baseline
    return baseline["gain"][metric]


def _slice_name(row: SliceMetrics, slicing: Slicing) -> str:
    values = row["values"]
    return ", ".join(values) if values and len(slicing["columns"]) == len(values) else row["name"]


def _range(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Returns the range of values and interval ends.

    An interval wider than 20 times the narrowest one, of a very small slice, is left out, so that the others stay
    legible.
    """
    values = [e["value"] for e in estimates if e["value"] is not None]
    intervals = [(e["low"], e["high"]) for e in estimates if e["low"] is not None and e["high"] is not None]
    widest = 20 * min((high - low for low, high in intervals if high > low), default=0.0)
    ends = values + [end for low, high in intervals if high - low <= widest for end in (low, high)]
    return min(ends, default=0.0), max(ends, default=1.0)
