"""Projection of the query's result onto the columns of examples, with the types of a given schema."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import duckdb

from tidemill.data.quarantine import QUERY
from tidemill.data.text_values import exact_cast
from tidemill.duckdb_session import literal, null_for_nan, quote
from tidemill.errors import Code, TidemillError

_KEPT = re.compile(
    r"BOOLEAN|TINYINT|SMALLINT|INTEGER|BIGINT|UTINYINT|USMALLINT|UINTEGER|VARCHAR|BLOB|DATE|TIME|TIMESTAMP(_S|_MS|_NS)?"
    r"|TIMESTAMP WITH TIME ZONE|TIMESTAMPTZ_NS"
)
_NUMERIC = re.compile(r"U?(BOOLEAN|TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT)$|FLOAT|DOUBLE|DECIMAL")
_TIME = re.compile(r"DATE|TIME|INTERVAL")
_RESPELLED = re.compile(r"BOOLEAN|FLOAT|DOUBLE|DATE|TIME")
_NESTED = re.compile(r"STRUCT|MAP|UNION")
_NARROWED = ("HUGEINT", "UHUGEINT", "UBIGINT")
EXAMINED = (*_NARROWED, "DECIMAL", "BLOB")
"""Types whose values decide the type of the examples' column, or whether there is one."""


@dataclass(frozen=True)
class Projection:
    """SQL expressions that convert the query's result to the columns of examples.

    Attributes:
        columns: An expression for each column.
        malformed: A condition for rows that contradict the schema. None if no row can.
        reason: An expression for the first contradiction of such a row.
    """

    columns: dict[str, str]
    malformed: str | None
    reason: str

    def quarantine_query(self, relation: str, columns: list[str]) -> str:
        """Returns a query for the malformed rows with the columns that `Quarantine.take` expects."""
        text = "{" + ", ".join(f"{literal(c)}: {quote(c)}" for c in columns) + "}"
        return f"""SELECT {literal(QUERY)} AS "table", NULL AS uri, NULL AS line, {self.reason} AS reason,
            to_json({text})::VARCHAR AS text FROM {relation} WHERE {self.malformed}"""


def exact_types(connection: duckdb.DuckDBPyConnection, relation: str, columns: dict[str, str]) -> dict[str, str]:
    """Returns the types that hold the values of decimal and binary columns exactly, by column.

    - DECIMAL without fraction digits: BIGINT if all values fit, else VARCHAR.
    - DECIMAL with fraction digits: DOUBLE if all values have the same digits as a DOUBLE, else DECIMAL.
    - BLOB: VARCHAR if all values are UTF-8, else BLOB.

    Args:
        connection: The database.
        relation: The table or view with the query's result.
        columns: Its columns with their DuckDB types.
    """
    tests, preferred = {}, {}
    for column, kind in columns.items():
        value = quote(column)
        if kind.startswith("DECIMAL"):
            preferred[column] = "BIGINT" if kind.endswith(",0)") else "DOUBLE"
            tests[column] = f"TRY_CAST(TRY_CAST({value} AS {preferred[column]}) AS {kind}) IS NOT DISTINCT FROM {value}"
        elif kind == "BLOB":
            preferred[column] = "VARCHAR"
            tests[column] = f"({value} IS NULL OR TRY(decode({value})) IS NOT NULL)"
    if not tests:
        return {}
    wanted = ", ".join(f"coalesce(bool_and({test}), true)" for test in tests.values())
    row = connection.execute(f"SELECT {wanted} FROM {relation}").fetchall()[0]
    types = {}
    for column, fits in zip(tests, row, strict=True):
        fallback = "VARCHAR" if preferred[column] == "BIGINT" else columns[column]
        types[column] = preferred[column] if fits else fallback
    return types


def project(
    columns: dict[str, str],
    schema_text: str | None,
    targets: Mapping[str, str] | None = None,
    exact: Mapping[str, str] | None = None,
    key: Sequence[str] = (),
) -> Projection:
    """Chooses the types of the examples' columns.

    - NaN becomes null.
    - DECIMAL and BLOB become what `exact_types` says. A key with fraction digits stays DECIMAL.
    - HUGEINT, UHUGEINT and UBIGINT become signed integers of 64 bits.
    - Dates, times, timestamps, lists and structs do not change.
    - ENUM, UUID, INTERVAL, BIT and all other types become strings.
    - A column that the schema names becomes int64 (INT), double (FLOAT) or string (BYTES), and a list becomes a list of
      them. Types that have no such value (times as numbers, binary values, structs) do not change; `validate` reports
      them.

    Args:
        columns: The columns of the query's result with their DuckDB types.
        schema_text: A tensorflow_metadata Schema as a text protocol buffer.
        targets: Types that columns become as if the schema had them: BIGINT, DOUBLE or VARCHAR. Defaults to none.
        exact: The types from `exact_types`. Defaults to none, if no column needs one.
        key: Columns that later steps only carry. Defaults to none.

    Raises:
        TidemillError: `invalid-value` if the schema does not parse, `unsupported` if it has a field that is not obeyed.
    """
    given_types = schema_types(schema_text) if schema_text is not None else {}
    given_types |= targets or {}
    expressions, malformed = {}, {}
    for column, kind in columns.items():
        quoted = quote(column)
        expressions[column] = _plain(quoted, kind, (exact or {}).get(column, kind), column in key)
        if column in given_types and given_types[column] != kind and not _stays(kind, given_types[column]):
            expressions[column], condition = _cast(quoted, kind, given_types[column])
            if condition != "false":
                malformed[column] = condition
    cases = " ".join(
        f"WHEN {test} THEN {literal(f'Could not convert {c} to {given_types[c]}')}" for c, test in malformed.items()
    )
    return Projection(expressions, " OR ".join(malformed.values()) or None, f"CASE {cases} END" if cases else "NULL")


def check_range(connection: duckdb.DuckDBPyConnection, relation: str, columns: dict[str, str]) -> None:
    """Checks that all values of wider integer columns fit into signed 64 bits.

    Raises:
        TidemillError: `sql-error`.
    """
    wide = [column for column, kind in columns.items() if kind in _NARROWED]
    if not wide:
        return
    tests = ", ".join(f"count({quote(c)}) - count(TRY_CAST({quote(c)} AS BIGINT))" for c in wide)
    lost = connection.execute(f"SELECT {tests} FROM {relation}").fetchall()[0]
    for column, count in zip(wide, lost, strict=True):
        if count:
            got = f"{count:,} integers of {column!r} that do not fit into 64 bits"
            raise TidemillError(Code.SQL_ERROR, "source.sql", got, "cast the column to VARCHAR in the query")


def schema_types(text: str) -> dict[str, str]:
    """Returns the DuckDB types of the columns that a given schema describes."""
    from tensorflow_metadata.proto.v0 import schema_pb2

    from tidemill.given_schema import schema_text

    types = {schema_pb2.INT: "BIGINT", schema_pb2.FLOAT: "DOUBLE", schema_pb2.BYTES: "VARCHAR"}
    checked = [feature for feature in schema_text.parse(text).feature if schema_text.is_checked(feature)]
    return {feature.name: types[feature.type] for feature in checked if feature.type in types}


def check_spelling(columns: Mapping[str, str], texts: Collection[str]) -> None:
    """Checks that no column that a given schema makes text has values whose spelling in the files is lost.

    Args:
        columns: The columns of the query's result with their DuckDB types.
        texts: The columns that the schema makes text.

    Raises:
        TidemillError: `feature-type`.
    """
    for column in texts:
        kind = columns.get(column, "")
        if _RESPELLED.match(kind):
            got = f"a {kind} that validation.schema makes text (BYTES), when its spelling in the files is lost"
            want = f"declare {column}: VARCHAR in `columns` of its table, or cast it to VARCHAR in the query"
            raise TidemillError(Code.FEATURE_TYPE, column, got, want)


def _plain(quoted: str, kind: str, exact: str, is_key: bool) -> str:
    if kind.startswith("DECIMAL"):
        return quoted if exact == "DOUBLE" and is_key else f"CAST({quoted} AS {exact})"
    if kind == "BLOB":
        return quoted if exact == kind else f"decode({quoted})"
    if kind in _NARROWED:
        return f"CAST({quoted} AS BIGINT)"
    if kind == '"NULL"':
        return f"CAST({quoted} AS INTEGER)"
    if kind in ("FLOAT", "DOUBLE") or kind.endswith("]") or kind.startswith(("STRUCT", "MAP")):
        return null_for_nan(quoted, kind)
    if _KEPT.fullmatch(kind):
        return quoted
    return f"CAST({quoted} AS VARCHAR)"


def _stays(kind: str, target: str) -> bool:
    """Returns whether a type has no values of the target type: structs, times as numbers, binary values as text."""
    element = kind.split("[")[0]
    if element == "BLOB":
        return target == "VARCHAR" or kind != element
    return _NESTED.match(kind) is not None or (_TIME.match(element) is not None and target != "VARCHAR")


def _cast(quoted: str, kind: str, target: str) -> tuple[str, str]:
    """Returns the cast column and the condition for values that cannot be cast. Fractions do not cast to integers."""
    base, levels = target.rstrip("[]"), kind.count("[") if kind.endswith("]") else 0
    if not levels:
        if base != target:
            return f"CAST(NULL AS {target})", f"({quoted} IS NOT NULL)"
        return _cast_value(quoted, kind, target)
    element = kind.split("[")[0]
    _, condition = _cast_value("tidemill_0", element, base)
    values = _cast_list(quoted, levels, element, base)
    if condition == "false":
        return values, condition
    flat = "flatten(" * (levels - 1) + quoted + ")" * (levels - 1)
    return values, f"coalesce(list_bool_or(list_transform({flat}, lambda tidemill_0: {condition})), false)"


def _cast_list(value: str, levels: int, kind: str, target: str) -> str:
    """Returns an expression that casts the values of a list, or of lists in lists."""
    if not levels:
        return _cast_value(value, kind, target)[0]
    inner = _cast_list(f"tidemill_{levels - 1}", levels - 1, kind, target)
    return f"list_transform({value}, lambda tidemill_{levels - 1}: {inner})"


def _cast_value(value: str, kind: str, target: str) -> tuple[str, str]:
    if kind == "BLOB":
        value, kind = f"TRY(decode({value}))", "VARCHAR"
    value = null_for_nan(value, kind)
    if target == "VARCHAR":
        return f"CAST({value} AS VARCHAR)", "false"
    if _NUMERIC.match(kind):
        return exact_cast(value, kind, target)
    return exact_cast(f"CAST({value} AS VARCHAR)", "VARCHAR", target)
