"""Parquet files, to a view."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from tidemill.data.columns import INTEGERS, check_declared, partition_types, same_columns
from tidemill.data.groups import Group, Staged, group
from tidemill.data.quarantine import Quarantine
from tidemill.duckdb_session import literal, quote
from tidemill.errors import Code, TidemillError
from tidemill.steps.ingest import SourceFile


def create_view(
    connection: duckdb.DuckDBPyConnection,
    table_name: str,
    types: dict[str, str],
    staged: Staged,
    quarantine: Quarantine,
) -> None:
    """Creates a view over the files, once their footers show that they are whole and have the same columns.

    Args:
        types: Declared DuckDB types of some columns. Their rows go to quarantine where a value does not cast.
    """
    names = [_columns(table_name, path, file) for path, file in staged]
    first = names[0]
    for (_, file), columns in zip(staged, names, strict=True):
        same_columns(table_name, file, columns, staged[0][1], first)
    groups = group(staged, [first] * len(staged))
    partition = [key for key, _ in groups[0].partition]
    check_declared(table_name, types, [*first, *partition])
    types = types | partition_types(connection, types, [dict(g.partition) for g in groups])
    casts = {c: types[c] for c in first if c in types}
    parts = [_select(part, casts, types) for part in groups]
    connection.execute(f"CREATE VIEW main.{quote(table_name)} AS {' UNION ALL '.join(parts)}")
    if casts:
        for query in _bad_rows(table_name, groups, casts):
            quarantine.take(query)


def _select(part: Group, casts: dict[str, str], types: dict[str, str]) -> str:
    values = [f"TRY_CAST({quote(c)} AS {casts[c]}) AS {quote(c)}" if c in casts else quote(c) for c in part.columns]
    values += [f"CAST({literal(v)} AS {types[k]}) AS {quote(k)}" for k, v in part.partition]
    condition = f" WHERE NOT ({_bad(casts)})" if casts else ""
    return f"SELECT {', '.join(values)} FROM {_read(part)}{condition}"


def _read(part: Group, extra: str = "") -> str:
    return f"read_parquet({literal(part.paths)}, union_by_name=true, hive_partitioning=false{extra})"


def _bad(casts: dict[str, str]) -> str:
    """A condition for rows with a value that does not cast; a fraction is not cast to an integer."""
    tests = []
    for column, kind in casts.items():
        value = quote(column)
        fraction = f" OR coalesce(TRY_CAST({value} AS DOUBLE) % 1 != 0, false)" if kind in INTEGERS else ""
        tests.append(f"({value} IS NOT NULL AND (TRY_CAST({value} AS {kind}) IS NULL{fraction}))")
    return " OR ".join(tests)


def _bad_rows(table_name: str, groups: list[Group], casts: dict[str, str]) -> Iterator[str]:
    reason = " ".join(f"WHEN {_bad({c: t})} THEN {literal(f'Could not convert {c} to {t}')}" for c, t in casts.items())
    for part in groups:
        text = "{" + ", ".join(f"{literal(c)}: {quote(c)}" for c in part.columns) + "}"
        read = _read(part, ", filename='tidemill_path', file_row_number=true")
        uri = f"map_extract_value(MAP {literal(part.uris)}, tidemill_path)"
        yield f"""SELECT {literal(table_name)} AS "table", {uri} AS uri, file_row_number + 1 AS line,
            CASE {reason} END AS reason, to_json({text})::VARCHAR AS text FROM {read} WHERE {_bad(casts)}"""


def check_readable(files: dict[Path, SourceFile]) -> None:
    """Reads files to their end, to find the one that broke a query.

    Raises:
        TidemillError: `unreadable-file`.
    """
    for path, file in files.items():
        with _unreadable(file.table, file), pq.ParquetFile(path) as parquet:
            for _ in parquet.iter_batches():
                pass


def _columns(table_name: str, path: Path, file: SourceFile) -> tuple[str, ...]:
    with _unreadable(table_name, file):
        return tuple(pq.read_schema(path).names)


@contextlib.contextmanager
def _unreadable(table_name: str, file: SourceFile) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        got = f"no whole Parquet file ({str(error).splitlines()[0][:120]})"
        where, want = f"{table_name}: {file.uri}", "replace the file by a whole one"
        raise TidemillError(Code.UNREADABLE_FILE, where, got, want) from error
