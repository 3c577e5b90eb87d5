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
from tidemill.evaluation.report import by_label, drawn, environment, metric_display

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
    labels = list(by_label(first))
    parts = {label: [by_label(document)[label] for document in documents] for label in labels}
    return (
        environment()
        .get_template("leaderboard.html.jinja")
        .render(
            experiment=first["experiment"],
            labels=labels,
            published=published,
            objective=objective,
            others=[metric_display(m) for m in METRICS if m != objective["key"]],
            rows=_rows(documents, documents, objective["key"]),
            of_labels={label: _rows(documents, parts[label], objective["key"]) for label in labels},
            curves={label: _curves(documents, parts[label]) for label in labels},
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


def _rows(documents: list[dict], parts: list[dict], objective: str) -> list[dict]:
    """A row of a table for each member: of all labels where the parts are the documents, else of one."""
    estimates = [part["test"]["metrics"][objective] for part in parts]
    ends = [e[k] for e in estimates for k in ("low", "value", "high") if e[k] is not None]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    return [
        {
            "name": document["name"],
            "family": document["family"],
            "blessed": document["blessed"],
            "reasons": document["reasons"],
            "objective": part["objective"]["value"],
            "metrics": part["test"]["metrics"],
            "style": _STYLES[i % len(_STYLES)],
            "bar": plots.interval_bar(estimates[i], low, high, None, _STYLES[i % len(_STYLES)]),
        }
        for i, (document, part) in enumerate(zip(documents, parts, strict=True))
    ]


def _curves(documents: list[dict], parts: list[dict]) -> list[tuple[str, str]]:
    named = [(document["name"], part["curves"]["model"]) for document, part in zip(documents, parts, strict=True)]
    found = []
    for title, key, labels, diagonal in _CURVES:
        series = [Series(name, _STYLES[i % len(_STYLES)], drawn(key, own)) for i, (name, own) in enumerate(named)]
        if any(each.points for each in series):
            found.append((title, plots.lines(series, (0, 1), (0, 1), labels, title, diagonal)))
    bins = [
        (Series(name, _STYLES[i % len(_STYLES)], [(p["score"], p["share"]) for p in c], dots=True), c)
        for i, (name, own) in enumerate(named)
        for c in [own["calibration"]]
    ]
    return [*found, ("Calibration", plots.calibration(bins))]
