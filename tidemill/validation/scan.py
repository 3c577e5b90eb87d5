"""Reading the examples with DuckDB within a fixed amount of memory."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb

from tidemill.artifacts.examples import Dataset

MEMORY = "2GiB"


@contextlib.contextmanager
def connect(scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory that may use 2 GiB and spills beyond that.

    Args:
        scratch: An existing folder, below which the spilled data lie until the block ends.
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix="validate-spill-") as spill:
        settings = {"memory_limit": MEMORY, "temp_directory": spill, "preserve_insertion_order": False}
        with contextlib.closing(duckdb.connect(":memory:", config=settings)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection


def table_of(dataset: Dataset, split: str, *, row_number: bool = False) -> str:
    """SQL of a split's shards, for a FROM clause.

    Args:
        dataset: The examples.
        split: A split with at least one shard.
        row_number: Whether there is also a column `file_row_number`, the row's number in its shard.
    """
    files = ", ".join("'" + str(path).replace("'", "''") + "'" for path in dataset.files(split))
    # Without can_have_nan DuckDB takes the range in the metadata, which leaves NaN out, for the range of all values.
    options = "hive_partitioning = false, can_have_nan = true" + (", file_row_number = true" if row_number else "")
    return f"read_parquet([{files}], {options})"
