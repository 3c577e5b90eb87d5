"""Numbers of values in lists: the common statistics of a list column, in TFX's form."""

from __future__ import annotations

import itertools

import duckdb
from tensorflow_metadata.proto.v0 import statistics_pb2

from tidemill.validation.columns import ExampleColumn, field_sql

_BUCKETS = 10


def add(
    connection: duckdb.DuckDBPyConnection, stats: statistics_pb2.CommonStatistics, column: ExampleColumn, table: str
) -> None:
    """Fills the common statistics of a list column of a split that has rows.

    A null is a missing list; an empty list is a list of no values. Nulls in a list are not values, as in the transform.
    Lists in lists have `presence_and_valency_stats` for each level in addition.

    Args:
        connection: From `scan.connect`.
        stats: The statistics to fill.
        column: The column, with at least one level.
        table: The table, for a FROM clause.
    """
    levels = [_level(connection, column, level, table) for level in range(1, column.levels + 1)]
    present, missing, low, high, total, quantiles = levels[0]
    stats.num_non_missing, stats.num_missing, stats.tot_num_values = present, missing, levels[-1][4]
    stats.min_num_values, stats.max_num_values = low, high
    stats.avg_num_values = total / present if present else 0.0
    histogram = stats.num_values_histogram
    histogram.type = statistics_pb2.Histogram.QUANTILES
    for start, end in itertools.pairwise(quantiles):
        histogram.buckets.add(low_value=start, high_value=end, sample_count=present / _BUCKETS)
    if column.levels > 1:
        for present, missing, low, high, total, _ in levels:
            nested = stats.presence_and_valency_stats.add(num_non_missing=present, num_missing=missing)
            nested.min_num_values, nested.max_num_values, nested.tot_num_values = low, high, total


def _level(
    connection: duckdb.DuckDBPyConnection, column: ExampleColumn, level: int, table: str
) -> tuple[int, int, int, int, int, list[int]]:
    """Returns for the lists of one level: how many exist and how many are null, the smallest, the largest and the total
    number of values, and the deciles of the number."""
    innermost = level == column.levels
    if level == 1:
        parent = f" WHERE {field_sql(column.path[:-1])} IS NOT NULL" if column.path else ""
        query = f"SELECT {column.lists(1)} AS e FROM {table}{parent}"
    else:
        query = f"SELECT unnest({column.lists(level - 1)}) AS e FROM {table}"
    length = "list_count(e)" if innermost else "len(e)"
    shares = [share / _BUCKETS for share in range(_BUCKETS + 1)]
    (row,) = connection.execute(
        f"""SELECT count(e), count(*) - count(e), coalesce(min(k), 0), coalesce(max(k), 0),
            coalesce(sum(k), 0)::BIGINT, coalesce(quantile_disc(k, {shares}), [])
        FROM (SELECT e, CASE WHEN e IS NOT NULL THEN {length} END AS k FROM ({query}))"""
    ).fetchall()
    return row
