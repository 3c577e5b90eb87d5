"""HTML report of validation: it shows the data, and why a run stopped."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2
import numpy as np
from markupsafe import Markup
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from tidemill.errors import TidemillError
from tidemill.experiment.source import Leakage
from tidemill.steps.validate import ValidateSpec
from tidemill.validation import charts, leakage, statistics
from tidemill.validation.anomalies import Anomaly
from tidemill.validation.charts import Bar, number, percent
from tidemill.validation.columns import ExampleColumn
from tidemill.validation.comparators import ComparatorResult
from tidemill.validation.drift import Distance
from tidemill.validation.leakage import PAIRED_FEATURES, LeakageReport
from tidemill.validation.lost_values import LostValues
from tidemill.validation.outliers import Outliers
from tidemill.validation.statistics import SplitStatistics
from tidemill.validation.unseen import UnseenShare

_LISTED = 10
_MAX_ANOMALIES = 200


@dataclass(frozen=True)
class Measurements:
    """Results of all measurements of one validation.

    Attributes:
        columns: The columns of the examples.
        splits: Statistics by split.
        chart_edges: For each number, the edges of its chart, float64 [edges].
        schema_given: Whether the user gave the schema.
        schema: The given or the inferred schema.
        anomalies: From `anomalies.find`.
        leakage: Leakage reports by label.
        distances: From `drift.compare`.
        comparisons: From `comparators.compare`.
        unseen: From `unseen.measure`.
        outliers: From `outliers.find`.
        lost: From `lost_values.find`.
        previous: URI of the previous model, if one is compared with.
        previous_missing: Whether that model has no statistics.
        malformed: Number of malformed rows that ingest left out, by table.
    """

    columns: list[ExampleColumn]
    splits: dict[str, SplitStatistics]
    chart_edges: dict[str, np.ndarray]
    schema_given: bool
    schema: schema_pb2.Schema
    anomalies: list[Anomaly]
    leakage: dict[str, LeakageReport]
    distances: list[Distance]
    comparisons: list[ComparatorResult]
    unseen: list[UnseenShare]
    outliers: list[Outliers]
    lost: list[LostValues]
    previous: str | None
    previous_missing: bool
    malformed: dict[str, int]


@dataclass(frozen=True)
class ColumnCard:
    """One column in the report: its texts and its chart."""

    name: str
    kind: str
    role: str
    flags: list[str]
    facts: list[tuple[str, str]]
    missing: list[tuple[str, float]]
    chart: Markup
    axis: tuple[str, str]
    bars: list[Bar]
    distances: list[Distance]
    unseen: list[UnseenShare]
    strengths: list[str]


def render(results: Measurements, spec: ValidateSpec, failures: Sequence[TidemillError]) -> str:
    """Returns the report as one HTML page with inline style and charts.

    Args:
        results: The measurements.
        spec: The step's spec, for the limits.
        failures: The errors of the gates that failed.
    """
    distances: dict[str, list[Distance]] = {}
    for distance in results.distances:
        distances.setdefault(distance.feature, []).append(distance)
    cards = [_card(column, results, distances.get(column.name, [])) for column in results.columns]
    features = [card for card in cards if card.role == "feature"]
    return _template().render(
        splits={name: split.proto.num_examples for name, split in results.splits.items()},
        rates=_label_rates(results),
        failures=failures,
        anomalies=results.anomalies[:_MAX_ANOMALIES],
        hidden_anomalies=max(len(results.anomalies) - _MAX_ANOMALIES, 0),
        errors=sum(a.severity == "ERROR" for a in results.anomalies),
        warnings=sum(a.severity == "WARNING" for a in results.anomalies),
        schema_given=results.schema_given,
        leakage={
            label: (report, _strengths(report, spec.leakage), pair_note(report, spec.leakage))
            for label, report in results.leakage.items()
        },
        limit=spec.leakage.max_strength,
        paired_features=PAIRED_FEATURES,
        distances=sorted(results.distances, key=lambda d: (-d.distance, d.feature, d.other))[:_LISTED],
        unseen=[u for u in results.unseen if u.rows or u.threshold is not None][:_LISTED],
        outliers=results.outliers,
        lost=results.lost,
        previous=results.previous,
        previous_missing=results.previous_missing,
        malformed=results.malformed,
        features=sorted(features, key=lambda card: -len(card.flags)),
        others=[card for card in cards if card.role != "feature"],
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tidemill.validation", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"percent": percent, "number": number}
    return environment.get_template("validation.html.jinja")


def _strengths(report: LeakageReport, settings: Leakage) -> list[tuple[str, float, bool]]:
    """Returns name, area under the ROC curve and whether it leaks for the strongest features, the leaks first."""
    leaks = {s.feature for s in report.leaks}
    named = [(f"{s.feature} with {s.partner}" if s.partner else s.feature, s.auc, True) for s in report.leaks]
    rest = [
        (f"{s.feature} (allowed)" if s.feature in settings.allow else s.feature, s.auc, False)
        for s in report.alone
        if s.feature not in leaks
    ]
    return named + rest[: max(_LISTED - len(named), 3)]


def pair_note(report: LeakageReport, settings: Leakage) -> str:
    """Returns a sentence about the strongest pair: its strength, and why it is a leak or not. Empty without pairs."""
    if not report.pairs:
        return ""
    pair = report.pairs[0]
    alone = {s.feature: s for s in report.alone}
    better = max((alone[name] for name in (pair.feature, pair.partner) if name in alone), key=lambda s: s.auc)
    names, limit = {pair.feature, pair.partner}, settings.max_strength
    low = pair.auc - leakage.ERRORS * pair.error
    if any(leak.partner is not None and {leak.feature, leak.partner} == names for leak in report.leaks):
        reason = f"more than the limit {limit:g}: a leak"
    elif low <= limit:
        reason = f"{low:.3f} after two standard errors are subtracted, not more than the limit {limit:g}"
    else:
        reason = (
            f"no leak, although it is more than the limit {limit:g}, because {better.feature} alone has "
            f"{better.auc:.3f}: a pair leaks if it ranks at most half as many pairs of rows wrongly"
        )
    return f"The strongest pair is {pair.feature} with {pair.partner}: {pair.auc:.3f}, {reason}."


def _label_rates(results: Measurements) -> dict[str, dict[str, float]]:
    """Returns the mean of each label by split."""
    labels = [column.name for column in results.columns if column.role == "label" and column.view == "number"]
    filled = {name: split.features for name, split in results.splits.items() if split.proto.num_examples}
    return {name: {label: stats[label].num_stats.mean for label in labels} for name, stats in filled.items()}


def _card(column: ExampleColumn, results: Measurements, distances: list[Distance]) -> ColumnCard:
    filled = {name: split for name, split in results.splits.items() if split.proto.num_examples}
    stats = {name: split.features[column.name] for name, split in filled.items()}
    first = next(iter(stats.values()))
    common = {name: statistics.common(s) for name, s in stats.items()}
    reports = results.leakage.values()
    leaks = [s for report in reports for s in report.leaks if s.feature == column.name]
    flags = ["leakage"] if leaks else []
    flags += ["drift"] if any(d.exceeds_threshold for d in distances) else []
    unseen = [u for u in results.unseen if u.feature == column.name and u.split in filled]
    flags += ["unseen values"] if any(u.is_notable for u in unseen) else []
    flags += ["outliers"] if any(each.feature == column.name for each in results.outliers) else []
    flags += sorted({each.reason for each in results.lost if each.column == column.name})
    flags += sorted({a.short for a in results.anomalies if a.column == column.name})
    chart, axis, bars, facts = Markup(""), ("", ""), [], []
    if column.view == "number":
        edges = results.chart_edges.get(column.name)
        if edges is not None:
            unit = not column.is_float and len(edges) > 1 and edges[1] - edges[0] == 1
            counts = {name: split.chart_counts[column.name] for name, split in filled.items()}
            chart = charts.histogram(counts, edges, is_time=column.is_time, unit_bars=unit)
            with_values = [s.num_stats for s in stats.values() if s.num_stats.histograms]
            lows = [bucket.low_value for s in with_values for bucket in s.histograms[0].buckets]
            highs = [bucket.high_value for s in with_values for bucket in s.histograms[0].buckets]
            low, high = min(lows), max(highs)
            axis = charts.axis(edges, low, high, is_time=column.is_time)
        facts = _number_facts(first.num_stats, column)
        facts += [("infinite", f"{n:,}") for n in [next(iter(filled.values())).infinite.get(column.name)] if n]
    elif column.view == "category":
        ranks = {name: s.string_stats.rank_histogram.buckets for name, s in stats.items()}
        ranked = {name: {b.label: int(b.sample_count) for b in buckets} for name, buckets in ranks.items()}
        rows = {name: c.tot_num_values + c.num_missing for name, c in common.items()}
        bars = charts.top_bars(ranked, rows, {n: c.num_missing for n, c in common.items()}, first.string_stats.unique)
        facts = [
            ("distinct", f"{first.string_stats.unique:,}"),
            ("mean length", f"{first.string_stats.avg_length:.1f}"),
        ]
    if column.levels and common:
        first_common = next(iter(common.values()))
        counts = [first_common.min_num_values, first_common.avg_num_values, first_common.max_num_values]
        facts = [("values in a row (min, mean, max)", ", ".join(map(number, counts))), *facts]
    return ColumnCard(
        name=column.name,
        kind=_kind(column),
        role=column.role,
        flags=flags,
        facts=facts,
        missing=[(n, c.num_missing / results.splits[n].proto.num_examples) for n, c in common.items()],
        chart=chart,
        axis=axis,
        bars=bars,
        distances=distances,
        unseen=unseen,
        strengths=[f"{s.auc:.3f} with {s.partner}" for s in leaks if s.partner]
        + [f"{s.auc:.3f} alone" for report in reports for s in report.alone if s.feature == column.name],
    )


def _number_facts(stats: statistics_pb2.NumericStatistics, column: ExampleColumn) -> list[tuple[str, str]]:
    if not stats.common_stats.num_non_missing:
        return []
    values = [("min", stats.min), ("median", stats.median), ("mean", stats.mean), ("max", stats.max)]
    facts = [(name, number(value, is_time=column.is_time)) for name, value in values]
    if not column.is_time:
        facts.insert(3, ("std", number(stats.std_dev)))
        rows = stats.common_stats.tot_num_values
        facts.append(("zeros", percent(stats.num_zeros / rows)))
    return facts


def _kind(column: ExampleColumn) -> str:
    return "list of " * column.levels + _value_kind(column)


def _value_kind(column: ExampleColumn) -> str:
    if column.is_bool:
        return "boolean"
    if column.is_time:
        return "time"
    kind = statistics_pb2.FeatureNameStatistics.Type.Name(column.type).lower()
    return "integer category" if kind == "int" and column.view == "category" else kind
