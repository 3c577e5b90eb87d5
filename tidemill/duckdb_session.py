"""DuckDB as ingest uses it: in a folder of its own, with bounded memory, and shut off before it runs a user's query."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import duckdb

MEMORY_LIMIT = "2GiB"
"""What DuckDB may hold in memory before it spills to disk."""


def connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """Opens an empty database in a folder, where it also spills to.

    Text and times do not depend on the machine: the time zone is UTC, and nothing is loaded or installed on its own.
    """
    settings = {
        "memory_limit": MEMORY_LIMIT,
        "threads": str(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else str(os.cpu_count() or 1),
        "temp_directory": str(folder / "spill"),
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",
    }
    connection = duckdb.connect(str(folder / "work.duckdb"), config=settings)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("CREATE SCHEMA tidemill")
    return connection


def shut_off(connection: duckdb.DuckDBPyConnection, allowed: Iterable[Path]) -> None:
    """From now on the connection opens the allowed files alone, reaches no network, and its settings are locked."""
    connection.execute(f"SET allowed_paths = {literal([str(path) for path in allowed])}")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def quote(identifier: str) -> str:
    """An identifier, quoted for SQL."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(value: str | bool | list | dict | None) -> str:
    """A value, written for SQL: strings, booleans, NULL, lists and structs of them."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(literal(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}"
    return "'" + value.replace("'", "''") + "'"


def first_line(error: BaseException) -> str:
    """What DuckDB's message says first, without the excerpt of the query below."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def columns_of(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """Column names of a table, view or query with their DuckDB types."""
    return {row[0]: row[1] for row in connection.execute(f"DESCRIBE {relation}").fetchall()}
