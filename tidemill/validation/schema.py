"""Schema of the examples: read from a text protocol buffer, or inferred from the train split as TFDV does."""

from __future__ import annotations

import os
from collections.abc import Sequence

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from tidemill.artifacts import artifact
from tidemill.errors import Code, TidemillError
from tidemill.validation import statistics
from tidemill.validation.columns import ExampleColumn

FILE = "schema.pbtxt"
MAX_DOMAIN_VALUES = 100
_WHERE = "validation.schema"
_Types = statistics_pb2.FeatureNameStatistics
TYPES = {
    _Types.INT: schema_pb2.INT,
    _Types.FLOAT: schema_pb2.FLOAT,
    _Types.STRING: schema_pb2.BYTES,
    _Types.BYTES: schema_pb2.BYTES,
    _Types.STRUCT: schema_pb2.STRUCT,
}


def parse(text: str) -> schema_pb2.Schema:
    """Parses a schema from a text protocol buffer.

    Raises:
        TidemillError: `invalid-value` if the text does not parse, describes a column twice, or has a feature without a
            name or with an unknown domain.
    """
    try:
        schema = text_format.Parse(text, schema_pb2.Schema())
    except text_format.ParseError as error:
        want = "write a tensorflow_metadata Schema as text, such as the schema.pbtxt of an earlier run"
        raise TidemillError(Code.INVALID_VALUE, _WHERE, f"a schema that does not parse ({error})", want) from error
    names = [feature.name for feature in schema.feature]
    if "" in names:
        raise TidemillError(Code.INVALID_VALUE, _WHERE, "a feature without a name", "give each feature a name")
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise TidemillError(Code.INVALID_VALUE, _WHERE, f"feature {double[0]!r} twice", "describe each column once")
    domains = {d.name for d in [*schema.string_domain, *schema.int_domain, *schema.float_domain]}
    for feature in schema.feature:
        if feature.domain and feature.domain not in domains:
            got = f"feature {feature.name!r} with the domain {feature.domain!r}, which the schema does not define"
            raise TidemillError(Code.INVALID_VALUE, _WHERE, got, "add the domain, or name another")
    return schema


def infer(train: statistics_pb2.DatasetFeatureStatistics, columns: Sequence[ExampleColumn]) -> schema_pb2.Schema:
    """Infers a schema from the train split.

    A column without missing values is required (`min_fraction: 1`) and has shape [1]. Any other column must have at
    least one value, unless train has none. The domain of a string column is its values if there are at most 100, each
    occurring twice on average. Booleans and the label have the range 0 to 1. Instants are seconds since 1970.

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
            feature.shape.dim.add(size=1)
        else:
            feature.value_count.min = feature.value_count.max = 1
        _infer_domain(schema, feature, column, measured, common.num_non_missing)
    return schema


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
    values = [bucket.label for bucket in measured.string_stats.rank_histogram.buckets]
    if 0 < measured.string_stats.unique <= MAX_DOMAIN_VALUES and 2 * measured.string_stats.unique <= present:
        schema.string_domain.add(name=column.name, value=sorted(values))
        feature.domain = column.name


def string_domains(schema: schema_pb2.Schema) -> dict[str, list[str]]:
    """Returns the allowed values of each string column that has a domain."""
    shared = {domain.name: list(domain.value) for domain in schema.string_domain}
    domains: dict[str, list[str]] = {}
    for feature in schema.feature:
        if feature.WhichOneof("domain_info") == "string_domain":
            domains[feature.name] = list(feature.string_domain.value)
        elif feature.domain in shared:
            domains[feature.name] = shared[feature.domain]
    return domains


def write(path: str | os.PathLike, schema: schema_pb2.Schema) -> None:
    """Writes a sealed folder with `schema.pbtxt`."""
    with artifact.write_folder(path) as root:
        (root / FILE).write_text(text_format.MessageToString(schema, as_utf8=True), encoding="utf-8")
