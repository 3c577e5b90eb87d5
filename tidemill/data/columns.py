"""Checks and types of a table's columns that all formats share."""

from __future__ import annotations

import duckdb

from tidemill.data import inference
from tidemill.duckdb_session import literal, quote
from tidemill.errors import Code, TidemillError, suggest_name
from tidemill.steps.ingest import SourceFile

INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
"""DuckDB's integer types up to 64 bits."""


def same_columns(
    table_name: str, file: SourceFile, columns: tuple[str, ...], first: SourceFile, first_columns: tuple[str, ...]
) -> None:
    """Checks that a file of a table has the first file's columns, in whatever order.

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


def check_declared(table_name: str, types: dict[str, str], columns: list[str]) -> None:
    """Checks that each declared column is in the files.

    Raises:
        TidemillError: `missing-column`.
    """
    for column in types:
        if column not in columns:
            where, got = f"source.tables.{table_name}.columns", f"{column!r}, which the files do not have"
            raise TidemillError(Code.MISSING_COLUMN, where, got, suggest_name(column, columns))


def partition_types(
    connection: duckdb.DuckDBPyConnection, declared: dict[str, str], values: list[dict[str, str | None]]
) -> dict[str, str]:
    """Types of the columns that folder names give: declared or found from the values."""
    types = {}
    for key in values[0]:
        if key not in declared:
            query = f"SELECT unnest({literal([v[key] for v in values])})::VARCHAR AS {quote(key)}"
            types[key] = inference.type_of(inference.count_kinds(connection, query, [key])[key])
    return types
