"""Splits: assigns each row to train, valid or test, and defines the order in which rows are written.

Both depend only on the content of a row, not on its position: on the MD5 of a text of the row's key, or of all columns
if there is no key. MD5 is the same in every version and engine; DuckDB's `hash` is not. Rows are written in the order
of that hash, which amounts to a shuffle. With `by: time` they are written in the order of time, then hash. A span
column comes first. DuckDB sorts within its memory limit and spills to disk.

Without a key, the text is long. Then the hash that assigns a row to its split is also the one to order by.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

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
_PARTS_AT_ONCE = 200
_ROW_TEXT = "tidemill_text"
_ROW_HASH = "tidemill_hash"


@dataclass(frozen=True)
class SplitExpressions:
    """SQL expressions over a result's columns that define the splits.

    Attributes:
        split: The index of the row's split in `SPLITS`.
        order: Expressions to order by within a split. Rows that tie in all of them are equal or have the same key.
        span: The span of the row; each span gets separate files. If given, it is the first of `order`.
        texts: Expressions by name, which the others use. They are computed once.
    """

    split: str
    order: tuple[str, ...]
    span: str | None = None
    texts: dict[str, str] = field(default_factory=dict)


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
    return replace(rows, order=(span, *rows.order), span=span)


def _row_expressions(
    connection: duckdb.DuckDBPyConnection, relation: str, columns: dict[str, str], split: Split, key: list[str]
) -> SplitExpressions:
    rows = one_split(columns, key)
    if split.by == "time":
        return _by_time(connection, relation, columns, split, rows)
    if split.by == "column":
        return _by_column(connection, relation, split, rows)
    seed = literal(f"{split.seed}|")
    if split.by == "hash" and split.column is not None:
        text = _text({split.column: columns[split.column]})
        return replace(rows, split=_threshold(f"md5_number_lower({seed} || {text})", split, _RANGE))
    if key:
        return replace(rows, split=_threshold(f"md5_number_lower({seed} || {_ROW_TEXT})", split, _RANGE))
    # `md5_number_lower` is the upper half of `md5_number`.
    share = _threshold(f"({_ROW_HASH} >> 64)::UBIGINT", split, _RANGE)
    texts = {_ROW_HASH: f"md5_number({_text(columns, f'{split.seed}|')})"}
    return SplitExpressions(share, (_ROW_HASH,), texts=texts)


def one_split(columns: dict[str, str], key: list[str]) -> SplitExpressions:
    """Returns the expressions that assign all rows to the first split.

    Rows are ordered by the 128-bit hash of their key, or of all columns if there is no key.

    Args:
        columns: The result's columns with their DuckDB types.
        key: The key columns; may be empty.
    """
    text = _text({c: columns[c] for c in key or columns})
    return SplitExpressions("0", (f"md5_number({_ROW_TEXT})",), texts={_ROW_TEXT: text})


def _text(columns: dict[str, str], prefix: str = "") -> str:
    """Returns an expression for an unambiguous text of several values: strings carry their length.

    The values are separated by `|`, and a null is `-`. One `concat` of all parts takes two thirds of the time of a
    `concat` for each value.
    """
    groups, parts = [], [literal(prefix)] if prefix else []
    for index, (column, kind) in enumerate(columns.items()):
        quoted = quote(column)
        parts += ["'|'"] if index else []
        if kind.startswith(_NESTED[1:]) or kind.endswith("]"):
            parts.append(f"coalesce(to_json({quoted})::VARCHAR, '-')")
        elif kind.startswith("VARCHAR") or kind == "JSON":
            # Nulls are empty in concat.
            parts += [f"strlen({quoted})::VARCHAR", f"CASE WHEN {quoted} IS NULL THEN '-' ELSE ':' END", quoted]
        elif kind == "BLOB":
            parts.append(f"coalesce(hex({quoted}), '-')")
        else:
            parts.append(f"coalesce({quoted}::VARCHAR, '-')")
        if len(parts) >= _PARTS_AT_ONCE:
            groups.append(f"concat({', '.join(parts)})")
            parts = []
    groups += [f"concat({', '.join(parts)})"] if parts else []
    return groups[0] if len(groups) == 1 else f"concat({', '.join(groups)})"


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
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    columns: dict[str, str],
    split: Split,
    rows: SplitExpressions,
) -> SplitExpressions:
    column = str(split.column)
    if not columns[column].startswith((*_TIMES, *_UNSIGNED)):
        got, want = f"{column!r} of type {columns[column]}", "cast it to a timestamp, a date or a number in the query"
        raise TidemillError(Code.INVALID_VALUE, "split.column", got, want)
    time = quote(column)
    count, known = connection.execute(
        f"SELECT count(*), count(*) FILTER ({_not_nan(time, columns[column])}) FROM {relation}"
    ).fetchall()[0]
    _check_known(column, count - known)
    starts = f"""SELECT instant, sum(n) OVER (ORDER BY instant) - n AS start
        FROM (SELECT {time} AS instant, count(*) AS n FROM {relation} GROUP BY ALL)"""
    index = _threshold("start", split, count)
    # The bounds pass through Python as text of the column's own type, so that they stay exact.
    bounds = connection.execute(
        f"SELECT {index} AS split, min(instant)::VARCHAR FROM ({starts}) GROUP BY split ORDER BY split DESC"
    ).fetchall()
    cases = [f"WHEN {time} >= CAST({literal(bound)} AS {columns[column]}) THEN {i}" for i, bound in bounds if i > 0]
    return replace(rows, split=f"CASE {' '.join(cases)} ELSE 0 END" if cases else "0", order=(time, *rows.order))


def _not_nan(column: str, kind: str) -> str:
    return f"NOT isnan({column})" if kind in ("FLOAT", "DOUBLE") else f"{column} IS NOT NULL"


def _by_column(
    connection: duckdb.DuckDBPyConnection, relation: str, split: Split, rows: SplitExpressions
) -> SplitExpressions:
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
    return replace(rows, split=f"{index} - 1")


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
