"""DuckDB sessions with bounded memory, and helpers to write SQL.

Before ingest runs a user's query, `restrict_access` takes away the session's access to other files and to the network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb

from tidemill.cpus import available_cpus

MEMORY_LIMIT = "2GiB"
"""Memory that DuckDB uses before it spills to disk."""


def connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """Opens an empty database.

    Results do not depend on the machine: the time zone is UTC, and DuckDB does not load or install extensions by
    itself.

    Args:
        folder: Existing folder for the database and for spilled data.
    """
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY_LIMIT,
        "threads": str(available_cpus()),
        "temp_directory": str(folder / "spill"),
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",
    }
    connection = duckdb.connect(str(folder / "work.duckdb"), config=settings)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")
    connection.execute("CREATE SCHEMA tidemill")
    return connection


def restrict_access(connection: duckdb.DuckDBPyConnection, allowed: Iterable[Path]) -> None:
    """Restricts a connection to the allowed files, without network, and locks its settings."""
    connection.execute(f"SET allowed_paths = {literal([str(path) for path in allowed])}")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def quote(identifier: str) -> str:
    """Returns an identifier quoted for SQL."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(value: str | bool | list[Any] | dict[str, Any] | None) -> str:
    """Returns a value as SQL: a string, a boolean, NULL, or a list or struct of such values."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(literal(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}"
    return "'" + value.replace("'", "''") + "'"


def parquet_sql(paths: Sequence[str], *options: str) -> str:
    """Returns the SQL that reads Parquet files, for a FROM clause. All reading of Parquet in SQL goes through it.

    Args:
        paths: Local paths.
        *options: Further options of `read_parquet`, such as `file_row_number = true`.
    """
    # Without can_have_nan DuckDB trusts the range in Parquet's metadata, which ignores NaN.
    settings = ", ".join(["hive_partitioning = false", "can_have_nan = true", *options])
    return f"read_parquet({literal(list(paths))}, {settings})"


def null_for_nan(value: str, kind: str) -> str:
    """Returns an expression for values of a DuckDB type in which NaN is null, also inside a list.

    Args:
        value: Expression of the values.
        kind: Their type. Values of types without NaN do not change.
    """
    if kind in ("FLOAT", "DOUBLE"):
        return f"CASE WHEN isnan({value}) THEN NULL ELSE {value} END"
    if kind in ("FLOAT[]", "DOUBLE[]"):
        return f"list_transform({value}, lambda e: CASE WHEN isnan(e) THEN NULL ELSE e END)"
    return value


def first_line(error: BaseException) -> str:
    """Returns the first line of DuckDB's message and the names that it proposes, without the excerpt of the query."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    proposed = [line for line in lines[1:2] if line.startswith(("Did you mean", "Candidate bindings"))]
    return " ".join(lines[:1] + proposed) if lines else type(error).__name__


def plain_name(name: str) -> str:
    """Returns a column's name as one writes it in a query: in quotes only if it needs them."""
    try:
        is_plain = re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) and duckdb.extract_statements(f"SELECT hour({name})")
    except duckdb.ParserException:  # a keyword
        is_plain = False
    return name if is_plain else quote(name)


def columns_of(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """Returns the DuckDB types of a table's, view's or query's columns by name."""
    return {row[0]: row[1] for row in connection.execute(f"DESCRIBE {relation}").fetchall()}
