"""Where the splits contradict the schema."""

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
from tidemill.validation.columns import Column
from tidemill.validation.statistics import SplitStatistics

FILE = "SchemaDiff.pb"
READABLE = "anomalies.json"
Severity = Literal["ERROR", "WARNING"]
_Types = statistics_pb2.FeatureNameStatistics
_Info = anomalies_pb2.AnomalyInfo
_APART = (
    schema_pb2.PLANNED,
    schema_pb2.ALPHA,
    schema_pb2.DEPRECATED,
    schema_pb2.DEBUG_ONLY,
    schema_pb2.DISABLED,
)


@dataclass(frozen=True)
class Anomaly:
    """One contradiction.

    Attributes:
        column: The column; empty for one of the whole split.
        split: The split; empty where it holds for all of them.
        severity: `ERROR` stops a run whose schema was given; a broken label stops every run.
        type: The name in `AnomalyInfo.Type`.
        short: What is wrong, in a few words.
        description: The same with the numbers.
    """

    column: str
    split: str
    severity: Severity
    type: str
    short: str
    description: str

    def __str__(self) -> str:
        place = " in ".join(filter(None, (self.column, self.split)))
        return f"{place}: {self.description}"


def find(
    splits: Mapping[str, SplitStatistics], schema: schema_pb2.Schema, columns: Sequence[Column], *, given: bool
) -> list[Anomaly]:
    """Holds all splits against the schema.

    Against an inferred schema everything but a broken label is a warning. A column that a given schema does not know
    is an error if it is a feature or the label, and a warning otherwise. Integers pass where the schema wants FLOAT.

    Args:
        splits: Statistics by split. Splits without rows are not judged.
        schema: The schema.
        columns: The columns of the dataset.
        given: Whether the user gave the schema.

    Returns:
        The errors, then the warnings, each in the order of the schema and the splits.
    """
    found: list[Anomaly] = []
    filled = {name: split for name, split in splits.items() if split.proto.num_examples}
    present = {column.name: column for column in columns}
    severity: Severity = "ERROR" if given else "WARNING"
    for feature in schema.feature:
        if feature.lifecycle_stage in _APART or feature.deprecated:
            continue
        column = present.get(feature.name)
        if column is None:
            if feature.presence.min_fraction > 0 or feature.presence.min_count > 0:
                text = "the schema requires this column, and the data have none of its name"
                found.append(Anomaly(feature.name, "", severity, "SCHEMA_MISSING_COLUMN", "column missing", text))
            continue
        for name, split in filled.items():
            for kind, short, text in _contradictions(feature, schema, column, split):
                found.append(Anomaly(feature.name, name, severity, kind, short, text))
    described = {feature.name for feature in schema.feature}
    for column in columns:
        if column.name not in described:
            own: Severity = severity if column.role in ("feature", "label") else "WARNING"
            text = f"the data have this column ({_Types.Type.Name(column.type)}), and the schema does not"
            found.append(Anomaly(column.name, "", own, "SCHEMA_NEW_COLUMN", "new column", text))
    for column in columns:
        if column.role == "label":
            found += _label(column, filled)
    return sorted(found, key=lambda a: a.severity)


def write(
    path: str | os.PathLike,
    anomalies: Sequence[Anomaly],
    schema: schema_pb2.Schema,
    drift: Sequence[anomalies_pb2.DriftSkewInfo] = (),
) -> None:
    """Writes `SchemaDiff.pb` (`Anomalies`, with the schema as its baseline) and `anomalies.json`, as a sealed
    folder."""
    proto = anomalies_pb2.Anomalies(baseline=schema, drift_skew_info=drift)
    for anomaly in anomalies:
        info = proto.anomaly_info[anomaly.column]
        first = not info.reason
        info.path.step[:] = [anomaly.column]
        info.severity = max(info.severity, _Info.Severity.Value(anomaly.severity))
        place = f" ({anomaly.split})" if anomaly.split else ""
        reason = info.reason.add(type=_Info.Type.Value(anomaly.type), short_description=anomaly.short + place)
        reason.description = anomaly.description + place
        info.short_description = reason.short_description if first else "Multiple errors"
        info.description = reason.description if first else f"{info.description} {reason.description}"
    with artifact.write_folder(path, {"anomalies": len(anomalies)}) as root:
        (root / FILE).write_bytes(proto.SerializeToString(deterministic=True))
        storage.write_json(root / READABLE, [asdict(anomaly) for anomaly in anomalies])


Finding = tuple[str, str, str]


def _contradictions(
    feature: schema_pb2.Feature, schema: schema_pb2.Schema, column: Column, split: SplitStatistics
) -> Iterator[Finding]:
    stats = split.features[column.name]
    common = statistics.common(stats)
    yield from _presence(feature, common, split.proto.num_examples)
    actual = schemas.TYPES[column.type]
    widened = actual == schema_pb2.INT and feature.type == schema_pb2.FLOAT
    if feature.type not in (schema_pb2.TYPE_UNKNOWN, actual) and not widened:
        want, got = schema_pb2.FeatureType.Name(feature.type), _Types.Type.Name(column.type)
        yield "UNEXPECTED_DATA_TYPE", "wrong type", f"the schema says {want}, and the data are {got}"
        return
    if not common.num_non_missing:
        return
    if column.view == "number":
        yield from _range(feature, schema, column, stats.num_stats, split.infinite.get(column.name, 0))
    outside = split.outside.get(column.name)
    if outside is not None and outside.rows:
        yield from _domain(feature, outside, common.num_non_missing)
    if column.view == "category" and feature.HasField("unique_constraints"):
        yield from _unique(feature.unique_constraints, stats.string_stats.unique)


def _presence(feature: schema_pb2.Feature, common: statistics_pb2.CommonStatistics, rows: int) -> Iterator[Finding]:
    present, presence = common.num_non_missing, feature.presence
    if present < presence.min_count:
        text = f"{present:,} rows have a value, and the schema wants at least {presence.min_count:,}"
        yield "FEATURE_TYPE_LOW_NUMBER_PRESENT", "too few values", text
    if present / rows < presence.min_fraction:
        share, wanted = _percent(present / rows), _percent(presence.min_fraction)
        text = f"{share} of the rows have a value, and the schema wants {wanted}"
        yield "FEATURE_TYPE_LOW_FRACTION_PRESENT", "too many values missing", text


def _range(
    feature: schema_pb2.Feature,
    schema: schema_pb2.Schema,
    column: Column,
    stats: statistics_pb2.NumericStatistics,
    infinite: int,
) -> Iterator[Finding]:
    prefix = "FLOAT_TYPE" if column.is_float else "INT_TYPE"
    low, high = limits(feature, schema)
    finite = bool(stats.histograms)
    if finite and low is not None and stats.min < low:
        yield f"{prefix}_SMALL_{prefix[:-5]}", "values too small", f"the least value is {stats.min:g}, below {low:g}"
    if finite and high is not None and stats.max > high:
        yield f"{prefix}_BIG_{prefix[:-5]}", "values too large", f"the largest value is {stats.max:g}, above {high:g}"
    if feature.float_domain.disallow_inf and infinite:
        yield "FLOAT_TYPE_HAS_INF", "infinite values", f"{infinite:,} values are infinite"
    nan = stats.histograms[0].num_nan if stats.histograms else 0
    if feature.float_domain.disallow_nan and nan:
        yield "FLOAT_TYPE_HAS_NAN", "values that are no number", f"{nan:g} values are NaN"


def limits(feature: schema_pb2.Feature, schema: schema_pb2.Schema) -> tuple[float | None, float | None]:
    """Least and largest number that a feature's own or shared domain allows; None where there is no limit."""
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


def _domain(feature: schema_pb2.Feature, outside: statistics.Outside, present: int) -> Iterator[Finding]:
    constraints = feature.distribution_constraints
    needed = constraints.min_domain_mass if feature.HasField("distribution_constraints") else 1.0
    inside = 1 - outside.rows / present
    if inside < needed:
        examples = ", ".join(repr(value) for value in outside.values)
        text = f"{outside.rows:,} rows ({_percent(1 - inside)}) hold values outside of the domain, such as {examples}"
        yield "ENUM_TYPE_UNEXPECTED_STRING_VALUES", "unexpected values", text


def _unique(constraints: schema_pb2.UniqueConstraints, unique: int) -> Iterator[Finding]:
    if unique < constraints.min:
        yield "FEATURE_TYPE_LOW_UNIQUE", "too few values", f"{unique:,} distinct values, fewer than {constraints.min:,}"
    if constraints.HasField("max") and unique > constraints.max:
        text = f"{unique:,} distinct values, more than {constraints.max:,}"
        yield "FEATURE_TYPE_HIGH_UNIQUE", "too many values", text


def _label(label: Column, splits: Mapping[str, SplitStatistics]) -> list[Anomaly]:
    """What is wrong with a label: an error wherever it makes learning or measuring impossible."""
    found = []
    if label.view != "number" or label.is_time:
        text = f"the label is {_Types.Type.Name(label.type)}, and must hold 0 and 1, or false and true"
        return [Anomaly(label.name, "", "ERROR", "UNEXPECTED_DATA_TYPE", "label not binary", text)]
    for name, split in splits.items():
        stats, not_binary = split.features[label.name].num_stats, split.not_binary.get(label.name, 0)
        if not_binary:
            text = f"{not_binary:,} rows hold neither 0 nor 1; the range is {stats.min:g} to {stats.max:g}"
            found.append(Anomaly(label.name, name, "ERROR", "UNEXPECTED_DATA_TYPE", "label not binary", text))
        if missing := stats.common_stats.num_missing:
            text = f"{missing:,} rows have no label"
            found.append(Anomaly(label.name, name, "ERROR", "FEATURE_TYPE_LOW_FRACTION_PRESENT", "label missing", text))
        if stats.histograms and stats.min == stats.max and not not_binary:
            severity: Severity = "ERROR" if name == "train" else "WARNING"
            text = f"every label is {stats.min:g}"
            found.append(Anomaly(label.name, name, severity, "FEATURE_TYPE_LOW_UNIQUE", "one class", text))
    return found


def _percent(share: float) -> str:
    """A share as a percentage that does not round a remainder away: 99.998 %, never 100 % of less than all."""
    text = f"{100 * share:.3g}"
    exact = text if float(text) not in (0.0, 100.0) or share in (0.0, 1.0) else f"{100 * share:.6g}"
    return f"{exact} %"
