"""Anomalies: contradictions between the splits and the schema."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from tidemill import storage
from tidemill.artifacts import artifact
from tidemill.given_schema import schema_text
from tidemill.validation import contradictions, specification
from tidemill.validation.columns import ExampleColumn
from tidemill.validation.comparators import ComparatorResult
from tidemill.validation.drift import PREVIOUS
from tidemill.validation.specification import Contradiction
from tidemill.validation.statistics import SplitStatistics

FILE = "SchemaDiff.pb"
READABLE = "anomalies.json"
Severity = Literal["ERROR", "WARNING"]
_Types = statistics_pb2.FeatureNameStatistics
_Info = anomalies_pb2.AnomalyInfo


@dataclass(frozen=True)
class Anomaly:
    """One contradiction between the data and the schema.

    Attributes:
        column: The column. Empty if the anomaly concerns the number of rows.
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
        where = " in ".join(filter(None, (self.column or "the dataset", self.split)))
        return f"{where}: {self.description}"


def find(
    splits: Mapping[str, SplitStatistics],
    schema: schema_pb2.Schema,
    columns: Sequence[ExampleColumn],
    *,
    given: bool,
    environment: str | None = None,
    previous: statistics_pb2.DatasetFeatureStatistics | None = None,
    comparisons: Sequence[ComparatorResult] = (),
) -> list[Anomaly]:
    """Compares all splits with the schema.

    Against an inferred schema every anomaly is a warning, except a broken label. A column that a given schema does not
    describe is an error if it is a feature or a label, else a warning. Integers satisfy the type FLOAT.

    Args:
        splits: Statistics by split. Splits without rows are skipped.
        schema: The schema.
        columns: The columns of the examples.
        given: Whether the user gave the schema.
        environment: The environment in which a given schema is checked. Defaults to None: all features are expected.
        previous: Statistics of the published model's train split, for `num_examples_drift_comparator`.
        comparisons: From `comparators.compare`.

    Returns:
        The errors, then the warnings, each in the order of the schema and the splits.
    """
    severity: Severity = "ERROR" if given else "WARNING"
    filled = {name: split for name, split in splits.items() if split.proto.num_examples}
    anomalies = [Anomaly("", name, severity, *each) for name, each in _of_dataset(schema, filled, previous)]
    by_name = {column.name: column for column in columns}
    for feature in schema.feature:
        if not schema_text.is_checked(feature):
            continue
        if given:
            wrong = specification.contradictions(feature, schema)
            anomalies += [Anomaly(feature.name, "", severity, *each) for each in wrong]
        column = by_name.get(feature.name)
        expected = schema_text.in_environment(feature, schema, environment)
        if column is None:
            if expected and (feature.presence.min_fraction > 0 or feature.presence.min_count > 0):
                text = "the schema requires this column, and the data does not have it"
                anomalies.append(Anomaly(feature.name, "", severity, "SCHEMA_MISSING_COLUMN", "column missing", text))
            continue
        if not expected:
            text = f"the data has this column, which the schema does not expect in the environment {environment!r}"
            anomalies.append(_new_column(column, severity, "column not in the environment", text))
        for name, split in filled.items():
            for each in contradictions.contradictions(feature, schema, column, split):
                anomalies.append(Anomaly(feature.name, name, severity, *each))
    described = {feature.name for feature in schema.feature}
    for column in columns:
        if column.name not in described:
            text = f"the data has this column ({_Types.Type.Name(column.type)}), and the schema does not"
            anomalies.append(_new_column(column, severity, "new column", text))
    for each in comparisons:
        if each.type:
            split = "train" if each.other == PREVIOUS else each.other
            anomalies.append(Anomaly(each.feature, split, severity, each.type, each.short, each.description))
    for column in columns:
        if column.role == "label":
            anomalies += _label_anomalies(column, filled)
    return sorted(anomalies, key=lambda a: a.severity)


def write(
    path: str | os.PathLike,
    splits: Iterable[str],
    anomalies: Sequence[Anomaly],
    schema: schema_pb2.Schema,
    drift: Mapping[str, Sequence[anomalies_pb2.DriftSkewInfo]],
    paths: Mapping[str, Sequence[str]],
) -> None:
    """Writes a sealed folder with `Split-<name>/SchemaDiff.pb` (`Anomalies`, with the schema as its baseline) for each
    split, as TFX does, and `anomalies.json`.

    Args:
        path: The folder.
        splits: Names of the splits.
        anomalies: The anomalies. Those of no split are in the file of each.
        schema: The schema.
        drift: Measured distances by split.
        paths: Paths of the columns by name.
    """
    with artifact.write_folder(path, {"anomalies": len(anomalies)}) as root:
        for name in splits:
            folder = root / f"Split-{name}"
            folder.mkdir()
            proto = anomalies_pb2.Anomalies(baseline=schema, drift_skew_info=drift.get(name, ()))
            for anomaly in anomalies:
                if anomaly.split in ("", name):
                    _add(proto, anomaly, paths)
            (folder / FILE).write_bytes(proto.SerializeToString(deterministic=True))
        storage.write_json(root / READABLE, [asdict(anomaly) for anomaly in anomalies])


def _add(proto: anomalies_pb2.Anomalies, anomaly: Anomaly, paths: Mapping[str, Sequence[str]]) -> None:
    info = proto.anomaly_info[anomaly.column] if anomaly.column else proto.dataset_anomaly_info
    first = not info.reason
    if anomaly.column:
        info.path.step[:] = paths.get(anomaly.column, (anomaly.column,))
    info.severity = max(info.severity, _Info.Severity.Value(anomaly.severity))
    reason = info.reason.add(type=_Info.Type.Value(anomaly.type), short_description=anomaly.short)
    reason.description = anomaly.description
    info.short_description = reason.short_description if first else "Multiple errors"
    info.description = reason.description if first else f"{info.description} {reason.description}"


def _new_column(column: ExampleColumn, severity: Severity, short: str, text: str) -> Anomaly:
    """Returns the anomaly of a column that the schema does not expect, a warning if nothing reads the column."""
    used = column.role in ("feature", "label")
    return Anomaly(column.name, "", severity if used else "WARNING", "SCHEMA_NEW_COLUMN", short, text)


def _of_dataset(
    schema: schema_pb2.Schema,
    splits: Mapping[str, SplitStatistics],
    previous: statistics_pb2.DatasetFeatureStatistics | None,
) -> Iterator[tuple[str, Contradiction]]:
    """Yields what the numbers of rows contradict, with the split."""
    constraints = schema.dataset_constraints
    for name, split in splits.items():
        rows = int(split.proto.num_examples)
        if rows < constraints.min_examples_count:
            text = f"{rows:,} rows, and the schema requires at least {constraints.min_examples_count:,}"
            yield name, ("DATASET_LOW_NUM_EXAMPLES", "too few rows", text)
        if constraints.HasField("max_examples_count") and rows > constraints.max_examples_count:
            text = f"{rows:,} rows, and the schema allows at most {constraints.max_examples_count:,}"
            yield name, ("DATASET_HIGH_NUM_EXAMPLES", "too many rows", text)
    if previous is None or "train" not in splits or not previous.num_examples:
        return
    comparator = constraints.num_examples_drift_comparator
    rows, before = int(splits["train"].proto.num_examples), int(previous.num_examples)
    text = f"{rows:,} rows are {rows / before:.4g} times the {before:,} of the published model, "
    if comparator.HasField("min_fraction_threshold") and rows / before < comparator.min_fraction_threshold:
        text += f"below {comparator.min_fraction_threshold:g}"
        yield "train", ("COMPARATOR_LOW_NUM_EXAMPLES", "too few rows", text)
    if comparator.HasField("max_fraction_threshold") and rows / before > comparator.max_fraction_threshold:
        text += f"above {comparator.max_fraction_threshold:g}"
        yield "train", ("COMPARATOR_HIGH_NUM_EXAMPLES", "too many rows", text)


def _label_anomalies(label: ExampleColumn, splits: Mapping[str, SplitStatistics]) -> list[Anomaly]:
    """Returns what is wrong with a label. It is an error if it prevents training or evaluation."""
    anomalies: list[Anomaly] = []
    if label.view != "number" or label.is_time or label.levels:
        lists = "lists of " if label.levels else ""
        text = f"the label is {lists}{_Types.Type.Name(label.type)}, and must be 0 and 1, or false and true"
        return [Anomaly(label.name, "", "ERROR", "UNEXPECTED_DATA_TYPE", "label not binary", text)]
    for name, split in splits.items():
        stats, not_binary = split.features[label.name].num_stats, split.domains.not_binary.get(label.name, 0)
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
