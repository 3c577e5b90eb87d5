"""Types of a table's columns: declared types, types inferred from all values, and checks that files agree.

Types are inferred from all values, not from a sample and not by DuckDB's sniffer: the result must not depend on the
order of the files, and one malformed row must not change the delimiter. A column gets a type if all but a share of
`TOLERANCE` of its values have it. The remaining values count as malformed and are reported with their lines; they do
not turn the column into text. Values that the type would change do: leading zeros, and integers that a column with
fractions would round.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import duckdb

from tidemill.data.source_files import SourceFile
from tidemill.data.text_values import ISO, TextKind, TextStyle, exact_sql, kind_sql, malformed_sql
from tidemill.duckdb_session import literal
from tidemill.errors import Code, TidemillError, suggest_name

TOLERANCE = 0.05
"""Largest share of a column's values that may contradict its inferred type."""

_FITTING = {
    "BIGINT": (TextKind.INT, TextKind.LONG, TextKind.NAN),
    "DOUBLE": (TextKind.INT, TextKind.NUMBER, TextKind.NAN),
    "DATE": (TextKind.DATE,),
    "TIMESTAMP": (TextKind.DATE, TextKind.TIME),
    "BOOLEAN": (TextKind.BOOL,),
    "VARCHAR": tuple(TextKind),
}
"""The kinds of values that a type keeps."""
RENAME_PARTITION = "rename the column in the files, or the partition folder"
"""What to do if a column of the files has the name of a partition folder."""


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


def check_names(where: str, names: Iterable[str], want: str) -> None:
    """Checks that each name occurs once, also when the case of letters is ignored as SQL does, and is not empty.

    Args:
        where: The file, for the error.
        names: The columns in the file's order, with those of its partition folders.
        want: What the user can do.

    Raises:
        TidemillError: `unreadable-file`.
    """
    first: dict[str, str] = {}
    for name in names:
        if not name.strip():
            raise TidemillError(Code.UNREADABLE_FILE, where, "a column without a name", want)
        if name.lower() in first:
            other = first[name.lower()]
            got = f"the column name {name!r} twice"
            if other != name:
                got += f": also as {other!r}, which SQL does not distinguish"
            raise TidemillError(Code.UNREADABLE_FILE, where, got, want)
        first[name.lower()] = name


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


def count_kinds(
    connection: duckdb.DuckDBPyConnection, relation: str, texts: dict[str, str], style: TextStyle = ISO
) -> dict[str, Counter]:
    """Counts how many values of each text column are of each kind (`text_values.TextKind`).

    Args:
        connection: The database.
        relation: A query, or the name of a table in parentheses or quotes.
        texts: The expression of each column's text, by column. Numbers are plain (`TextStyle.plain_number_sql`).
        style: How times are written. Defaults to ISO 8601.

    Returns:
        A counter for `infer_type` by column. Counters of several relations can be added. Nulls are not counted.
    """
    counters = {column: Counter() for column in texts}
    if texts:
        # One expression for all columns: DuckDB plans a query in a time that is quadratic in its expressions.
        values = f"unnest([{', '.join(texts.values())}])"
        query = f"""SELECT index, {kind_sql("text", style)} AS kind, count(*) FROM (
            SELECT unnest(range({len(texts)})) AS index, {values} AS text FROM {relation}) GROUP BY ALL"""
        columns = list(texts)
        for index, kind, count in connection.execute(query).fetchall():
            if kind is not None:
                counters[columns[index]][kind] = count
    return counters


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
    if sum(kinds[k] for k in (TextKind.INT, TextKind.LONG, TextKind.PADDED, TextKind.NUMBER, TextKind.NAN)) >= least:
        if kinds[TextKind.PADDED] or (kinds[TextKind.LONG] and kinds[TextKind.NUMBER]):
            return "VARCHAR"
        return "BIGINT" if kinds[TextKind.INT] + kinds[TextKind.LONG] and not kinds[TextKind.NUMBER] else "DOUBLE"
    if kinds[TextKind.DATE] + kinds[TextKind.TIME] >= least:
        return "TIMESTAMP" if kinds[TextKind.TIME] else "DATE"
    return "BOOLEAN" if kinds[TextKind.BOOL] >= least else "VARCHAR"


def partition_types(
    connection: duckdb.DuckDBPyConnection, declared: dict[str, str], values: list[dict[str, str | None]]
) -> dict[str, str]:
    """Infers the types of the partition columns that are not declared.

    Folders such as `month=01` to `month=12`, all with two digits, are numbers. Any other leading zero makes text.

    Args:
        connection: The database.
        declared: Declared types by column.
        values: The partition values of each file or group of files.
    """
    types = {}
    for key in values[0]:
        if key not in declared:
            query = f"(SELECT unnest({literal([v[key] for v in values])})::VARCHAR AS text)"
            kinds = count_kinds(connection, query, {key: "text"})[key]
            if all(v[key] is None or re.fullmatch("[0-9]{2}", v[key] or "") for v in values):
                kinds = Counter({TextKind.INT: sum(kinds.values())})
            types[key] = infer_type(kinds)
    return types


def partition_value(connection: duckdb.DuckDBPyConnection, where: str, key: str, value: str | None, kind: str) -> str:
    """Returns the SQL of a partition column's value.

    Args:
        connection: The database.
        where: The file, for the error.
        key: The column.
        value: The text in the folder's name. None for Hive's null.
        kind: The column's DuckDB type.

    Raises:
        TidemillError: `unreadable-file` if the type does not hold the value exactly.
    """
    text = f"CAST({literal(value)} AS VARCHAR)"
    exact = exact_sql(text, kind)
    if connection.execute(f"SELECT coalesce({malformed_sql(text, exact, kind)}, false)").fetchall()[0][0]:
        want = f"declare the type of {key} in columns, such as VARCHAR, or rename the folder"
        raise TidemillError(Code.UNREADABLE_FILE, where, f"the folder {key}={value}, which is no {kind}", want)
    return f"CAST({exact} AS {kind})"
