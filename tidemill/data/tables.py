"""Source tables in DuckDB: CSV, TSV and JSON lines as tables, Parquet and streamed text files as views.

All columns of text files are read, whatever the query needs, so that the set of malformed rows does not depend on the
query.

The files of a table are read in the order of their content versions, not of their names. A query that depends on the
order of rows therefore returns the same result when the files are renamed or moved.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import duckdb

from tidemill.artifacts.model_columns import TableColumns
from tidemill.data import json_lines_table, parquet_table, source_files
from tidemill.data.csv_scan import BAD, CsvStream
from tidemill.data.csv_table import CsvTable
from tidemill.data.quarantine import Quarantine
from tidemill.data.source_files import SourceFile
from tidemill.data.staging import StagingFolder
from tidemill.duckdb_session import columns_of, quote
from tidemill.errors import Code, TidemillError
from tidemill.experiment.source import Table


def load_table(
    connection: duckdb.DuckDBPyConnection,
    table_name: str,
    table: Table,
    files: list[SourceFile],
    staging: StagingFolder,
    quarantine: Quarantine,
    known: TableColumns | None = None,
    texts: Collection[str] = (),
) -> dict[Path, SourceFile]:
    """Creates a table or a view for one table of the source.

    Args:
        connection: The database.
        table_name: The table's name in the source, and in the schema `main`.
        table: The table's section of the experiment file.
        files: The table's files from the source record.
        staging: The folder for downloaded and uncompressed files.
        quarantine: Takes the malformed rows.
        known: The table's columns in the training of a published model. A column that is not declared has the same type
            if all its values fit. Defaults to none.
        texts: Columns of text files that are read as text unless they are declared. The files need not have them.
            Defaults to none.

    Returns:
        The files that a query over this table reads, by local path: those of a view.

    Raises:
        TidemillError: `unreadable-file`, `missing-column` for a declared column that the files do not have,
            `invalid-value` for an unknown type or files of several formats.
    """
    known = known or TableColumns(types={})
    types = _declared(table_name, table)
    files, kind = _checked_files(table_name, table, files)
    if kind != "parquet" and texts:
        folders = source_files.partition_values(files[0].uri)
        types = {column: "VARCHAR" for column in folders if column in texts} | types
        known = known.model_copy(update={"types": known.types | dict.fromkeys(texts, "VARCHAR")})
    staged = [(staging.fetch(file), file) for file in files]
    if kind == "parquet":
        parquet_table.create_view(connection, table_name, types, known.types, staged, quarantine)
        return dict(staged)
    if kind == "jsonl":
        json_lines_table.create_table(connection, table_name, types, known.types, known.optional, staged, quarantine)
    else:
        reader = _csv_table(connection, table_name, table, kind, types, known, staging, quarantine)
        staged = reader.create(staged)
    for path, _ in staged:
        staging.drop(path)
    return {}


def stream_table(
    connection: duckdb.DuckDBPyConnection,
    table_name: str,
    table: Table,
    files: list[SourceFile],
    staging: StagingFolder,
    quarantine: Quarantine,
) -> CsvStream | None:
    """Creates a view for a table of text files if they need not be stored, with the good rows.

    Args:
        connection: As for `load_table`, and so are the others.
        table_name: The table's name in the source, and of the view in the schema `main`.
        table: The table's section of the experiment file.
        files: The table's files from the source record.
        staging: Keeps the files until the rows are read.
        quarantine: Takes the malformed rows.

    Returns:
        None if `load_table` has to store the rows. Then there is no view.

    Raises:
        TidemillError: As `load_table`.
    """
    types = _declared(table_name, table)
    files, kind = _checked_files(table_name, table, files)
    if kind not in ("csv", "tsv") or not types:
        return None
    known = TableColumns(types={})
    staged = [(staging.fetch(file), file) for file in files]
    stream = _csv_table(connection, table_name, table, kind, types, known, staging, quarantine).stream(staged)
    if stream is not None:
        columns = ", ".join(map(quote, stream.types))
        connection.execute(
            f"CREATE VIEW main.{quote(table_name)} AS SELECT {columns} FROM ({stream.query}) WHERE NOT {BAD}"
        )
    return stream


def table_columns(
    connection: duckdb.DuckDBPyConnection, table_name: str, table: Table, files: list[SourceFile]
) -> TableColumns:
    """Returns the columns of a table that `load_table` has created.

    Args:
        connection: The database.
        table_name: The table's name.
        table: The table's section of the experiment file.
        files: The table's files from the source record.
    """
    relation = f"main.{quote(table_name)}"
    types = known_types(columns_of(connection, relation))
    kind = source_files.file_format(table_name, table.format, files[0].uri)
    optional: list[str] = []
    if kind == "jsonl" and types:
        tests = ", ".join(f"count(*) > count({quote(c)})" for c in types)
        missing = connection.execute(f"SELECT {tests} FROM {relation}").fetchall()[0]
        optional = [column for column, some in zip(types, missing, strict=True) if some]
    return TableColumns(
        types=types, optional=optional, null=table.csv_options.nullstr if kind in ("csv", "tsv") else None
    )


def known_types(types: dict[str, str]) -> dict[str, str]:
    """Returns DuckDB types by column without columns of the type NULL, which says nothing about later values."""
    return {column: kind for column, kind in types.items() if kind != '"NULL"'}


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


def _checked_files(table_name: str, table: Table, files: list[SourceFile]) -> tuple[list[SourceFile], str]:
    """Returns the files in the order in which they are read, and their format."""
    files = sorted(files, key=lambda f: (json.dumps(source_files.partition_values(f.uri)), f.version))
    kinds = {source_files.file_format(table_name, table.format, f.uri) for f in files}
    if len(kinds) > 1:
        where, got = f"source.tables.{table_name}", f"files of several formats ({', '.join(sorted(kinds))})"
        raise TidemillError(Code.INVALID_VALUE, where, got, "put the files of each format into a table of their own")
    kind = kinds.pop()
    if table.csv is not None and kind not in ("csv", "tsv"):
        where, got = f"source.tables.{table_name}.csv", f"options of CSV files for files of the format {kind}"
        raise TidemillError(Code.INVALID_VALUE, where, got, "remove them, or set the table's format")
    _check_partitions(table_name, files)
    return files, kind


def _csv_table(
    connection: duckdb.DuckDBPyConnection,
    table_name: str,
    table: Table,
    kind: str,
    types: dict[str, str],
    known: TableColumns,
    staging: StagingFolder,
    quarantine: Quarantine,
) -> CsvTable:
    options = table.csv_options
    delimiter = options.delim or ("\t" if kind == "tsv" else ",")
    nulls = not table.names_null_words
    return CsvTable(connection, table_name, types, known.types, options, delimiter, nulls, staging, quarantine)


def _check_partitions(table_name: str, files: list[SourceFile]) -> None:
    for file in files:
        if set(source_files.partition_values(file.uri)) != set(source_files.partition_values(files[0].uri)):
            got = f"partition folders that differ from those of {files[0].uri}"
            want = "use the same partition folders for all files"
            raise TidemillError(Code.UNREADABLE_FILE, f"{table_name}: {file.uri}", got, want)
