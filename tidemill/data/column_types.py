"""Types of a table's columns: declared types, types inferred from all values, and checks that files agree.

Types are inferred from all values, not from a sample and not by DuckDB's sniffer: the result must not depend on the
order of the files, and one malformed row must not change the delimiter. A column gets a type if all but a share of
`TOLERANCE` of its values have it. The remaining values count as malformed and are reported with their lines; they do
not turn the column into text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import duckdb

from tidemill.data.source_files import SourceFile
from tidemill.duckdb_session import literal, quote
from tidemill.errors import Code, TidemillError, suggest_name

INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
"""DuckDB's integer types of up to 64 bits."""
TOLERANCE = 0.05
"""Largest share of a column's values that may contradict its inferred type."""

_INT, _NUMBER, _DATE, _TIME, _BOOL, _TEXT = range(6)
_KINDS = _TEXT + 1
_FITTING = {
    "BIGINT": (_INT,),
    "DOUBLE": (_INT, _NUMBER),
    "DATE": (_DATE,),
    "TIMESTAMP": (_DATE, _TIME),
    "BOOLEAN": (_BOOL,),
    "VARCHAR": range(_KINDS),
}
"""The kinds of values that a type keeps."""
_INT_PATTERN = r"\s*[+-]?[0-9]{1,18}\s*"
_NUMBER_PATTERN = r"(?i)\s*[+-]?(([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(e[+-]?[0-9]+)?|nan|inf|infinity)\s*"
_LONG_PATTERN = r"\s*[+-]?[0-9]{19,}\s*"


def check_same_columns(
    table_name: str, file: SourceFile, columns: Sequence[str], first: SourceFile, first_columns: Sequence[str]
) -> None:
    """Checks that a file has the columns of the table's first file, in any order.

    Raises:
        TidemillError: `unreadable-file`.
    """
    missing = sorted(set(first_columns) - set(columns))
    extra = sorted(set(columns) - set(first_columns))
    if missing or extra:
        got = " and ".join(
            f"{word} column{'s' * (len(names) > 1)} {', '.join(map(repr, names[:5]))}"
            for word, names in (("no", missing), ("the extra", extra))
            if names
        )
        where = f"{table_name}: {file.uri}"
        raise TidemillError(Code.UNREADABLE_FILE, where, got, f"give all files of a table the columns of {first.uri}")


def check_declared(table_name: str, types: Iterable[str], columns: Sequence[str]) -> None:
    """Checks that the files have each declared column.

    Raises:
        TidemillError: `missing-column`.
    """
    for column in types:
        if column not in columns:
            where, got = f"source.tables.{table_name}.columns", f"{column!r}, which the files do not have"
            raise TidemillError(Code.MISSING_COLUMN, where, got, suggest_name(column, columns))


def with_expected(types: dict[str, str], expected: Mapping[str, str], columns: Iterable[str]) -> dict[str, str]:
    """Returns declared types together with the expected ones that `infer_type` never returns, such as TINYINT.

    Args:
        types: Declared types by column.
        expected: Types that a published model knows.
        columns: The columns of the files.
    """
    return {c: expected[c] for c in columns if c in expected and expected[c] not in _FITTING} | types


def count_kinds(connection: duckdb.DuckDBPyConnection, relation: str, columns: list[str]) -> dict[str, Counter]:
    """Counts how many values of each text column look like an integer, a number, a date, a time, a boolean or text.

    Args:
        connection: The database.
        relation: A query whose `columns` are VARCHAR.
        columns: The columns to count.

    Returns:
        A counter for `infer_type` by column. Counters of several relations can be added. Nulls are not counted.
    """
    kinds = ", ".join(f"{_kind(quote(c))} AS {quote(c)}" for c in columns)
    counts = ", ".join(f"count(*) FILTER ({quote(c)} = {kind})" for c in columns for kind in range(_KINDS))
    row = connection.execute(f"SELECT {counts} FROM (SELECT {kinds} FROM ({relation}))").fetchall()[0]
    return {c: Counter(dict(enumerate(row[i * _KINDS : (i + 1) * _KINDS]))) for i, c in enumerate(columns)}


def infer_type(kinds: Counter, expected: str | None = None) -> str:
    """Returns the DuckDB type of a column: BIGINT, DOUBLE, DATE, TIMESTAMP, BOOLEAN or VARCHAR.

    Args:
        kinds: The column's counter from `count_kinds`.
        expected: The type that the column has if all values fit it, or if there are none. Defaults to none.
    """
    total = sum(kinds.values())
    if expected is not None and (total == 0 or sum(kinds[kind] for kind in _FITTING.get(expected, ())) == total):
        return expected
    least = total * (1 - TOLERANCE)
    if total == 0:
        return "VARCHAR"
    if kinds[_INT] + kinds[_NUMBER] >= least:
        return "DOUBLE" if kinds[_NUMBER] else "BIGINT"
    if kinds[_DATE] + kinds[_TIME] >= least:
        return "TIMESTAMP" if kinds[_TIME] else "DATE"
    return "BOOLEAN" if kinds[_BOOL] >= least else "VARCHAR"


def partition_types(
    connection: duckdb.DuckDBPyConnection, declared: dict[str, str], values: list[dict[str, str | None]]
) -> dict[str, str]:
    """Infers the types of the partition columns that are not declared.

    Args:
        connection: The database.
        declared: Declared types by column.
        values: The partition values of each file or group of files.
    """
    types = {}
    for key in values[0]:
        if key not in declared:
            query = f"SELECT unnest({literal([v[key] for v in values])})::VARCHAR AS {quote(key)}"
            types[key] = infer_type(count_kinds(connection, query, [key])[key])
    return types


def _kind(column: str) -> str:
    """Returns an expression for the kind of a value. Cheap tests come first, because most values match one of them.

    Integers of more than 18 digits stay text, which keeps them exact.
    """
    return f"""CASE WHEN {column} IS NULL THEN NULL
        WHEN regexp_full_match({column}, {literal(_INT_PATTERN)}) THEN {_INT}
        WHEN regexp_full_match({column}, {literal(_NUMBER_PATTERN)})
            AND NOT regexp_full_match({column}, {literal(_LONG_PATTERN)}) THEN {_NUMBER}
        WHEN {column}[5] = '-' AND {column}[8] = '-' THEN
            CASE WHEN length({column}) = 10 AND TRY_CAST({column} AS DATE) IS NOT NULL THEN {_DATE}
                WHEN length({column}) > 10 AND TRY_CAST({column} AS TIMESTAMP) IS NOT NULL THEN {_TIME}
                ELSE {_TEXT} END
        WHEN length({column}) < 6 AND lower({column}) IN ('true', 'false') THEN {_BOOL}
        ELSE {_TEXT} END"""
