"""The rows of a CSV file that have a malformed field, with their lines, which DuckDB does not report."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

from tidemill.data import csv_files
from tidemill.data.quarantine import MAX_TEXT_CHARS
from tidemill.data.text_values import INTEGERS
from tidemill.duckdb_session import literal
from tidemill.experiment.csv_options import Csv

_ROWS_AT_ONCE = 10_000


def malformed_rows(
    path: Path,
    columns: Sequence[str],
    skipped_lines: int,
    options: Csv,
    delimiter: str,
    bad: Mapping[str, set[str]],
    types: Mapping[str, str],
) -> Iterator[list[dict]]:
    """Yields the rows that have one of the malformed fields. They are rare, so Python is fast enough.

    Args:
        path: The file's text in UTF-8.
        columns: The file's columns.
        skipped_lines: Number of lines up to the header's end.
        options: How the file is written.
        delimiter: The separator of fields.
        bad: The malformed fields of each column as they are written.
        types: The columns' DuckDB types.

    Yields:
        Lists of rows with `line`, `reason` and `text`.
    """
    indexes = [(columns.index(c), c) for c in bad]
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.reader(stream, **csv_files.python_dialect(options, delimiter))
        start, rows = 1, []
        for row in reader:
            line, start = start, reader.line_num + 1
            if len(row) != len(columns) or line <= skipped_lines:
                continue
            wrong = next(((c, row[i]) for i, c in indexes if row[i] in bad[c]), None)
            if wrong is not None and _is_utf8(row):
                text = delimiter.join(row)[:MAX_TEXT_CHARS]
                rows.append({"line": line, "reason": _reason(*wrong, types[wrong[0]]), "text": text})
                if len(rows) == _ROWS_AT_ONCE:
                    yield rows
                    rows = []
        if rows:
            yield rows


def _reason(column: str, text: str, kind: str) -> str:
    if kind in INTEGERS and _is_number(text):
        return f"Column {column} is declared as an integer"
    return f'Error when converting column "{column}". Could not convert string "{text[:80]}" to {literal(kind)}'


def _is_number(text: str) -> bool:
    try:
        return Decimal(text.strip()) % 1 != 0
    except InvalidOperation:
        return False


def _is_utf8(row: list[str]) -> bool:
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        return False
    return True
