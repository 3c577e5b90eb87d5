"""Drift: the distance between a feature's distribution in train and in other data.

The distance of numbers is the Jensen-Shannon divergence in bits (Lin, 1991) over the quantile bins of the reference;
both sides are counted exactly in these bins. The distance of categories is the L-infinity distance of the values'
shares, as in TFDV. Missing values are an additional bin or value. Both distances lie between 0 (equal) and 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from tidemill import storage
from tidemill.artifacts import model_store
from tidemill.experiment.source import Drift
from tidemill.validation import statistics
from tidemill.validation.columns import ExampleColumn

NOTABLE_DISTANCE = 0.1
PREVIOUS = "previous"
TRAIN_BINS = "train"
"""Names of the bins: the quantiles of train, or those of the previous model's train split (`PREVIOUS`)."""
_STATISTICS = (model_store.STATISTICS, "Split-train", statistics.FILE)
_Histogram = statistics_pb2.Histogram


@dataclass(frozen=True)
class Distance:
    """Distance of one feature's distribution from that in train.

    Attributes:
        feature: The feature's name.
        other: What train is compared with: `valid`, `test` or `previous`.
        distance: 0 to 1. It is 1 if the feature is a number on one side and a category on the other.
        measure: `jensen_shannon` or `l_infinity`.
        threshold: The threshold that applies, if any.
        reason: For a category, the value whose share differs most. Empty for a number.
    """

    feature: str
    other: str
    distance: float
    measure: Literal["jensen_shannon", "l_infinity"]
    threshold: float | None
    reason: str = ""

    @property
    def exceeds_threshold(self) -> bool:
        """Whether a threshold applies and the distance exceeds it."""
        return self.threshold is not None and self.distance > self.threshold

    @property
    def is_notable(self) -> bool:
        """Whether the distance exceeds the threshold, or 0.1 if no threshold applies."""
        return self.distance > (NOTABLE_DISTANCE if self.threshold is None else self.threshold)

    def __str__(self) -> str:
        name = {"jensen_shannon": "Jensen-Shannon", "l_infinity": "L-infinity"}[self.measure]
        at = f" at {self.reason}" if self.reason else ""
        limit = "" if self.threshold is None else f" above {self.threshold:g}"
        return f"{self.feature} against {self.other} ({name} {self.distance:.4f}{limit}{at})"


def jensen_shannon(one: np.ndarray, two: np.ndarray) -> float:
    """Returns the Jensen-Shannon divergence to base 2 of two histograms over the same bins.

    Args:
        one: Non-negative counts or shares, float or int [bins], with a positive sum.
        two: The same for the other side.

    Returns:
        0 to 1.
    """
    p, q = one / one.sum(), two / two.sum()
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        divergences = [np.where(side > 0, side * np.log2(side / middle), 0.0).sum() for side in (p, q)]
    return float(min(max((divergences[0] + divergences[1]) / 2, 0.0), 1.0))


def l_infinity(one: Mapping[str | None, float], two: Mapping[str | None, float]) -> tuple[float, str | None]:
    """Returns the largest difference between the shares of a value, and that value.

    Args:
        one: Share of the rows by value. None is the missing value.
        two: The same for the other side.

    Returns:
        The difference, 0 to 1, and the value. Of equal differences the first counts, in the order of `one`, then `two`.
    """
    largest, where = 0.0, None
    for value in [*one, *(v for v in two if v not in one)]:
        difference = abs(one.get(value, 0.0) - two.get(value, 0.0))
        if difference > largest:
            largest, where = difference, value
    return min(largest, 1.0), where


def load_previous(uri: str) -> statistics_pb2.DatasetFeatureStatistics | None:
    """Reads the statistics of a published model's train split. None if the model was published without statistics.

    Raises:
        TidemillError: `unreadable-file`.
    """
    file = storage.join(uri, *_STATISTICS)
    if not storage.exists(file):
        return None
    with storage.open_file(file) as stream:
        return statistics.parse(stream.read(), file)


def bin_edges(
    proto: statistics_pb2.DatasetFeatureStatistics, columns: Sequence[ExampleColumn]
) -> dict[str, np.ndarray]:
    """Returns the edges of the bins in which other data is compared with these statistics.

    Returns:
        For each numeric feature that has values: its ascending quantiles, and the next number above the largest, so
        that larger values have their own bin. float64 [edges].
    """
    stats, edges = statistics.by_name(proto), {}
    for column in columns:
        histogram = _quantiles(stats.get(column.name)) if column.view == "number" else None
        if histogram is not None:
            edges[column.name] = _edges(histogram)
    return edges


def compare(
    reference: statistics_pb2.DatasetFeatureStatistics,
    bin_counts: Mapping[str, Mapping[str, np.ndarray]],
    bins: str,
    compared: statistics_pb2.DatasetFeatureStatistics,
    columns: Sequence[ExampleColumn],
    other: str,
    settings: Drift,
) -> list[Distance]:
    """Returns the distances of all features, the largest first.

    Args:
        reference: The statistics whose quantiles are the bins.
        bin_counts: The compared rows in those bins, by feature and name of the bins (`SplitStatistics.bin_counts`).
        bins: Name of the bins: `TRAIN_BINS` or `PREVIOUS`.
        compared: The statistics of the compared rows.
        columns: From `columns.resolve`.
        other: Name of the side that is not train.
        settings: The thresholds. They apply if `settings.between` names `other`.

    Returns:
        One distance for each feature that both sides have. Empty if a side has no rows.
    """
    if not reference.num_examples or not compared.num_examples:
        return []
    gated = other in settings.between
    left, right = statistics.by_name(reference), statistics.by_name(compared)
    distances: list[Distance] = []
    for column in columns:
        if column.role != "feature" or column.name not in left or column.name not in right:
            continue
        one, two = left[column.name], right[column.name]
        if column.view == "number":
            distance, reason = _numeric(one, two, bin_counts.get(column.name, {}).get(bins)), ""
        elif column.view == "category":
            distance, reason = _categorical(one, two)
        else:
            continue
        measure = "jensen_shannon" if column.view == "number" else "l_infinity"
        threshold = settings.numeric if column.view == "number" else settings.categorical
        threshold = settings.columns.get(column.name, threshold)
        distances.append(Distance(column.name, other, distance, measure, threshold if gated else None, reason))
    return sorted(distances, key=lambda d: (-d.distance, d.feature))


def to_proto(distances: Sequence[Distance]) -> list[anomalies_pb2.DriftSkewInfo]:
    """Converts distances to TFX's form. Distances from `previous` are drift; distances between splits are skew."""
    infos: dict[str, anomalies_pb2.DriftSkewInfo] = {}
    measures = {"jensen_shannon": "JENSEN_SHANNON_DIVERGENCE", "l_infinity": "L_INFTY"}
    for d in sorted(distances, key=lambda d: d.feature):
        info = infos.setdefault(d.feature, anomalies_pb2.DriftSkewInfo())
        info.path.step[:] = [d.feature]
        side = info.drift_measurements if d.other == PREVIOUS else info.skew_measurements
        kind = anomalies_pb2.DriftSkewInfo.Measurement.Type.Value(measures[d.measure])
        side.add(type=kind, value=d.distance, threshold=d.threshold or 0.0)
    return list(infos.values())


def _quantiles(stats: statistics_pb2.FeatureNameStatistics | None) -> statistics_pb2.Histogram | None:
    if stats is None or stats.WhichOneof("stats") != "num_stats":
        return None
    return next((h for h in stats.num_stats.histograms if h.type == _Histogram.QUANTILES and h.buckets), None)


def _edges(histogram: statistics_pb2.Histogram) -> np.ndarray:
    values = [b.low_value for b in histogram.buckets] + [histogram.buckets[-1].high_value]
    distinct = np.unique(np.array(values, dtype=np.float64))
    return np.append(distinct, np.nextafter(distinct[-1], np.inf))


def _numeric(
    reference: statistics_pb2.FeatureNameStatistics,
    compared: statistics_pb2.FeatureNameStatistics,
    bins: np.ndarray | None,
) -> float:
    kinds = {reference.WhichOneof("stats"), compared.WhichOneof("stats")}
    if kinds != {"num_stats"}:
        return 1.0
    histogram = _quantiles(reference)
    if histogram is None:
        return jensen_shannon(_presence_counts(reference), _presence_counts(compared))
    if bins is None:
        bins = np.zeros(len(_edges(histogram)) + 1, dtype=np.int64)
    counts = np.zeros(len(bins))
    for bucket in histogram.buckets:
        counts[np.searchsorted(_edges(histogram), bucket.low_value) + 1] += bucket.sample_count
    one = np.append(counts, reference.num_stats.common_stats.num_missing)
    two = np.append(bins, compared.num_stats.common_stats.num_missing)
    return jensen_shannon(one, two) if one.sum() and two.sum() else 1.0


def _presence_counts(stats: statistics_pb2.FeatureNameStatistics) -> np.ndarray:
    common = stats.num_stats.common_stats
    return np.array([common.tot_num_values, common.num_missing])


def _categorical(
    reference: statistics_pb2.FeatureNameStatistics, compared: statistics_pb2.FeatureNameStatistics
) -> tuple[float, str]:
    if {reference.WhichOneof("stats"), compared.WhichOneof("stats")} != {"string_stats"}:
        return 1.0, ""
    distance, value = l_infinity(_shares(reference), _shares(compared))
    if not distance:
        return 0.0, ""
    return distance, "missing values" if value is None else repr(value)


def _shares(stats: statistics_pb2.FeatureNameStatistics) -> dict[str | None, float]:
    """Returns the shares of the 1,000 most frequent values, and of None, the missing value.

    A rarer value counts as absent, which changes a distance by less than 0.001.
    """
    common = stats.string_stats.common_stats
    # A missing list counts as one missing value.
    rows = common.tot_num_values + common.num_missing
    shares: dict[str | None, float] = {
        b.label: b.sample_count / rows for b in stats.string_stats.rank_histogram.buckets
    }
    shares[None] = common.num_missing / rows
    return shares
