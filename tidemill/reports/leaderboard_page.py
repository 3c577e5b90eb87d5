"""The leaderboard: the page that compares the members of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tidemill.artifacts.evaluation_artifact import EvaluationDocument, EvaluationFacts, LabelMetrics, by_label
from tidemill.metric_definitions import METRICS
from tidemill.reports import plots
from tidemill.reports.plots import Series
from tidemill.reports.templates import environment, metric_display, style_of


@dataclass(frozen=True)
class Cost:
    """What a member costs. It is not in `metrics.json`, because two trainings of one model differ in it.

    Attributes:
        seconds: Time that the epochs or rounds took, without the export. None if it is unknown, as for ensembles.
        bytes: Size of the exported model.
    """

    seconds: float | None
    bytes: int


def render(
    evaluations: Sequence[EvaluationDocument],
    *,
    published: str | None = None,
    costs: Mapping[str, Cost] | None = None,
) -> str:
    """Returns the page as HTML.

    Args:
        evaluations: The `metrics.json` of each member, at least one.
        published: Name of the published member. Defaults to none.
        costs: Training time and size by member. Defaults to unknown.
    """
    documents = sorted(evaluations, key=lambda document: EvaluationFacts.of(document).rank(), reverse=True)
    first = documents[0]
    objective = metric_display(first["objective"]["metric"])
    metric = first["objective"]["metric"]
    parts = {label: [by_label(document)[label] for document in documents] for label in by_label(first)}
    return (
        environment()
        .get_template("leaderboard.html.jinja")
        .render(
            experiment=first["experiment"],
            labels=list(parts),
            published=published,
            objective=objective,
            others=[metric_display(m) for m in METRICS if m != metric],
            rows=_rows(documents, documents, metric, costs or {}),
            rows_by_label={label: _rows(documents, each, metric, costs or {}) for label, each in parts.items()},
            plots={label: _plots(documents, each) for label, each in parts.items()},
            test_rows=first["test"]["rows"],
            resamples=first["resamples"],
            confidence=first["confidence"],
        )
    )


def _rows(
    documents: Sequence[EvaluationDocument],
    parts: Sequence[Mapping[str, Any]],
    metric: str,
    costs: Mapping[str, Cost],
) -> list[dict[str, Any]]:
    """Returns one row of a table for each member.

    Args:
        documents: The members' documents.
        parts: The documents for the table of all labels, or each member's part for one label.
        metric: The objective.
        costs: Training time and size by member.
    """
    estimates = [part["test"]["metrics"][metric] for part in parts]
    ends = [e[k] for e in estimates for k in ("low", "value", "high") if e[k] is not None]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    return [
        {
            "name": document["name"],
            "family": document["family"],
            "blessed": document["blessed"],
            "reasons": [*document["reasons"], *document.get("warnings", [])],
            "objective": part["objective"]["value"],
            "metrics": part["test"]["metrics"],
            "cost": costs.get(document["name"]),
            "style": style_of(i),
            "bar": plots.interval_bar(estimates[i], low, high, None, style_of(i)),
        }
        for i, (document, part) in enumerate(zip(documents, parts, strict=True))
    ]


def _plots(documents: Sequence[EvaluationDocument], parts: Sequence[LabelMetrics]) -> list[tuple[str, Markup]]:
    """Returns the titles and plots of one label, with one line for each member."""
    members = [
        (document["name"], style_of(i), part["curves"]["model"])
        for i, (document, part) in enumerate(zip(documents, parts, strict=True))
    ]
    roc = [Series(name, style, plots.points_of("roc", curves)) for name, style, curves in members]
    recall = [Series(name, style, plots.points_of("precision_recall", curves)) for name, style, curves in members]
    shown = []
    if any(each.points for each in roc):
        axes = ("false positive rate", "true positive rate")
        shown.append(("ROC", plots.lines(roc, (0, 1), (0, 1), axes, "ROC", diagonal=True)))
    if any(each.points for each in recall):
        axes = ("recall", "precision")
        shown.append(("Precision-recall", plots.lines(recall, (0, 1), (0, 1), axes, "Precision-recall")))
    calibration = plots.calibration([(name, style, curves["calibration"]) for name, style, curves in members])
    return [*shown, ("Calibration", calibration)]
