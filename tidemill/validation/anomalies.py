"""Anomalies: contradictions between the splits and the schema."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from tidemill import storage
from tidemill.artifacts import artifact
from tidemill.validation import schema as schemas
from tidemill.validation import statistics
from tidemill.validation.columns import ExampleColumn
from tidemill.validation.statistics import SplitStatistics

FILE = "SchemaDiff.pb"
READABLE = "anomalies.json"
Severity = Literal["ERROR", "WARNING"]
_Types = statistics_pb2.FeatureNameStatistics
_Info = anomalies_pb2.AnomalyInfo
_IGNORED_STAGES = (
    schema_pb2.PLANNED,
    schema_pb2.ALPHA,
    schema_pb2.DEPRECATED,
    schema_pb2.DEBUG_ONLY,
    schema_pb2.DISABLED,
)


@dataclass(frozen=True)
class Anomaly:
    """One contradiction between the data and the schema.

    Attributes:
        column: The column.
        split: The split. Empty if the anomaly concerns all splits.
        severity: `ERROR` stops the run. Against an inferred schema only a broken label is an error.
        type: The name in `AnomalyInfo.Type`.
        short: What is wrong, in a few words.
        description: What is wrong, with the numbers.
    """

    column: str
    split: str
    severity: Severity
    type: str
    short: str
    description: str

    def __str__(self) -> str:
        where = " in ".join(filter(None, (self.column, self.split)))
        return f"{where}: {self.description}"


def find(
    splits: Mapping[str, SplitStatistics], schema: schema_pb2.Schema, columns: Sequence[ExampleColumn], *, given: bool
) -> list[Anomaly]:
    """Compares all splits with the schema.

    Against an inferred schema every anomaly is a warning, except a broken label. A column that a given schema does not
    describe is an error if it is a feature or a label, else a warning. Integers satisfy the type FLOAT.

    Args:
        splits: Statistics by split. Splits without rows are skipped.
        schema: The schema.
        columns: The columns of the examples.
        given: Whether the user gave the schema.

    Returns:
        The errors, then the warnings, each in the order of the schema and the splits.
    """
    anomalies: list[Anomaly] = []
    filled = {name: split for name, split in splits.items() if split.proto.num_examples}
    by_name = {column.name: column for column in columns}
    severity: Severity = "ERROR" if given else "WARNING"
    for feature in schema.feature:
        if feature.lifecycle_stage in _IGNORED_STAGES or feature.deprecated:
            continue
        column = by_name.get(feature.name)
        if column is None:
            if feature.presence.min_fraction > 0 or feature.presence.min_count > 0:
                text = "the schema requires this column, and the data does not have it"
                anomalies.append(Anomaly(feature.name, "", severity, "SCHEMA_MISSING_COLUMN", "column missing", text))
            continue
        for name, split in filled.items():
            for kind, short, text in _contradictions(feature, schema, column, split):
                anomalies.append(Anomaly(feature.name, name, severity, kind, short, text))
    described = {feature.name for feature in schema.feature}
    for column in columns:
        if column.name not in described:
            column_severity: Severity = severity if column.role in ("feature", "label") else "WARNING"
            text = f"the data has this column ({_Types.Type.Name(column.type)}), and the schema does not"
            anomalies.append(Anomaly(column.name, "", column_severity, "SCHEMA_NEW_COLUMN", "new column", text))
    for column in columns:
        if column.role == "label":
            anomalies += _label_anomalies(column, filled)
    return sorted(anomalies, key=lambda a: a.severity)


def write(
    path: str | os.PathLike,
    anomalies: Sequence[Anomaly],
    schema: schema_pb2.Schema,
    drift: Sequence[anomalies_pb2.DriftSkewInfo] = (),
) -> None:
    """Writes a sealed folder with `SchemaDiff.pb` (`Anomalies`, with the schema as its baseline) and
    `anomalies.json`."""
    proto = anomalies_pb2.Anomalies(baseline=schema, drift_skew_info=drift)
    for anomaly in anomalies:
        info = proto.anomaly_info[anomaly.column]
        first = not info.reason
        info.path.step[:] = [anomaly.column]
        info.severity = max(info.severity, _Info.Severity.Value(anomaly.severity))
        suffix = f" ({anomaly.split})" if anomaly.split else ""
        reason = info.reason.add(type=_Info.Type.Value(anomaly.type), short_description=anomaly.short + suffix)
        reason.description = anomaly.description + suffix
        info.short_description = reason.short_description if first else "Multiple errors"
        info.description = reason.description if first else f"{info.description} {reason.description}"
    with artifact.write_folder(path, {"anomalies": len(anomalies)}) as root:
        (root / FILE).write_bytes(proto.SerializeToString(deterministic=True))
        storage.write_json(root / READABLE, [asdict(anomaly) for anomaly in anomalies])


Contradiction = tuple[str, str, str]
"""An anomaly's type, short text and description."""


def _contradictions(
    feature: schema_pb2.Feature, schema: schema_pb2.Schema, column: ExampleColumn, split: SplitStatistics
) -> Iterator[Contradiction]:
    stats = split.features[column.name]
    common = statistics.common(stats)
    yield from _presence(feature, common, split.proto.num_examples)
    actual = schemas.TYPES[column.type]
    widened = actual == schema_pb2.INT and feature.type == schema_pb2.FLOAT
    if feature.type not in (schema_pb2.TYPE_UNKNOWN, actual) and not widened:
        want, got = schema_pb2.FeatureType.Name(feature.type), _Types.Type.Name(column.type)
        yield "UNEXPECTED_DATA_TYPE", "wrong type", f"the schema says {want}, and the data is {got}"
        return
    if not common.num_non_missing:
        return
    if column.view == "number":
        yield from _range(feature, schema, column, stats.num_stats, split.infinite.get(column.name, 0))
    outside = split.out_of_domain.get(column.name)
    if outside is not None and outside.rows:
        yield from _string_domain(feature, outside, common.num_non_missing)
    if column.view == "category" and feature.HasField("unique_constraints"):
        yield from _unique(feature.unique_constraints, stats.string_stats.unique)


def _presence(
    feature: schema_pb2.Feature, common: statistics_pb2.CommonStatistics, rows: int
) -> Iterator[Contradiction]:
    present, presence = common.num_non_missing, feature.presence
    if present < presence.min_count:
        text = f"{present:,} rows have a value, and the schema requires at least {presence.min_count:,}"
        yield "FEATURE_TYPE_LOW_NUMBER_PRESENT", "too few values", text
    if present / rows < presence.min_fraction:
        share, wanted = _percent(present / rows), _percent(presence.min_fraction)
        text = f"{share} of the rows have a value, and the schema requires {wanted}"
        yield "FEATURE_TYPE_LOW_FRACTION_PRESENT", "too many values missing", text


def _range(
    feature: schema_pb2.Feature,
    schema: schema_pb2.Schema,
    column: ExampleColumn,
    stats: statistics_pb2.NumericStatistics,
    infinite: int,
) -> Iterator[Contradiction]:
    prefix = "FLOAT_TYPE" if column.is_float else "INT_TYPE"
    low, high = limits(feature, schema)
    finite = bool(stats.histograms)
    if finite and low is not None and stats.min < low:
        text = f"the smallest value is {stats.min:g}, below {low:g}"
        yield f"{prefix}_SMALL_{prefix[:-5]}", "values too small", text
    if finite and high is not None and stats.max > high:
        yield f"{prefix}_BIG_{prefix[:-5]}", "values too large", f"the largest value is {stats.max:g}, above {high:g}"
    if feature.float_domain.disallow_inf and infinite:
        yield "FLOAT_TYPE_HAS_INF", "infinite values", f"{infinite:,} values are infinite"
    nan = stats.histograms[0].num_nan if stats.histograms else 0
    if feature.float_domain.disallow_nan and nan:
        yield "FLOAT_TYPE_HAS_NAN", "NaN values", f"{nan:g} values are NaN"


def limits(feature: schema_pb2.Feature, schema: schema_pb2.Schema) -> tuple[float | None, float | None]:
    """Returns the smallest and the largest number that a feature's own or shared domain allows. None: no limit."""
    kind = feature.WhichOneof("domain_info")
    if kind == "bool_domain":
        return 0, 1
    if kind in ("int_domain", "float_domain"):
        domain = getattr(feature, kind)
    elif kind == "domain":
        shared = [d for d in [*schema.int_domain, *schema.float_domain] if d.name == feature.domain]
        if not shared:
            return None, None
        domain = shared[0]
    else:
        return None, None
    return (domain.min if domain.HasField("min") else None, domain.max if domain.HasField("max") else None)


def _string_domain(
    feature: schema_pb2.Feature, outside: statistics.OutOfDomain, present: int
) -> Iterator[Contradiction]:
    constraints = feature.distribution_constraints
    needed = constraints.min_domain_mass if feature.HasField("distribution_constraints") else 1.0
    inside = 1 - outside.rows / present
    if inside < needed:
        examples = ", ".join(repr(value) for value in outside.values)
        text = f"{outside.rows:,} rows ({_percent(1 - inside)}) have values outside the domain, such as {examples}"
        yield "ENUM_TYPE_UNEXPECTED_STRING_VALUES", "unexpected values", text


def _unique(constraints: schema_pb2.UniqueConstraints, unique: int) -> Iterator[Contradiction]:
    if unique < constraints.min:
        yield "FEATURE_TYPE_LOW_UNIQUE", "too few values", f"{unique:,} distinct values, fewer than {constraints.min:,}"
    if constraints.HasField("max") and unique > constraints.max:
        text = f"{unique:,} distinct values, more than {constraints.max:,}"
        yield "FEATURE_TYPE_HIGH_UNIQUE", "too many values", text


def _label_anomalies(label: ExampleColumn, splits: Mapping[str, SplitStatistics]) -> list[Anomaly]:
    """Returns what is wrong with a label. It is an error if it prevents training or evaluation."""
    anomalies: list[Anomaly] = []
    if label.view != "number" or label.is_time:
        text = f"the label is {_Types.Type.Name(label.type)}, and must be 0 and 1, or false and true"
        return [Anomaly(label.name, "", "ERROR", "UNEXPECTED_DATA_TYPE", "label not binary", text)]
    for name, split in splits.items():
        stats, not_binary = split.features[label.name].num_stats, split.not_binary.get(label.name, 0)
        if not_binary:
            text = f"{not_binary:,} rows have neither 0 nor 1; the values range from {stats.min:g} to {stats.max:g}"
            anomalies.append(Anomaly(label.name, name, "ERROR", "UNEXPECTED_DATA_TYPE", "label not binary", text))
        if missing := stats.common_stats.num_missing:
            kind, text = "FEATURE_TYPE_LOW_FRACTION_PRESENT", f"{missing:,} rows have no label"
            anomalies.append(Anomaly(label.name, name, "ERROR", kind, "label missing", text))
        if stats.histograms and stats.min == stats.max and not not_binary:
            severity: Severity = "ERROR" if name == "train" else "WARNING"
            text = f"every label is {stats.min:g}"
            anomalies.append(Anomaly(label.name, name, severity, "FEATURE_TYPE_LOW_UNIQUE", "one class", text))
    return anomalies


def _percent(share: float) -> str:
    """Returns a share as a percentage. Only a share of 1 is shown as 100 %, and only 0 as 0 %: 99.998 %."""
    text = f"{100 * share:.3g}"
    exact = text if float(text) not in (0.0, 100.0) or share in (0.0, 1.0) else f"{100 * share:.6g}"
    return f"{exact} %"
