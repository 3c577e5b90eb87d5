"""Columns of the examples as validation reads them: their role in the experiment, and how their values are counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pyarrow as pa
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from tidemill.duckdb_session import quote
from tidemill.errors import Code, TidemillError
from tidemill.experiment.features import Categorical, Cross
from tidemill.steps.validate import ValidateSpec

Role = Literal["feature", "label", "key", "other"]
View = Literal["number", "category", "bytes", "opaque"]
_Types = statistics_pb2.FeatureNameStatistics
_VALUE = "tidemill_value"


@dataclass(frozen=True)
class ExampleColumn:
    """One column of the examples.

    Attributes:
        name: Its name.
        role: `feature` (models may use it), `label`, `key`, or `other` (such as the split's column or a timestamp).
        view: What is computed: `number` (a distribution), `category` (counts of values), `bytes` (only lengths) or
            `opaque` (only presence; structs). For a list it applies to the values in the list.
        type: Its type in `FeatureNameStatistics.Type`.
        sql: DuckDB expression of its values. It returns a DOUBLE or BIGINT for `number` (NULL and NaN are missing), a
            VARCHAR for `category`, and the unchanged column for other views. For a list, an expression of one value,
            `tidemill_value`.
        is_bool: Whether the values are booleans (counted as 0 and 1).
        is_time: Whether the values are instants (counted in whole seconds since 1970; UTC if they have no time zone).
        levels: 0 if a row has one value, 1 if it has a list of values, 2 for lists in lists, and so on.
        path: The names from the column to a field of a struct. Empty for a column, whose path is its name.
    """

    name: str
    role: Role
    view: View
    type: int
    sql: str
    is_bool: bool = False
    is_time: bool = False
    levels: int = 0
    path: tuple[str, ...] = ()

    def values(self, table: str) -> str:
        """Returns a query for all values of the column, as the column `v`: one for each row, or those of all lists."""
        if not self.levels:
            return f"SELECT {self.sql} AS v FROM {table}"
        return f"SELECT {self.sql} AS v FROM (SELECT unnest({self.lists(self.levels)}) AS {_VALUE} FROM {table})"

    def lists(self, level: int) -> str:
        """Returns the expression of a list column whose elements are those of the given level, from 1."""
        return "flatten(" * (level - 1) + field_sql(self.steps) + ")" * (level - 1)

    @property
    def steps(self) -> tuple[str, ...]:
        """The path of the column or field."""
        return self.path or (self.name,)

    @property
    def is_float(self) -> bool:
        """Whether the values are floating-point numbers, which can be infinite or NaN."""
        return self.type == _Types.FLOAT


def field_sql(path: Sequence[str]) -> str:
    """Returns the expression of a column, or of a field of a struct."""
    return ".".join(map(quote, path))


def resolve(spec: ValidateSpec, arrow: pa.Schema, given: schema_pb2.Schema | None) -> list[ExampleColumn]:
    """Returns the columns of the examples in the order of their Arrow schema.

    A column is a category if it contains strings, if its feature is `categorical`, or if only crosses read it. Without
    `features`, a column of numbers is a category if the given schema says so. A list is what its values are. The fields
    of a struct follow it if the given schema describes them.

    Args:
        spec: The step's spec.
        arrow: The Arrow schema of the examples.
        given: The given schema, if any, from `schema_text.flatten`.

    Raises:
        TidemillError: `missing-column` if a label or a feature's column does not exist, `unsupported` if the schema
            describes the fields of lists of structs.
    """
    _check_present(spec, arrow.names)
    features = set(candidates(spec, arrow))
    categories = _categories(spec, given)
    structs = {f.name for f in given.feature if f.HasField("struct_domain")} if given is not None else set()
    columns: list[ExampleColumn] = []
    for field in arrow:
        columns.append(_column(field, (field.name,), _role(spec, field.name, features), field.name in categories))
        columns += _fields(field, (field.name,), structs)
    return columns


def candidates(spec: ValidateSpec, arrow: pa.Schema) -> list[str]:
    """Returns the names of the columns that models may use: those that the features read. Without `features`: all
    columns except the key, the labels, the split's column and instants."""
    if spec.feature_columns is not None:
        return list(spec.feature_columns)
    excluded = {*spec.labels, spec.split_column, *spec.key}
    return [f.name for f in arrow if f.name not in excluded and not pa.types.is_temporal(f.type)]


def _check_present(spec: ValidateSpec, names: Sequence[str]) -> None:
    required = [("label" if len(spec.labels) == 1 else "labels", label) for label in spec.labels]
    required += [(f"features.{name}", name) for name in spec.feature_columns or []]
    for gate, columns in (("drift", spec.drift.columns), ("unseen", spec.unseen.columns)):
        required += [(f"validation.{gate}.columns.{name}", name) for name in columns]
    for where, name in required:
        if name not in names:
            got = f"{name!r}, which is not among the columns {', '.join(names)}"
            raise TidemillError(
                Code.MISSING_COLUMN, where, got, "name a column that the query returns", {"column": name}
            )


def _categories(spec: ValidateSpec, given: schema_pb2.Schema | None) -> set[str]:
    if spec.features is not None:
        crossed = {c for f in spec.features.values() if isinstance(f, Cross) for c in f.of}
        single = {name: f for name, f in spec.features.items() if not isinstance(f, Cross)}
        return {n for n, f in single.items() if isinstance(f, Categorical)} | (crossed - set(single))
    if given is None:
        return set()
    return {f.name for f in given.feature if f.int_domain.is_categorical or f.float_domain.is_categorical}


def _role(spec: ValidateSpec, name: str, features: set[str]) -> Role:
    if name in spec.labels:
        return "label"
    if name in features:
        return "feature"
    return "key" if name in spec.key else "other"


def _fields(struct: pa.Field, path: tuple[str, ...], structs: set[str]) -> list[ExampleColumn]:
    """Returns the fields of a struct that the schema describes, and those of structs in it."""
    if ".".join(path) not in structs:
        return []
    if _is_list(struct.type) and pa.types.is_nested(struct.type.value_type):
        got, want = f"struct_domain of feature {'.'.join(path)!r}, a list of structs", "select its fields in the query"
        raise TidemillError(Code.UNSUPPORTED, "validation.schema", got, want)
    columns: list[ExampleColumn] = []
    for field in struct.type if pa.types.is_struct(struct.type) else []:
        below = (*path, field.name)
        columns.append(_column(field, below, "other", False))
        columns += _fields(field, below, structs)
    return columns


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _column(field: pa.Field, path: tuple[str, ...], role: Role, category: bool) -> ExampleColumn:
    kind, levels = field.type, 0
    while _is_list(kind):
        kind, levels = kind.value_type, levels + 1
    column = _value_column(".".join(path), _VALUE if levels else field_sql(path), kind, role, category)
    return replace(column, levels=levels, path=path if len(path) > 1 else ())


def _value_column(column: str, name: str, kind: pa.DataType, role: Role, category: bool) -> ExampleColumn:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_bool = pa.types.is_boolean(kind)
    is_time = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    if pa.types.is_integer(kind) or is_bool:
        sql = f"CAST({name} AS {'DOUBLE' if kind == pa.uint64() else 'BIGINT'})"
        if category and role == "feature":
            return ExampleColumn(column, role, "category", _Types.INT, f"CAST({sql} AS VARCHAR)", is_bool)
        return ExampleColumn(column, role, "number", _Types.INT, sql, is_bool)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        if category and role == "feature":
            return ExampleColumn(column, role, "category", _Types.FLOAT, f"CAST(CAST({name} AS DOUBLE) AS VARCHAR)")
        return ExampleColumn(column, role, "number", _Types.FLOAT, f"CAST({name} AS DOUBLE)")
    if is_time:
        sql = f"CAST(floor(epoch(CAST({name} AS TIMESTAMP))) AS BIGINT)"
        return ExampleColumn(column, role, "number", _Types.INT, sql, is_time=True)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return ExampleColumn(column, role, "category", _Types.STRING, f"CAST({name} AS VARCHAR)")
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return ExampleColumn(column, role, "bytes", _Types.BYTES, name)
    return ExampleColumn(column, role, "opaque", _Types.STRUCT, name)
