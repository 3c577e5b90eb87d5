"""Counts and ranges of the examples' columns, many columns in one query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb

from tidemill.validation.columns import ExampleColumn
from tidemill.validation.domain_counts import DomainRequests

COLUMNS_AT_ONCE = 100
"""Number of columns of one query. DuckDB plans a query in a time that is quadratic in its expressions."""


def totals_of(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    rows: int,
    columns: Sequence[ExampleColumn],
    domains: DomainRequests,
) -> dict[str, dict[str, float | int]]:
    """Computes the counts and ranges of columns: those without lists in groups, and those with lists one by one.

    Args:
        connection: From `scan.connect`.
        table: The table that has the columns, for a FROM clause. Not read if there are no rows.
        rows: Number of its rows.
        columns: From `columns.resolve`.
        domains: What to count for the schema's domains.

    Returns:
        For each column `present` (the number of values), and what its view needs in addition.
    """
    binary = {c.name for c in columns if c.role == "label"} | set(domains.binary)
    expressions = {c.name: _total_expressions(c, f"c{i}", c.name in binary) for i, c in enumerate(columns)}
    if not rows:
        return {name: dict.fromkeys(aggregates, 0) for name, aggregates in expressions.items()}
    named = [(f"c{i}", c) for i, c in enumerate(columns)]
    scalars = [item for item in named if not item[1].levels]
    totals: dict[str, dict[str, float | int]] = {}
    for start in range(0, len(scalars), COLUMNS_AT_ONCE):
        group = scalars[start : start + COLUMNS_AT_ONCE]
        query = f"SELECT {', '.join(f'{c.sql} AS {at}' for at, c in group)} FROM {table}"
        totals |= _aggregates(connection, query, {c.name: expressions[c.name] for _, c in group})
    for at, column in named:
        if column.levels:
            query = f"SELECT v AS {at} FROM ({column.values(table)})"
            totals |= _aggregates(connection, query, {column.name: expressions[column.name]})
    return totals


def _aggregates(
    connection: duckdb.DuckDBPyConnection, query: str, expressions: dict[str, dict[str, str]]
) -> dict[str, dict[str, float | int]]:
    """Computes named aggregates of each column over a query's rows."""
    selected = ", ".join(sql for aggregates in expressions.values() for sql in aggregates.values())
    row = iter(one_row(connection, f"SELECT {selected} FROM ({query})"))
    return {name: {aggregate: next(row) for aggregate in each} for name, each in expressions.items()}


def one_row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    """Returns the only row of a query's result."""
    (row,) = connection.execute(query).fetchall()  # fetchone would leave the result open
    return row


def _total_expressions(column: ExampleColumn, value: str, binary: bool) -> dict[str, str]:
    """Returns the SQL aggregates of one column by name."""
    if column.view == "bytes":
        size = f"octet_length({value})"
        return {
            "present": f"count({value})",
            "bytes": f"sum({size})::DOUBLE",
            "low": f"min({size})",
            "high": f"max({size})",
        }
    if column.view != "number":
        return {"present": f"count({value})"}
    finite = f" FILTER (isfinite({value}))" if column.is_float else ""
    totals = {"finite": f"count({value}){finite}", "low": f"min({value}){finite}", "high": f"max({value}){finite}"}
    totals["present"] = f"count({value}) FILTER (NOT isnan({value}))" if column.is_float else f"count({value})"
    totals["nan"] = f"count({value}) FILTER (isnan({value}))" if column.is_float else "0"
    totals["zeros"] = f"count({value}) FILTER ({value} = 0)"
    if column.is_float:
        totals["smallest"] = f"min({value}) FILTER (NOT isnan({value}))"
        totals["largest"] = f"max({value}) FILTER (NOT isnan({value}))"
    if binary:
        nan = f" AND NOT isnan({value})" if column.is_float else ""
        totals["not_binary"] = f"count({value}) FILTER ({value} NOT IN (0, 1){nan})"
    return totals
