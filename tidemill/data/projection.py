"""Projection of the query's result onto the columns of examples, with the types of a given schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from tidemill.data.quarantine import QUERY
from tidemill.duckdb_session import literal, quote
from tidemill.errors import Code, TidemillError

_KEPT = re.compile(
    r"BOOLEAN|TINYINT|SMALLINT|INTEGER|BIGINT|UTINYINT|USMALLINT|UINTEGER|VARCHAR|BLOB|DATE|TIME|TIMESTAMP(_S|_MS|_NS)?"
    r"|TIMESTAMP WITH TIME ZONE"
)
_NUMERIC = re.compile(r"U?(BOOLEAN|TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT)$|FLOAT|DOUBLE|DECIMAL")
_NARROWED = ("HUGEINT", "UHUGEINT", "UBIGINT")


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


def project(columns: dict[str, str], schema_text: str | None, targets: Mapping[str, str] | None = None) -> Projection:
    """Chooses the types of the examples' columns.

    - NaN becomes null, and DECIMAL becomes double.
    - HUGEINT, UHUGEINT and UBIGINT become signed integers of 64 bits.
    - Dates, times, timestamps, lists and structs do not change.
    - ENUM, UUID, INTERVAL, BIT and all other types become strings.
    - A column that the schema names becomes int64 (INT), double (FLOAT) or string (BYTES).

    Args:
        columns: The columns of the query's result with their DuckDB types.
        schema_text: A tensorflow_metadata Schema as a text protocol buffer.
        targets: Types that columns become as if the schema had them: BIGINT, DOUBLE or VARCHAR. Defaults to none.

    Raises:
        TidemillError: `unreadable-file` if the schema does not parse.
    """
    schema_types = _schema_types(schema_text) if schema_text is not None else {}
    schema_types |= targets or {}
    expressions, malformed = {}, {}
    for column, kind in columns.items():
        quoted = quote(column)
        expressions[column] = _plain(quoted, kind)
        if column in schema_types and schema_types[column] != kind:
            expressions[column], condition = _cast(quoted, kind, schema_types[column])
            if condition != "false":
                malformed[column] = condition
    cases = " ".join(
        f"WHEN {test} THEN {literal(f'Could not convert {c} to {schema_types[c]}')}" for c, test in malformed.items()
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
            raise TidemillError(Code.SQL_ERROR, "source.sql", got, "cast the column to DOUBLE or VARCHAR in the query")


def _plain(quoted: str, kind: str) -> str:
    if kind in ("FLOAT", "DOUBLE"):
        return f"CASE WHEN isnan({quoted}) THEN NULL ELSE {quoted} END"
    if kind.startswith("DECIMAL"):
        return f"CAST({quoted} AS DOUBLE)"
    if kind in _NARROWED:
        return f"CAST({quoted} AS BIGINT)"
    if kind == '"NULL"':
        return f"CAST({quoted} AS INTEGER)"
    if _KEPT.fullmatch(kind) or kind.endswith("]") or kind.startswith(("STRUCT", "MAP")):
        return quoted
    return f"CAST({quoted} AS VARCHAR)"


def _cast(quoted: str, kind: str, target: str) -> tuple[str, str]:
    """Returns the cast column and the condition for values that cannot be cast. Fractions do not cast to integers."""
    if target.endswith("[]"):  # only of a column without values
        return f"CAST(NULL AS {target})", "false"
    if target == "VARCHAR":
        return f"CAST({quoted} AS VARCHAR)", "false"
    value = quoted if _NUMERIC.match(kind) else f"CAST({quoted} AS VARCHAR)"
    number = f"TRY_CAST({value} AS DOUBLE)"
    missing = f"coalesce(isnan({number}), false)"
    if target == "DOUBLE":
        return f"CASE WHEN {missing} THEN NULL ELSE {number} END", f"({quoted} IS NOT NULL AND {number} IS NULL)"
    whole = f"TRY_CAST({value} AS BIGINT)"
    exact = f"coalesce({whole} IS NOT NULL AND {number} = floor({number}), false)"
    broken = f"({quoted} IS NOT NULL AND NOT {missing} AND NOT {exact})"
    return f"CASE WHEN {missing} THEN NULL ELSE {whole} END", broken


def _schema_types(text: str) -> dict[str, str]:
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    try:
        schema = text_format.Parse(text, schema_pb2.Schema())
    except text_format.ParseError as error:
        got, want = f"text that does not parse as a Schema ({error})", "write a schema.pbtxt of tensorflow_metadata"
        raise TidemillError(Code.UNREADABLE_FILE, "validation.schema", got, want) from error
    types = {schema_pb2.INT: "BIGINT", schema_pb2.FLOAT: "DOUBLE", schema_pb2.BYTES: "VARCHAR"}
    return {feature.name: types[feature.type] for feature in schema.feature if feature.type in types}
