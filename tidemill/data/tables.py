"""Makes the source's tables known to DuckDB.

Text (CSV, TSV, JSON lines) is read once, all columns of it, into the database: which rows are bad then does not depend
on which columns a query asks for. Parquet stays where it is, as a view.

Within a table, files are taken in the order of what they hold, not of their names, so that a query that depends on the
order of rows does not depend on where the files lie.
"""

from __future__ import annotations

import json
from pathlib import Path

import duckdb

from tidemill.data import delimited, formats, json_lines, parquet
from tidemill.data.quarantine import Quarantine
from tidemill.data.staging import Stage
from tidemill.errors import Code, TidemillError
from tidemill.experiment.source import Table
from tidemill.steps.ingest import SourceFile


def load(
    connection: duckdb.DuckDBPyConnection,
    table_name: str,
    table: Table,
    files: list[SourceFile],
    stage: Stage,
    quarantine: Quarantine,
) -> dict[Path, SourceFile]:
    """Creates a table or view with the name that the query uses.

    Args:
        files: The table's files as recorded.
        stage: Where files are brought.
        quarantine: Takes the rows that do not parse.

    Returns:
        The files that a query over this table will read, by their paths: those of a view.

    Raises:
        TidemillError: `unreadable-file`, `missing-column` for a declared column that the files lack, `invalid-value`
            for an unknown type or files of several formats.
    """
    types = _declared(table_name, table)
    files = sorted(files, key=lambda f: (json.dumps(formats.partitions(f.uri)), f.version))
    kinds = {formats.of_file(table_name, table.format, f.uri) for f in files}
    if len(kinds) > 1:
        where, got = f"source.tables.{table_name}", f"files of several formats ({', '.join(sorted(kinds))})"
        raise TidemillError(Code.INVALID_VALUE, where, got, "make a table of each format")
    kind = kinds.pop()
    _check_partitions(table_name, files)
    staged = [(stage.fetch(file), file) for file in files]
    if kind == "parquet":
        parquet.create_view(connection, table_name, types, staged, quarantine)
        return dict(staged)
    if kind == "jsonl":
        json_lines.load(connection, table_name, types, staged, quarantine)
    else:
        delimiter = table.delimiter or ("\t" if kind == "tsv" else ",")
        delimited.load(connection, table_name, table, types, delimiter, staged, quarantine)
    for path, _ in staged:
        stage.drop(path)
    return {}


def _declared(table_name: str, table: Table) -> dict[str, str]:
    types = {}
    for column, text in (table.columns or {}).items():
        try:
            types[column] = str(duckdb.sqltype(text))
        except duckdb.Error as error:
            where = f"source.tables.{table_name}.columns.{column}"
            want = "write a DuckDB type, such as BIGINT or VARCHAR"
            raise TidemillError(Code.INVALID_VALUE, where, repr(text), want) from error
    return types


def _check_partitions(table_name: str, files: list[SourceFile]) -> None:
    for file in files:
        if set(formats.partitions(file.uri)) != set(formats.partitions(files[0].uri)):
            got = f"other partition folders than {files[0].uri} has"
            raise TidemillError(Code.UNREADABLE_FILE, f"{table_name}: {file.uri}", got, "lay all files out alike")
