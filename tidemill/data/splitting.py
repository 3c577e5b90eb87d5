"""Splits: assigns each row to train, valid or test, and defines the order in which rows are written.

Both depend only on the content of a row, not on its position: on the MD5 of a text of the row's key, or of all columns
if there is no key. MD5 is the same in every version and engine; DuckDB's `hash` is not. Rows are written in the order
of that hash, which amounts to a shuffle. With `by: time` they are written in the order of time, then hash. A span
column comes first. DuckDB sorts within its memory limit and spills to disk.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from tidemill.artifacts.examples import SPLITS
from tidemill.duckdb_session import literal, quote
from tidemill.errors import Code, TidemillError, suggest_name
from tidemill.experiment.source import Split

_RANGE = 1 << 64
_NESTED = ("[", "STRUCT", "MAP", "UNION")
_TIMES = ("DATE", "TIMESTAMP", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")
_UNSIGNED = ("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_SIZES = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")
_SPANS = ("DATE", "TIMESTAMP", "VARCHAR", *(f"{sign}{size}" for sign in ("", "U") for size in _SIZES))
_MAX_SPANS = 10_000


@dataclass(frozen=True)
class SplitExpressions:
    """SQL expressions over a result's columns that define the splits.

    Attributes:
        split: The index of the row's split in `SPLITS`.
        order: Expressions to order by within a split. Rows that tie in all of them are equal or have the same key.
        span: The span of the row; each span gets separate files. If given, it is the first of `order`.
    """

    split: str
    order: tuple[str, ...]
    span: str | None = None


def split_expressions(
    connection: duckdb.DuckDBPyConnection, relation: str, columns: dict[str, str], split: Split, key: list[str]
) -> SplitExpressions:
    """Returns the expressions that assign each row to a split.

    Args:
        connection: The database.
        relation: The table or view with the rows.
        columns: Its columns with their DuckDB types.
        split: The experiment's `split`. Its columns are among `columns`.
        key: The key columns; may be empty.

    Raises:
        TidemillError: `invalid-value` if the split column holds nulls, has a type without an order in time, or holds
            names that are not splits; or if the span column holds nulls or more than 10,000 values.
    """
    rows = _row_expressions(connection, relation, columns, split, key)
    if split.span is None:
        return rows
    _check_span(connection, relation, split.span, columns[split.span])
    span = quote(split.span)
    return SplitExpressions(rows.split, (span, *rows.order), span)


def _row_expressions(
    connection: duckdb.DuckDBPyConnection, relation: str, columns: dict[str, str], split: Split, key: list[str]
) -> SplitExpressions:
    row = row_hash_sql(columns, key)
    if split.by == "time":
        return _by_time(connection, relation, columns, split, row)
    if split.by == "column":
        return _by_column(connection, relation, split, row)
    identity = [split.column] if split.by == "hash" and split.column is not None else key
    text = _text({c: columns[c] for c in identity or columns})
    share = f"md5_number_lower({literal(f'{split.seed}|')} || {text})"
    return SplitExpressions(_threshold(share, split, _RANGE), (row,))


def row_hash_sql(columns: dict[str, str], key: list[str]) -> str:
    """Returns an expression for the 128-bit hash of a row's key, or of all columns if there is no key."""
    return f"md5_number({_text({c: columns[c] for c in key or columns})})"


def _text(columns: dict[str, str]) -> str:
    """Returns an expression for an unambiguous text of several values: strings carry their length."""
    parts = []
    for column, kind in columns.items():
        quoted = quote(column)
        if kind.startswith(_NESTED[1:]) or kind.endswith("]"):
            value = f"to_json({quoted})::VARCHAR"
        elif kind.startswith("VARCHAR") or kind == "JSON":
            value = f"strlen({quoted}) || ':' || {quoted}"
        elif kind == "BLOB":
            value = f"hex({quoted})"
        else:
            value = f"{quoted}::VARCHAR"
        parts.append(f"coalesce({value}, '-')")
    return f"concat_ws('|', {', '.join(parts)})"


def _threshold(value: str, split: Split, total: int) -> str:
    """Returns an expression for the index of the split whose cumulative fraction contains `value`, 0 to `total`."""
    train = round(split.fractions.train * total)
    valid = round((split.fractions.train + split.fractions.valid) * total)
    cases = ""
    if train < total:
        cases += f"WHEN {value} >= {train} THEN 1 "
    if split.fractions.test > 0 and valid < total:
        cases = f"WHEN {value} >= {valid} THEN 2 " + cases
    return f"CASE {cases}ELSE 0 END" if cases else "0"


def _by_time(
    connection: duckdb.DuckDBPyConnection, relation: str, columns: dict[str, str], split: Split, row: str
) -> SplitExpressions:
    column = str(split.column)
    if not columns[column].startswith((*_TIMES, *_UNSIGNED)):
        got, want = f"{column!r} of type {columns[column]}", "cast it to a timestamp, a date or a number in the query"
        raise TidemillError(Code.INVALID_VALUE, "split.column", got, want)
    time = quote(column)
    rows, known = connection.execute(
        f"SELECT count(*), count(*) FILTER ({_not_nan(time, columns[column])}) FROM {relation}"
    ).fetchall()[0]
    _check_known(column, rows - known)
    starts = f"""SELECT instant, sum(n) OVER (ORDER BY instant) - n AS start
        FROM (SELECT {time} AS instant, count(*) AS n FROM {relation} GROUP BY ALL)"""
    index = _threshold("start", split, rows)
    # The bounds pass through Python as text of the column's own type, so that they stay exact.
    bounds = connection.execute(
        f"SELECT {index} AS split, min(instant)::VARCHAR FROM ({starts}) GROUP BY split ORDER BY split DESC"
    ).fetchall()
    cases = [f"WHEN {time} >= CAST({literal(bound)} AS {columns[column]}) THEN {i}" for i, bound in bounds if i > 0]
    return SplitExpressions(f"CASE {' '.join(cases)} ELSE 0 END" if cases else "0", (time, row))


def _not_nan(column: str, kind: str) -> str:
    return f"NOT isnan({column})" if kind in ("FLOAT", "DOUBLE") else f"{column} IS NOT NULL"


def _by_column(connection: duckdb.DuckDBPyConnection, relation: str, split: Split, row: str) -> SplitExpressions:
    column = quote(str(split.column))
    index = f"list_position({literal(list(SPLITS))}, {column}::VARCHAR)"
    values = connection.execute(
        f"SELECT {column}::VARCHAR, count(*) FROM {relation} WHERE {index} IS NULL GROUP BY 1 ORDER BY ALL LIMIT 5"
    ).fetchall()
    _check_known(str(split.column), sum(n for value, n in values if value is None))
    if values:
        value, count = values[0]
        got = f"the split {value!r} in {count:,} rows"
        raise TidemillError(
            Code.INVALID_VALUE, f"split.column {split.column!r}", got, suggest_name(value, list(SPLITS))
        )
    return SplitExpressions(f"{index} - 1", (row,))


def _check_span(connection: duckdb.DuckDBPyConnection, relation: str, name: str, kind: str) -> None:
    if not kind.startswith(_SPANS) or kind.endswith("]"):
        got, want = f"{name!r} of type {kind}", "cast it to a date, an integer or a string in the query"
        raise TidemillError(Code.INVALID_VALUE, "split.span", got, want)
    column = quote(name)
    values, nulls = connection.execute(
        f"SELECT count(DISTINCT {column}), count(*) - count({column}) FROM {relation}"
    ).fetchall()[0]
    _check_known(name, nulls, "span")
    if values > _MAX_SPANS:
        got, want = f"{values:,} values, more than {_MAX_SPANS:,}", "round it in the query, such as to a date"
        raise TidemillError(Code.INVALID_VALUE, f"split.span {name!r}", got, want)


def _check_known(column: str, nulls: int, setting: str = "column") -> None:
    if nulls:
        want = "leave out these rows in the query, or give them a value"
        raise TidemillError(
            Code.INVALID_VALUE, f"split.{setting} {column!r}", f"{nulls:,} nulls", want, {"nulls": nulls}
        )
