"""The comparators of a given schema: thresholds for the distance of one feature's distributions, as TFDV measures it.

`skew_comparator` compares train with each other split, which stands for the data that is served. `drift_comparator`
compares train with the train split of the published model, the previous span. The distances are those of TFDV, from the
statistics of both sides; missing values do not count. They differ from the drift gate's, which are exact and count
missing values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from tidemill.given_schema import schema_text
from tidemill.validation import statistics
from tidemill.validation.drift import PREVIOUS, jensen_shannon, l_infinity

_Measurement = anomalies_pb2.DriftSkewInfo.Measurement
_Histogram = statistics_pb2.Histogram
_Features = Mapping[str, statistics_pb2.FeatureNameStatistics]
_Selection = schema_pb2.HistogramSelection


@dataclass(frozen=True)
class ComparatorResult:
    """The result of one comparison that a schema asks for.

    Attributes:
        feature: The feature.
        other: What train is compared with: a split, or `previous`.
        type: The anomaly's type if the distance exceeds the threshold or cannot be measured, else empty.
        short: The anomaly's short text.
        description: The anomaly's text with the numbers.
        measurement: The distance in TFDV's form; None if it cannot be measured.
    """

    feature: str
    other: str
    type: str
    short: str
    description: str
    measurement: anomalies_pb2.DriftSkewInfo.Measurement | None


def compare(
    schema: schema_pb2.Schema,
    environment: str | None,
    splits: Mapping[str, statistics_pb2.DatasetFeatureStatistics],
    previous: statistics_pb2.DatasetFeatureStatistics | None,
) -> list[ComparatorResult]:
    """Returns all comparisons that a schema asks for, in its order.

    Args:
        schema: The given schema.
        environment: The environment of the data, or None.
        splits: Statistics by split, `train` among them.
        previous: Statistics of the published model's train split. None: there is nothing to compare with.
    """
    sides = {name: statistics.by_name(proto) for name, proto in splits.items() if proto.num_examples}
    train = sides.pop("train", {})
    control = statistics.by_name(previous) if previous is not None else None
    results: list[ComparatorResult] = []
    for feature in schema.feature:
        if not schema_text.is_checked(feature) or feature.name not in train:
            continue
        if not schema_text.in_environment(feature, schema, environment):
            continue
        if not statistics.common(train[feature.name]).num_non_missing:
            continue
        if feature.HasField("skew_comparator"):
            for name, side in sides.items():
                results += _compare(feature.name, feature.skew_comparator, name, train, side)
        if feature.HasField("drift_comparator") and control is not None:
            results += _compare(feature.name, feature.drift_comparator, PREVIOUS, train, control)
    return results


def to_proto(comparisons: Sequence[ComparatorResult]) -> list[anomalies_pb2.DriftSkewInfo]:
    """Returns the measurements in TFDV's form."""
    infos: dict[str, anomalies_pb2.DriftSkewInfo] = {}
    for comparison in comparisons:
        if comparison.measurement is not None:
            info = infos.setdefault(comparison.feature, anomalies_pb2.DriftSkewInfo())
            info.path.step[:] = [comparison.feature]
            is_drift = comparison.other == PREVIOUS
            (info.drift_measurements if is_drift else info.skew_measurements).append(comparison.measurement)
    return list(infos.values())


def standard_divergence(one: statistics_pb2.Histogram, two: statistics_pb2.Histogram) -> float | None:
    """Returns TFDV's approximate Jensen-Shannon divergence of two histograms.

    The buckets of both are cut at all edges of both. Within a bucket the values count as evenly spread. Buckets of one
    point are apart.

    Returns:
        0 to 1. None if a histogram is empty.
    """
    sides = [[(b.low_value, b.high_value, b.sample_count) for b in histogram.buckets] for histogram in (one, two)]
    wide = [[b for b in side if b[0] < b[1]] for side in sides]
    points = [{b[0]: b[2] for b in side if b[0] == b[1]} for side in sides]
    edges = np.unique([edge for side in wide for low, high, _ in side for edge in (low, high)])
    counts = []
    for side, point in zip(wide, points, strict=True):
        spread = np.zeros(max(len(edges) - 1, 0))
        for low, high, count in side:
            inner = slice(np.searchsorted(edges, low), np.searchsorted(edges, high))
            spread[inner] += count * np.diff(edges)[inner] / (high - low)
        at = sorted({*points[0], *points[1]})
        counts.append(np.concatenate([spread, [point.get(value, 0.0) for value in at]]))
    if not counts[0].sum() or not counts[1].sum():
        return None
    return jensen_shannon(counts[0], counts[1])


def _compare(
    name: str, comparator: schema_pb2.FeatureComparator, other: str, train: _Features, control: _Features
) -> Iterator[ComparatorResult]:
    wanted = [kind.name for kind, _ in comparator.ListFields()]
    if name not in control or not statistics.common(control[name]).num_non_missing:
        text = f"{other} has no values to compare train with"
        yield ComparatorResult(name, other, "COMPARATOR_CONTROL_DATA_MISSING", "no data to compare", text, None)
        return
    for kind in wanted:
        part = getattr(comparator, kind)
        if not part.HasField("threshold"):
            continue
        measured = _distance(kind, comparator, train[name], control[name])
        if measured is None:
            text = f"{kind} cannot be measured between train and {other} for this kind of column"
            yield ComparatorResult(name, other, "INVALID_SCHEMA_SPECIFICATION", "invalid comparator", text, None)
            continue
        distance, at = measured
        measurement = _Measurement(type=_TYPES[kind][0], value=distance, threshold=part.threshold)
        if distance <= part.threshold:
            yield ComparatorResult(name, other, "", "", "", measurement)
            continue
        where = f" at {at!r}" if at is not None else ""
        text = f"{_TYPES[kind][2]} between train and {other} is {distance:.4f}{where}, above {part.threshold:g}"
        yield ComparatorResult(name, other, _TYPES[kind][1], "distribution differs", text, measurement)


_TYPES: dict[str, tuple[_Measurement.Type, str, str]] = {
    "infinity_norm": (_Measurement.L_INFTY, "COMPARATOR_L_INFTY_HIGH", "the L-infinity distance"),
    "jensen_shannon_divergence": (
        _Measurement.JENSEN_SHANNON_DIVERGENCE,
        "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH",
        "the Jensen-Shannon divergence",
    ),
    "normalized_abs_difference": (
        _Measurement.NORMALIZED_ABSOLUTE_DIFFERENCE,
        "COMPARATOR_NORMALIZED_ABSOLUTE_DIFFERENCE_HIGH",
        "the normalized absolute difference",
    ),
}


def _distance(
    kind: str,
    comparator: schema_pb2.FeatureComparator,
    train: statistics_pb2.FeatureNameStatistics,
    control: statistics_pb2.FeatureNameStatistics,
) -> tuple[float, str | None] | None:
    """Returns a distance and, for texts, the value that differs most. None if the columns have no such distance."""
    one, two = _counts(train), _counts(control)
    if one and two:
        if kind == "normalized_abs_difference":
            total = sum(one.values()) + sum(two.values())
            return l_infinity({k: n / total for k, n in one.items()}, {k: n / total for k, n in two.items()})
        if kind == "infinity_norm":
            return l_infinity(_shares(one), _shares(two))
        names = list(dict.fromkeys([*one, *two]))
        return jensen_shannon(*(np.array([side.get(n, 0.0) for n in names]) for side in (one, two))), None
    if kind != "jensen_shannon_divergence":
        return None
    source = comparator.jensen_shannon_divergence.source.type
    wanted = _Histogram.QUANTILES if source == _Selection.QUANTILES else _Histogram.STANDARD
    histograms = [_histogram(side, wanted) for side in (train, control)]
    if histograms[0] is None or histograms[1] is None:
        return None
    divergence = standard_divergence(histograms[0], histograms[1])
    return None if divergence is None else (divergence, None)


def _counts(stats: statistics_pb2.FeatureNameStatistics) -> dict[str | None, float]:
    return {b.label: b.sample_count for b in stats.string_stats.rank_histogram.buckets}


def _shares(counts: Mapping[str | None, float]) -> dict[str | None, float]:
    total = sum(counts.values())
    return {value: count / total for value, count in counts.items()}


def _histogram(
    stats: statistics_pb2.FeatureNameStatistics, wanted: statistics_pb2.Histogram.HistogramType
) -> statistics_pb2.Histogram | None:
    return next((h for h in stats.num_stats.histograms if h.type == wanted and h.buckets), None)
