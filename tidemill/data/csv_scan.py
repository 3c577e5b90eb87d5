"""Queries over the files of a CSV table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tidemill.data import csv_files
from tidemill.data.source_files import FileGroup

BAD = "tidemill_bad"
"""Name of the column that marks rows with a malformed value."""


@dataclass(frozen=True)
class CsvStream:
    """The rows of CSV files, as a query that reads them.

    Attributes:
        query: Returns all rows that divide into fields, with the column `BAD`. Its result is the same each time.
        types: The DuckDB types of the columns.
        take_malformed: Takes the malformed rows into quarantine, after the query was run once. Its argument is the
            number of rows for which `BAD` is true.
    """

    query: str
    types: dict[str, str]
    take_malformed: Callable[[int], None]


@dataclass(frozen=True)
class CsvScan:
    """A query for the texts of files with one kind of header. `is_stored`: it reads a table and not the files."""

    group: FileGroup
    header: csv_files.Header
    query: str
    is_stored: bool = False
