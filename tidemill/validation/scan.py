"""Scans of the examples with DuckDB, in a fixed amount of memory."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb

from tidemill.artifacts.examples import Dataset
from tidemill.duckdb_session import MEMORY_LIMIT, parquet_sql


@contextlib.contextmanager
def connect(scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Opens an in-memory database that spills to disk above `MEMORY_LIMIT`.

    Args:
        scratch: An existing folder. Spilled data is in a temporary folder below it.
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix="validate-spill-") as spill:
        settings = {"memory_limit": MEMORY_LIMIT, "temp_directory": spill, "preserve_insertion_order": False}
        with contextlib.closing(duckdb.connect(":memory:", config=settings)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET enable_progress_bar = false")
            yield connection


def table_of(dataset: Dataset, split: str, *, row_number: bool = False) -> str:
    """Returns the SQL that reads a split's shards, for a FROM clause.

    Args:
        dataset: The examples.
        split: A split with at least one shard.
        row_number: Whether to add the column `file_row_number`, the row's number in its shard.
    """
    options = ("file_row_number = true",) if row_number else ()
    return parquet_sql([str(path) for path in dataset.files(split)], *options)
