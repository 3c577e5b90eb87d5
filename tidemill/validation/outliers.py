"""Outliers: numbers so far from the others that a transform by mean or range squeezes all others together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensorflow_metadata.proto.v0 import statistics_pb2

from tidemill.experiment.features import Feature, Numeric
from tidemill.validation import statistics
from tidemill.validation.charts import number
from tidemill.validation.columns import ExampleColumn

NARROW = {"zscore": 0.3, "minmax": 0.01}
"""The smallest width that the middle 90 % of the rows may have after a transform. It is 3.3 for a normal distribution
after `zscore`, and 0.9 for a uniform distribution after `minmax`."""
_TAIL = 0.05


@dataclass(frozen=True)
class Outliers:
    """A feature whose outliers squeeze its other values.

    Attributes:
        feature: The feature's name.
        transform: `zscore` or `minmax`.
        low: The quantile 0.05 of train.
        high: The quantile 0.95 of train.
        smallest: The smallest value.
        largest: The largest value.
        width: The distance from `low` to `high` after the transform.
    """

    feature: str
    transform: str
    low: float
    high: float
    smallest: float
    largest: float
    width: float

    def __str__(self) -> str:
        return (
            f"{self.feature}: 90 % of the rows lie between {number(self.low)} and {number(self.high)}, and the values "
            f"reach from {number(self.smallest)} to {number(self.largest)}. After {self.transform} these 90 % lie "
            f"within {self.width:.2g}. Correct the values, or use the transform quantile or {{clip: [0.01, 0.99]}}."
        )


def find(
    train: statistics_pb2.DatasetFeatureStatistics,
    columns: Sequence[ExampleColumn],
    features: Mapping[str, Feature] | None,
) -> list[Outliers]:
    """Returns the numeric features that a `zscore` or `minmax` of train would squeeze, in the order of the columns.

    Args:
        train: Statistics of train.
        columns: From `columns.resolve`.
        features: The experiment's features. None, with a transform module, judges every numeric feature as `zscore`.
    """
    stats, found = statistics.by_name(train), []
    for column in columns:
        if column.role != "feature" or column.view != "number" or column.is_bool:
            continue
        feature = features.get(column.name) if features is not None else None
        transform = feature.transform if isinstance(feature, Numeric) else "zscore"
        if not isinstance(transform, str) or transform not in NARROW:
            continue
        numbers = stats[column.name].num_stats
        quantiles = _quantiles(numbers)
        if quantiles is None:
            continue
        smallest, low, high, largest = quantiles
        scale = numbers.std_dev if transform == "zscore" else largest - smallest
        width = (high - low) / scale if scale > 0 else 0.0
        if 0 < width < NARROW[transform]:
            found.append(Outliers(column.name, transform, low, high, smallest, largest, width))
    return found


def _quantiles(numbers: statistics_pb2.NumericStatistics) -> tuple[float, float, float, float] | None:
    """Returns the finite numbers' quantiles 0, 0.05, 0.95 and 1; None without one."""
    kind = statistics_pb2.Histogram.QUANTILES
    buckets = next((list(h.buckets) for h in numbers.histograms if h.type == kind), [])
    total = sum(bucket.sample_count for bucket in buckets)
    low = high = None
    below = 0.0
    for bucket in buckets:
        # A quantile is the last edge that fewer rows than its share are below.
        if below < _TAIL * total:
            low = bucket.low_value
        if below < (1 - _TAIL) * total:
            high = bucket.low_value
        below += bucket.sample_count
    return None if low is None or high is None else (buckets[0].low_value, low, high, buckets[-1].high_value)
