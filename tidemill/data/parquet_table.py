"""Parquet files of a table, as a view. The files are not copied."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from tidemill.data.column_types import INTEGERS, check_declared, check_same_columns, partition_types
from tidemill.data.quarantine import Quarantine
from tidemill.data.source_files import FileGroup, SourceFile, StagedFiles, group_files
from tidemill.duckdb_session import literal, quote
from tidemill.errors import Code, TidemillError


def create_view(
    connection: duckdb.DuckDBPyConnection,
    table_name: str,
    types: dict[str, str],
    staged: StagedFiles,
    quarantine: Quarantine,
) -> None:
    """Creates a view over Parquet files, after checking that their footers are complete and their columns agree.

    Args:
        connection: The database.
        table_name: Name of the view to create, in the schema `main`.
        types: Declared DuckDB types of some columns. Rows with a value that cannot be cast go to quarantine.
        staged: The files with their local paths.
        quarantine: Takes the malformed rows.
    """
    names = [_column_names(table_name, path, file) for path, file in staged]
    first = names[0]
    for (_, file), columns in zip(staged, names, strict=True):
        check_same_columns(table_name, file, columns, staged[0][1], first)
    groups = group_files(staged, [first] * len(staged))
    partition = [key for key, _ in groups[0].partition]
    check_declared(table_name, types, [*first, *partition])
    types = types | partition_types(connection, types, [dict(g.partition) for g in groups])
    casts = {c: types[c] for c in first if c in types}
    selects = [_select(group, casts, types) for group in groups]
    connection.execute(f"CREATE VIEW main.{quote(table_name)} AS {' UNION ALL '.join(selects)}")
    if casts:
        for query in _bad_rows(table_name, groups, casts):
            quarantine.take(query)


def check_readable(files: dict[Path, SourceFile]) -> None:
    """Reads Parquet files to their end, to find the damaged file that made a query fail.

    Raises:
        TidemillError: `unreadable-file`.
    """
    for path, file in files.items():
        with _unreadable(file.table, file), pq.ParquetFile(path) as parquet:
            for _ in parquet.iter_batches():
                pass


def _select(group: FileGroup, casts: dict[str, str], types: dict[str, str]) -> str:
    values = [f"TRY_CAST({quote(c)} AS {casts[c]}) AS {quote(c)}" if c in casts else quote(c) for c in group.columns]
    values += [f"CAST({literal(v)} AS {types[k]}) AS {quote(k)}" for k, v in group.partition]
    condition = f" WHERE NOT ({_is_bad(casts)})" if casts else ""
    return f"SELECT {', '.join(values)} FROM {_read(group)}{condition}"


def _read(group: FileGroup, extra: str = "") -> str:
    return f"read_parquet({literal(group.paths)}, union_by_name=true, hive_partitioning=false{extra})"


def _is_bad(casts: dict[str, str]) -> str:
    """Returns a condition for rows with a value that cannot be cast. Fractions cannot be cast to integers."""
    tests = []
    for column, kind in casts.items():
        value = quote(column)
        fraction = f" OR coalesce(TRY_CAST({value} AS DOUBLE) % 1 != 0, false)" if kind in INTEGERS else ""
        tests.append(f"({value} IS NOT NULL AND (TRY_CAST({value} AS {kind}) IS NULL{fraction}))")
    return " OR ".join(tests)


def _bad_rows(table_name: str, groups: list[FileGroup], casts: dict[str, str]) -> Iterator[str]:
    cases = [f"WHEN {_is_bad({c: t})} THEN {literal(f'Could not convert {c} to {t}')}" for c, t in casts.items()]
    for group in groups:
        text = "{" + ", ".join(f"{literal(c)}: {quote(c)}" for c in group.columns) + "}"
        read = _read(group, ", filename='tidemill_path', file_row_number=true")
        uri = f"map_extract_value(MAP {literal(group.uris)}, tidemill_path)"
        yield f"""SELECT {literal(table_name)} AS "table", {uri} AS uri, file_row_number + 1 AS line,
            CASE {" ".join(cases)} END AS reason, to_json({text})::VARCHAR AS text FROM {read} WHERE {_is_bad(casts)}"""


def _column_names(table_name: str, path: Path, file: SourceFile) -> tuple[str, ...]:
    with _unreadable(table_name, file):
        return tuple(pq.read_schema(path).names)


@contextlib.contextmanager
def _unreadable(table_name: str, file: SourceFile) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError.
        got = f"a damaged Parquet file ({str(error).splitlines()[0][:120]})"
        where, want = f"{table_name}: {file.uri}", "replace it with an intact file"
        raise TidemillError(Code.UNREADABLE_FILE, where, got, want) from error
