"""Makes the source's tables known to DuckDB.

Text (CSV, TSV, JSON lines) is read once, all columns of it, into the database: which rows are bad then does not depend on
which columns a query asks for. Parquet stays where it is, as a view.

Within a table, files are taken in the order of what they hold, not of their names, so that a query that depends on the
order of rows does not depend on where the files lie.
"""

from __future__ import annotations

import csv
import difflib
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from tidemill.data import formats, inference, json_lines
from tidemill.data.engine import literal, name
from tidemill.data.quarantine import Quarantine
from tidemill.data.staging import Stage
from tidemill.errors import Code, TidemillError
from tidemill.experiment.source import Table
from tidemill.specs import SourceFile

_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class _Group:
    """Files that are read together: with the same columns in the same order, below the same partition."""

    columns: tuple[str, ...]
    partition: tuple[tuple[str, str | None], ...]
    files: tuple[tuple[Path, SourceFile], ...]

    @property
    def paths(self) -> list[str]:
        return [str(path) for path, _ in self.files]

    @property
    def uris(self) -> dict[str, str]:
        return {str(path): file.uri for path, file in self.files}


def load(
    connection: duckdb.DuckDBPyConnection,
    table_name: str,
    table: Table,
    files: list[SourceFile],
    stage: Stage,
    quarantine: Quarantine,
) -> list[Path]:
    """Creates a table or view with the name that the query uses.

    Args:
        files: The table's files as recorded.
        stage: Where files are brought.
        quarantine: Takes the rows that do not parse.

    Returns:
        The files that a query over this table will read: those of a view.

    Raises:
        TidemillError: `unreadable-file`, `missing-column` for a declared column that the files lack, `invalid-value` for
            an unknown type or files of several formats.
    """
    types = _declared(table_name, table)
    files = sorted(files, key=lambda f: (json.dumps(formats.partitions(f.uri)), f.version))
    kinds = {formats.of_file(table_name, table.format, f.uri) for f in files}
    if len(kinds) > 1:
        where, got = f"source.tables.{table_name}", f"files of several formats ({', '.join(sorted(kinds))})"
        raise TidemillError(Code.INVALID_VALUE, where, got, "make a table of each format")
    kind = kinds.pop()
    _same_partitions(table_name, files)
    staged = [(stage.fetch(file), file) for file in files]
    if kind == "parquet":
        _create_view(connection, table_name, types, staged, quarantine)
        return [path for path, _ in staged]
    if kind == "jsonl":
        json_lines.load(connection, table_name, types, staged, quarantine)
    else:
        _load_csv(connection, table_name, table, types, kind, staged, quarantine)
    for path, _ in staged:
        stage.drop(path)
    return []


def _declared(table_name: str, table: Table) -> dict[str, str]:
    types = {}
    for column, text in (table.columns or {}).items():
        try:
            types[column] = str(duckdb.sqltype(text))
        except duckdb.Error as error:
            where, want = f"source.tables.{table_name}.columns.{column}", "write a DuckDB type, such as BIGINT or VARCHAR"
            raise TidemillError(Code.INVALID_VALUE, where, repr(text), want) from error
    return types


def _same_partitions(table_name: str, files: list[SourceFile]) -> None:
    first = files[0]
    for file in files:
        if set(formats.partitions(file.uri)) != set(formats.partitions(first.uri)):
            got = f"other partition folders than {first.uri} has"
            raise TidemillError(Code.UNREADABLE_FILE, f"{table_name}: {file.uri}", got, "lay all files out alike")


def _load_csv(
    connection: duckdb.DuckDBPyConnection,
    table_name: str,
    table: Table,
    types: dict[str, str],
    kind: str,
    staged: list[tuple[Path, SourceFile]],
    quarantine: Quarantine,
) -> None:
    delimiter = table.delimiter or ("\t" if kind == "tsv" else ",")
    groups = _csv_groups(table_name, table, types, delimiter, staged)
    partition = [key for key, _ in groups[0].partition]
    columns = list(groups[0].columns)
    check_declared(table_name, types, [*columns, *partition])
    options = f"""auto_detect=false, header={literal(table.header)}, delim={literal(delimiter)}, quote='"', escape='"',
        nullstr={literal(table.null)}, hive_partitioning=false"""
    if unknown := [c for c in columns if c not in types]:
        totals = {c: Counter() for c in unknown}
        for group in groups:
            query = _read_csv(group, dict.fromkeys(group.columns, "VARCHAR"), f"{options}, ignore_errors=true")
            for column, kinds in inference.count_kinds(connection, query, unknown).items():
                totals[column] += kinds
        types = types | {c: inference.type_of(kinds) for c, kinds in totals.items()}
    types = types | partition_types(connection, types, [dict(g.partition) for g in groups])
    shape = ", ".join(f"{name(c)} {types[c]}" for c in [*columns, *partition])
    connection.execute(f"CREATE TABLE main.{name(table_name)} ({shape})")
    for group in groups:
        query = _read_csv(group, types, f"{options}, store_rejects=true, rejects_limit=0")
        values = [name(c) for c in columns]
        values += [f"CAST({literal(dict(group.partition)[c])} AS {types[c]})" for c in partition]
        connection.execute(f"INSERT INTO main.{name(table_name)} SELECT {', '.join(values)} FROM ({query})")
        quarantine.take_csv_rejects(table_name, group.uris)


def _read_csv(group: _Group, types: dict[str, str], options: str) -> str:
    columns = literal({c: types[c] for c in group.columns})
    return f"SELECT * FROM read_csv({literal(group.paths)}, columns={columns}, {options})"


def _csv_groups(
    table_name: str, table: Table, types: dict[str, str], delimiter: str, staged: list[tuple[Path, SourceFile]]
) -> list[_Group]:
    groups = []
    for path, file in staged:
        partition = formats.partitions(file.uri)
        if table.header:
            columns = _header(table_name, path, file, delimiter)
        else:
            columns = tuple(c for c in types if c not in partition)
        groups.append((columns, tuple(partition.items()), (path, file)))
    for columns, partition, (_, file) in groups:
        same_columns(table_name, file, columns, staged[0][1], groups[0][0])
        if both := set(columns) & {key for key, _ in partition}:
            got = f"the column {both.pop()!r}, which the folder's name gives too"
            raise TidemillError(Code.UNREADABLE_FILE, f"{table_name}: {file.uri}", got, "rename one of them")
    return _merge(groups)


def _merge(groups: list[tuple]) -> list[_Group]:
    merged = itertools.groupby(groups, key=lambda g: g[:2])
    return [_Group(columns, partition, tuple(g[2] for g in members)) for (columns, partition), members in merged]


def _header(table_name: str, path: Path, file: SourceFile, delimiter: str) -> tuple[str, ...]:
    where = f"{table_name}: {file.uri}"
    with path.open("rb") as stream:
        start = stream.read(_HEADER_BYTES)
    try:
        text = start[: start.rfind(b"\n") + 1 or None].decode("utf-8-sig")
        columns = tuple(next(csv.reader(text.splitlines(keepends=True), delimiter=delimiter), ()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise TidemillError(Code.UNREADABLE_FILE, where, f"no header in UTF-8 text ({error})", "write CSV in UTF-8") from error
    if not columns:
        raise TidemillError(Code.UNREADABLE_FILE, where, "a file without a header line", "write one, or set header: false")
    lowered = [c.lower() for c in columns]
    double = next((c for c in columns if lowered.count(c.lower()) > 1 or not c.strip()), None)
    if double is not None:
        got = f"the column name {double!r} twice" if double.strip() else "a column without a name"
        want = "give each column a name of its own, or set header: false and columns"
        raise TidemillError(Code.UNREADABLE_FILE, f"{where}, line 1", got, want)
    return columns


def same_columns(
    table_name: str, file: SourceFile, columns: tuple[str, ...], first: SourceFile, first_columns: tuple[str, ...]
) -> None:
    """Checks that a file of a table has the first file's columns, in whatever order.

    Raises:
        TidemillError: `unreadable-file`.
    """
    missing = sorted(set(first_columns) - set(columns))
    extra = sorted(set(columns) - set(first_columns))
    if missing or extra:
        got = " and ".join(
            f"{word} column{'s' * (len(names) > 1)} {', '.join(map(repr, names[:5]))}"
            for word, names in (("no", missing), ("the extra", extra))
            if names
        )
        where = f"{table_name}: {file.uri}"
        raise TidemillError(Code.UNREADABLE_FILE, where, got, f"give all files of a table the columns of {first.uri}")


def check_declared(table_name: str, types: dict[str, str], columns: list[str]) -> None:
    """Checks that each declared column is in the files.

    Raises:
        TidemillError: `missing-column`.
    """
    for column in types:
        if column not in columns:
            where, got = f"source.tables.{table_name}.columns", f"{column!r}, which the files do not have"
            raise TidemillError(Code.MISSING_COLUMN, where, got, nearest(column, columns))


def nearest(word: str, known: list[str]) -> str:
    """The remedy for a wrong name: the one that was probably meant, or what there is."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}"
    shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    return f"use one of {shown}"


def partition_types(
    connection: duckdb.DuckDBPyConnection, declared: dict[str, str], values: list[dict[str, str | None]]
) -> dict[str, str]:
    """Types of the columns that folder names give: declared or found from the values."""
    types = {}
    for key in values[0]:
        if key not in declared:
            query = f"SELECT unnest({literal([v[key] for v in values])})::VARCHAR AS {name(key)}"
            types[key] = inference.type_of(inference.count_kinds(connection, query, [key])[key])
    return types


def _create_view(
    connection: duckdb.DuckDBPyConnection,
    table_name: str,
    types: dict[str, str],
    staged: list[tuple[Path, SourceFile]],
    quarantine: Quarantine,
) -> None:
    groups = []
    first: tuple[str, ...] = ()
    for path, file in staged:
        columns = _parquet_columns(table_name, path, file)
        first = first or columns
        same_columns(table_name, file, columns, staged[0][1], first)
        partition = formats.partitions(file.uri)
        groups.append(((), tuple((k, v) for k, v in partition.items() if k not in columns), (path, file)))
    merged = _merge(groups)
    partition = [key for key, _ in merged[0].partition]
    check_declared(table_name, types, [*first, *partition])
    types = types | partition_types(connection, types, [dict(g.partition) for g in merged])
    casts = {c: types[c] for c in first if c in types}
    parts = list(_parquet_parts(table_name, merged, first, casts, types, quarantine))
    connection.execute(f"CREATE VIEW main.{name(table_name)} AS {' UNION ALL '.join(parts)}")


def _parquet_parts(
    table_name: str,
    groups: list[_Group],
    columns: tuple[str, ...],
    casts: dict[str, str],
    types: dict[str, str],
    quarantine: Quarantine,
) -> Iterator[str]:
    """A SELECT for each group; rows whose declared types do not hold are left out of it and put into quarantine."""
    good = " AND ".join(f"(TRY_CAST({name(c)} AS {t}) IS NOT NULL OR {name(c)} IS NULL)" for c, t in casts.items())
    for group in groups:
        source = f"read_parquet({literal(group.paths)}, union_by_name=true, hive_partitioning=false"
        values = [f"TRY_CAST({name(c)} AS {casts[c]}) AS {name(c)}" if c in casts else name(c) for c in columns]
        values += [f"CAST({literal(v)} AS {types[k]}) AS {name(k)}" for k, v in group.partition]
        yield f"SELECT {', '.join(values)} FROM {source})" + (f" WHERE {good}" if good else "")
        if good:
            reason = " ".join(
                f"WHEN TRY_CAST({name(c)} AS {t}) IS NULL AND {name(c)} IS NOT NULL THEN "
                f"{literal(f'Could not convert column {c} to {t}')}"
                for c, t in casts.items()
            )
            uri = f"map_extract_value(MAP {literal(group.uris)}, tidemill_path)"
            quarantine.take(f"""SELECT {literal(table_name)} AS "table", {uri} AS uri, file_row_number + 1 AS line,
                CASE {reason} END AS reason, to_json({{{', '.join(f'{literal(c)}: {name(c)}' for c in columns)}}}) AS text
                FROM {source}, filename='tidemill_path', file_row_number=true) WHERE NOT ({good})""")


def _parquet_columns(table_name: str, path: Path, file: SourceFile) -> tuple[str, ...]:
    try:
        return tuple(pq.read_schema(path).names)
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        got = f"no whole Parquet file ({str(error).splitlines()[0][:120]})"
        where, want = f"{table_name}: {file.uri}", "replace the file by a whole one"
        raise TidemillError(Code.UNREADABLE_FILE, where, got, want) from error
