"""Schema of the examples, inferred from the train split as TFDV does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from tidemill import storage
from tidemill.validation import statistics
from tidemill.validation.columns import ExampleColumn

FILE = "schema.pbtxt"
MAX_DOMAIN_VALUES = 100
_Types = statistics_pb2.FeatureNameStatistics
TYPES = {
    _Types.INT: schema_pb2.INT,
    _Types.FLOAT: schema_pb2.FLOAT,
    _Types.STRING: schema_pb2.BYTES,
    _Types.BYTES: schema_pb2.BYTES,
    _Types.STRUCT: schema_pb2.STRUCT,
}


def infer(train: statistics_pb2.DatasetFeatureStatistics, columns: Sequence[ExampleColumn]) -> schema_pb2.Schema:
    """Infers a schema from the train split.

    A column without missing values is required (`min_fraction: 1`) and has shape [1], or the shape of its lists if all
    have the same length. Any other column must have at least one value, unless train has none. The domain of a string
    column is its values if there are at most 100, each occurring twice on average. Booleans and the label have the
    range 0 to 1. Instants are seconds since 1970.

    Args:
        train: Statistics of train.
        columns: The columns of train.
    """
    schema = schema_pb2.Schema()
    stats = statistics.by_name(train)
    for column in columns:
        measured = stats[column.name]
        common = statistics.common(measured)
        feature = schema.feature.add(name=column.name, type=TYPES[column.type])
        if common.num_non_missing:
            feature.presence.min_count = 1
        if common.num_non_missing and not common.num_missing:
            feature.presence.min_fraction = 1.0
        _infer_counts(feature, column, common)
        _infer_domain(schema, feature, column, measured, common.num_non_missing)
    return schema


def _infer_counts(feature: schema_pb2.Feature, column: ExampleColumn, common: statistics_pb2.CommonStatistics) -> None:
    """Infers the shape, or else the number of values in a row, as TFDV does."""
    nested = list(common.presence_and_valency_stats)
    counts = [(s.min_num_values, s.max_num_values, s.num_missing) for s in nested]
    counts = counts or [(common.min_num_values, common.max_num_values, common.num_missing)]
    if not column.levels and not common.num_non_missing:
        counts = [(1, 1, common.num_missing)]
    if all(low == high > 0 and not missing for low, high, missing in counts):
        for low, _, _ in counts:
            feature.shape.dim.add(size=low)
        return
    for low, high, _ in counts:
        count = feature.value_counts.value_count.add() if nested else feature.value_count
        if low == high > 0:
            count.min = count.max = low
        elif low > 0:
            count.min = 1


def _infer_domain(
    schema: schema_pb2.Schema,
    feature: schema_pb2.Feature,
    column: ExampleColumn,
    measured: statistics_pb2.FeatureNameStatistics,
    present: int,
) -> None:
    if column.is_bool or (column.role == "label" and column.type == _Types.INT):
        feature.int_domain.min, feature.int_domain.max = 0, 1
    elif column.is_time:
        feature.time_domain.integer_format = schema_pb2.TimeDomain.UNIX_SECONDS
    if column.view != "category":
        return
    if column.type == _Types.INT:
        feature.int_domain.is_categorical = True
        return
    if column.type == _Types.FLOAT:
        feature.float_domain.is_categorical = True
        return
    values = [bucket.label for bucket in measured.string_stats.rank_histogram.buckets]
    if 0 < measured.string_stats.unique <= MAX_DOMAIN_VALUES and 2 * measured.string_stats.unique <= present:
        schema.string_domain.add(name=column.name, value=sorted(values))
        feature.domain = column.name


def write(path: str | os.PathLike, schema: schema_pb2.Schema) -> None:
    """Writes a folder with only `schema.pbtxt`: TFX reads the single file of a schema artifact."""
    target = Path(path)
    storage.refuse_file(target)
    partial = target.with_name(target.name + ".partial")
    storage.remove_folder(partial)
    partial.mkdir(parents=True)
    (partial / FILE).write_text(text_format.MessageToString(schema, as_utf8=True), encoding="utf-8")
    storage.remove_folder(target)
    os.replace(partial, target)
