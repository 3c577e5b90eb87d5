"""The page that compares the members of a run."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from tidemill.evaluation import plots
from tidemill.evaluation.metrics import METRICS, goodness
from tidemill.evaluation.plots import Series
from tidemill.evaluation.report import drawn, environment, metric_display

_STYLES = ("c1", "c2", "c3", "c4", "c5", "c6")
_CURVES = (
    ("ROC", "roc", ("false positive rate", "true positive rate"), True),
    ("Precision-recall", "precision_recall", ("recall", "precision"), False),
)


def render(evaluations: Sequence[str], *, published: str | None = None) -> str:
    """The page.

    Args:
        evaluations: Folders of the members' evaluations, at least one.
        published: Name of the member that is published; None where none is.

    Returns:
        HTML.
    """
    documents = [json.loads((Path(path) / "metrics.json").read_text(encoding="utf-8")) for path in evaluations]
    documents.sort(key=_rank, reverse=True)
    first = documents[0]
    objective = metric_display(first["objective"]["metric"])
    estimates = [d["test"]["metrics"][objective["key"]] for d in documents]
    ends = [e[k] for e in estimates for k in ("low", "value", "high") if e[k] is not None]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    rows = [
        {
            "name": d["name"],
            "family": d["family"],
            "blessed": d["blessed"],
            "reasons": d["reasons"],
            "objective": d["objective"]["value"],
            "metrics": d["test"]["metrics"],
            "style": _STYLES[i % len(_STYLES)],
            "bar": plots.interval_bar(estimates[i], low, high, None, _STYLES[i % len(_STYLES)]),
        }
        for i, d in enumerate(documents)
    ]
    return (
        environment()
        .get_template("leaderboard.html.jinja")
        .render(
            experiment=first["experiment"],
            label=first["label"],
            published=published,
            objective=objective,
            others=[metric_display(m) for m in METRICS if m != objective["key"]],
            rows=rows,
            curves=_curves(documents),
            test_rows=first["test"]["rows"],
            resamples=first["resamples"],
            confidence=first["confidence"],
        )
    )


def write(path: str, evaluations: Sequence[str], *, published: str | None = None) -> None:
    """Writes the page to a file, under a temporary name and renamed."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.write_text(render(evaluations, published=published), encoding="utf-8")
    os.replace(partial, target)


def _rank(document: dict) -> float:
    value = document["objective"]["value"]
    return -math.inf if value is None else float(goodness(document["objective"]["metric"], value))


def _curves(documents: list[dict]) -> list[tuple[str, str]]:
    found = []
    for title, key, labels, diagonal in _CURVES:
        series = [
            Series(d["name"], _STYLES[i % len(_STYLES)], drawn(key, d["curves"]["model"]))
            for i, d in enumerate(documents)
        ]
        if any(each.points for each in series):
            found.append((title, plots.lines(series, (0, 1), (0, 1), labels, title, diagonal)))
    bins = [
        (Series(d["name"], _STYLES[i % len(_STYLES)], [(p["score"], p["share"]) for p in c], dots=True), c)
        for i, d in enumerate(documents)
        for c in [d["curves"]["model"]["calibration"]]
    ]
    return [*found, ("Calibration", plots.calibration(bins))]
