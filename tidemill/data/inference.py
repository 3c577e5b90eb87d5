"""The types of columns that nobody declared, found from all their values.

Not from a sample, and not by DuckDB's sniffer: the result must not depend on the order of files, and a ragged row must
not choose another delimiter. A type is taken when all values have it, or nearly all: with fewer than `TOLERANCE`
exceptions these are taken for broken values, which are then reported with their line, and not for a reason to make the
column text.
"""

from __future__ import annotations

from collections import Counter

import duckdb

from tidemill.duckdb_session import literal, quote

TOLERANCE = 0.05
"""Largest share of a column's values that may contradict its type."""

_INT, _NUMBER, _DATE, _TIME, _BOOL, _TEXT = range(6)
_INT_PATTERN = r"\s*[+-]?[0-9]{1,18}\s*"
_NUMBER_PATTERN = r"(?i)\s*[+-]?(([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(e[+-]?[0-9]+)?|nan|inf|infinity)\s*"
_LONG_PATTERN = r"\s*[+-]?[0-9]{19,}\s*"


def count_kinds(connection: duckdb.DuckDBPyConnection, relation: str, columns: list[str]) -> dict[str, Counter]:
    """How many of each text column's values look like a whole number, a number, a date and so on.

    Args:
        relation: A query whose `columns` are VARCHAR.

    Returns:
        For each column a counter that `type_of` understands; counters of several relations may be added. Nulls are not
        counted.
    """
    kinds = ", ".join(f"{_kind(quote(c))} AS {quote(c)}" for c in columns)
    counts = ", ".join(f"count(*) FILTER ({quote(c)} = {kind})" for c in columns for kind in range(_TEXT + 1))
    row = connection.execute(f"SELECT {counts} FROM (SELECT {kinds} FROM ({relation}))").fetchall()[0]
    size = _TEXT + 1
    return {c: Counter(dict(enumerate(row[i * size : (i + 1) * size]))) for i, c in enumerate(columns)}


def type_of(kinds: Counter) -> str:
    """The DuckDB type for a column with these values: BIGINT, DOUBLE, DATE, TIMESTAMP, BOOLEAN or VARCHAR."""
    total = sum(kinds.values())
    least = total * (1 - TOLERANCE)
    if total == 0:
        return "VARCHAR"
    if kinds[_INT] + kinds[_NUMBER] >= least:
        return "DOUBLE" if kinds[_NUMBER] else "BIGINT"
    if kinds[_DATE] + kinds[_TIME] >= least:
        return "TIMESTAMP" if kinds[_TIME] else "DATE"
    return "BOOLEAN" if kinds[_BOOL] >= least else "VARCHAR"


def _kind(column: str) -> str:
    """Cheap tests first: most values are done after one. Whole numbers beyond 18 digits stay text, exact."""
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
