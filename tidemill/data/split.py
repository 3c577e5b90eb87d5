"""Dividing rows into train, valid and test, and the order that they are written in.

Both come from what a row holds, never from where it stands: the MD5 of a text that is made of the row's key, or of all
its columns where there is no key. MD5 (and not DuckDB's `hash`) because it is the same in every version and engine.
Rows are written in the order of that hash, which is as good as shuffled; with `by: time` in the order of time, then
hash; with a span's column in its order first. DuckDB sorts within its memory limit and spills.
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
_SIZES = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")
_SPANS = ("DATE", "TIMESTAMP", "VARCHAR", *(f"{sign}{size}" for sign in ("", "U") for size in _SIZES))
_MAX_SPANS = 10_000


@dataclass(frozen=True)
class Division:
    """How a result is divided, as SQL over its columns."""

    split: str
    """An expression for the index of the row's split in `SPLITS`."""
    order: tuple[str, ...]
    """Expressions to order by within a split. Rows that tie in all of them are equal, or differ in no key column."""
    span: str | None = None
    """An expression of which each value gets files of its own. Rows of a value follow each other within a split."""


def divide(
    connection: duckdb.DuckDBPyConnection, relation: str, columns: dict[str, str], split: Split, key: list[str]
) -> Division:
    """Decides the split of each row.

    Args:
        relation: The table or view of the rows.
        columns: Its columns with their DuckDB types.
        split: What the experiment says; its columns are among `columns`.
        key: The key columns; may be empty.

    Raises:
        TidemillError: `invalid-value` when the split's column holds nulls, a type without an order in time, or names
            that are no splits; or when the span's column holds nulls or more than 10,000 values.
    """
    division = _divide(connection, relation, columns, split, key)
    if split.span is None:
        return division
    _check_span(connection, relation, split.span, columns[split.span])
    span = quote(split.span)
    return Division(division.split, (span, *division.order), span)


def _divide(
    connection: duckdb.DuckDBPyConnection, relation: str, columns: dict[str, str], split: Split, key: list[str]
) -> Division:
    row = row_hash(columns, key)
    if split.by == "time":
        return _by_time(connection, relation, columns, split, row)
    if split.by == "column":
        return _by_column(connection, relation, split, row)
    identity = [split.column] if split.by == "hash" and split.column is not None else key
    text = _text({c: columns[c] for c in identity or columns})
    share = f"md5_number_lower({literal(f'{split.seed}|')} || {text})"
    return Division(_threshold(share, split, _RANGE), (row,))


def row_hash(columns: dict[str, str], key: list[str]) -> str:
    """An expression for the 128-bit hash of a row's key, or of the whole row."""
    return f"md5_number({_text({c: columns[c] for c in key or columns})})"


def _text(columns: dict[str, str]) -> str:
    """One text for several values, different for different values: strings carry their length."""
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
    """Index of the split by how `value`, below `total`, lies to the cumulated fractions."""
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
) -> Division:
    column = str(split.column)
    if not columns[column].startswith(_TIMES):
        got, want = f"{column!r} of type {columns[column]}", "cast it in the query to a timestamp, date or number"
        raise TidemillError(Code.INVALID_VALUE, "split.column", got, want)
    time = quote(column)
    rows, known = connection.execute(
        f"SELECT count(*), count(*) FILTER ({_not_nan(time, columns[column])}) FROM {relation}"
    ).fetchall()[0]
    _check_known(column, rows - known)
    starts = f"""SELECT instant, sum(n) OVER (ORDER BY instant) - n AS start
        FROM (SELECT {time} AS instant, count(*) AS n FROM {relation} GROUP BY instant)"""
    index = _threshold("start", split, rows)
    # The bounds are compared as text of the instants' own type, so that they survive the way through Python.
    bounds = connection.execute(
        f"SELECT {index} AS split, min(instant)::VARCHAR FROM ({starts}) GROUP BY split ORDER BY split DESC"
    ).fetchall()
    cases = [f"WHEN {time} >= CAST({literal(bound)} AS {columns[column]}) THEN {i}" for i, bound in bounds if i > 0]
    return Division(f"CASE {' '.join(cases)} ELSE 0 END" if cases else "0", (time, row))


def _not_nan(column: str, kind: str) -> str:
    return f"NOT isnan({column})" if kind in ("FLOAT", "DOUBLE") else f"{column} IS NOT NULL"


def _by_column(connection: duckdb.DuckDBPyConnection, relation: str, split: Split, row: str) -> Division:
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
    return Division(f"{index} - 1", (row,))


def _check_span(connection: duckdb.DuckDBPyConnection, relation: str, name: str, kind: str) -> None:
    if not kind.startswith(_SPANS) or kind.endswith("]"):
        got, want = f"{name!r} of type {kind}", "cast it in the query to a date, an integer or a string"
        raise TidemillError(Code.INVALID_VALUE, "split.span", got, want)
    column = quote(name)
    values, nulls = connection.execute(
        f"SELECT count(DISTINCT {column}), count(*) - count({column}) FROM {relation}"
    ).fetchall()[0]
    _check_known(name, nulls, "span")
    if values > _MAX_SPANS:
        got, want = f"{values:,} values, more than {_MAX_SPANS:,}", "round it in the query, for example to a date"
        raise TidemillError(Code.INVALID_VALUE, f"split.span {name!r}", got, want)


def _check_known(column: str, nulls: int, what: str = "column") -> None:
    if nulls:
        want = "leave such rows out in the query, or give them a value"
        raise TidemillError(Code.INVALID_VALUE, f"split.{what} {column!r}", f"{nulls:,} nulls", want, {"nulls": nulls})
