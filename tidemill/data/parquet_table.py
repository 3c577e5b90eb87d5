"""Parquet files of a table, as a view. The files are not copied."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.data.column_types import (
    RENAME_PARTITION,
    check_declared,
    check_names,
    check_same_columns,
    partition_types,
    partition_value,
)
from tidemill.data.quarantine import Quarantine
from tidemill.data.source_files import FileGroup, SourceFile, StagedFiles, group_files, partition_values
from tidemill.data.text_values import INTEGERS, any_of, exact_cast, is_numeric
from tidemill.duckdb_session import columns_of, literal, null_for_nan, parquet_sql, quote
from tidemill.errors import Code, TidemillError

_TIMES = {"DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"}


def create_view(
    connection: duckdb.DuckDBPyConnection,
    table_name: str,
    types: dict[str, str],
    expected: Mapping[str, str],
    staged: StagedFiles,
    quarantine: Quarantine,
) -> None:
    """Creates a view over Parquet files, after checking that their footers are complete and their columns agree.

    NaN becomes null, so that the query finds it as such, and binary columns become text if all their values are UTF-8.

    Args:
        connection: The database.
        table_name: Name of the view to create, in the schema `main`.
        types: Declared DuckDB types of some columns. Rows with a value that they do not hold exactly go to quarantine.
        expected: Types of columns in training. A column that is not declared has it if all its values fit.
        staged: The files with their local paths.
        quarantine: Takes the malformed rows.

    Raises:
        TidemillError: `unreadable-file` for a damaged file, for column names that SQL does not distinguish, and for a
            column whose types in several files have no common exact type; `missing-column`.
    """
    schemas = {path: _schema(table_name, path, file) for path, file in staged}
    names = [tuple(schemas[path].names) for path, _ in staged]
    for (_, file), columns in zip(staged, names, strict=True):
        where = f"{table_name}: {file.uri}"
        check_names(where, columns, "write the file with a different name for each column, whatever its case")
        check_names(where, [*columns, *partition_values(file.uri)], RENAME_PARTITION)
        check_same_columns(table_name, file, columns, staged[0][1], names[0])
    groups = [
        _ParquetGroup(FileGroup(group.columns, group.partition, tuple(files)), connection)
        for group in group_files(staged, names)
        for _, files in itertools.groupby(group.files, lambda item: str(schemas[item[0]].types))
    ]
    first, partition = names[0], [key for key, _ in groups[0].files.partition]
    check_declared(table_name, types, [*first, *partition])
    texts = _text_columns(connection, groups)
    known = {c: expected[c] for c in first if c in expected and c not in types}
    known = {c: kind for c, kind in known.items() if all(group.fits(c, kind, texts) for group in groups)}
    undecided = [c for c in first if c not in types and c not in known]
    common = known | _common_types(connection, table_name, groups, undecided)
    types = types | partition_types(connection, types, [dict(g.files.partition) for g in groups])
    casts = {c: types[c] for c in first if c in types}
    selects = [group.select(casts | common, texts, types) for group in groups]
    connection.execute(f"CREATE VIEW main.{quote(table_name)} AS {' UNION ALL BY NAME '.join(selects)}")
    for group in groups:
        if casts:
            quarantine.take(group.malformed_rows(table_name, casts, texts))


class _ParquetGroup:
    """Files with the same columns of the same types."""

    def __init__(self, files: FileGroup, connection: duckdb.DuckDBPyConnection):
        self.files = files
        self._connection = connection
        self.types = columns_of(connection, f"SELECT * FROM {parquet_sql(files.paths[:1])}")
        self.empty: set[str] = set()
        """Columns without a value that get another type."""

    def scan(self, *options: str) -> str:
        return parquet_sql(self.files.paths, "union_by_name = true", *options)

    def value(self, column: str, texts: set[str]) -> tuple[str, str]:
        """Returns the expression of a column's values, and its type."""
        value, kind = quote(column), self.types[column]
        if column in texts and kind == "BLOB":
            return f"decode({value})", "VARCHAR"
        return null_for_nan(value, kind), kind

    def fits(self, column: str, target: str, texts: set[str]) -> bool:
        """Returns whether another type holds all values of a column, with the same digits."""
        value, kind = self.value(column, texts)
        if kind == target:
            return True
        count = f"SELECT count({value}) FROM {self.scan()}"
        if self._connection.execute(count).fetchall()[0][0] == 0:
            self.empty.add(column)
            return True
        if is_numeric(kind) and is_numeric(target):
            return _all_exact(self._connection, [self], column, target)
        if not (kind == "VARCHAR" or (target == "VARCHAR" and kind in INTEGERS) or {kind, target} <= _TIMES):
            return False
        test = exact_cast(value, kind, target)[1]
        query = f"SELECT count(*) FROM {self.scan()} WHERE {test}"
        return self._connection.execute(query).fetchall()[0][0] == 0

    def select(self, casts: dict[str, str], texts: set[str], types: dict[str, str]) -> str:
        values, malformed = [], []
        for column in self.files.columns:
            value, kind = self.value(column, texts)
            if column in self.empty:
                value, kind = f"CAST(NULL AS {casts[column]})", casts[column]
            cast, test = exact_cast(value, kind, casts.get(column, kind))
            values.append(f"{cast} AS {quote(column)}")
            malformed += [test] if test != "false" else []
        file = self.files.files[0][1]
        for key, text in self.files.partition:
            value = partition_value(self._connection, f"{file.table}: {file.uri}", key, text, types[key])
            values.append(f"{value} AS {quote(key)}")
        condition = f" WHERE NOT {any_of(malformed)}" if malformed else ""
        return f"SELECT {', '.join(values)} FROM {self.scan()}{condition}"

    def malformed_rows(self, table_name: str, casts: dict[str, str], texts: set[str]) -> str:
        """Returns a query for the rows that cannot be cast, for `Quarantine.take`."""
        cases, tests = [], []
        for column, target in casts.items():
            _, test = exact_cast(*self.value(column, texts), target)
            tests.append(test)
            cases.append(f"WHEN {test} THEN {literal(f'Could not convert {column} to {target}')}")
        text = "{" + ", ".join(f"{literal(c)}: {quote(c)}" for c in self.files.columns) + "}"
        uri = f"map_extract_value(MAP {literal(self.files.uris)}, tidemill_path)"
        return f"""SELECT {literal(table_name)} AS "table", {uri} AS uri, file_row_number + 1 AS line,
            CASE {" ".join(cases)} END AS reason, to_json({text})::VARCHAR AS text
            FROM {self.scan("filename = 'tidemill_path'", "file_row_number = true")} WHERE {any_of(tests)}"""


def _common_types(
    connection: duckdb.DuckDBPyConnection, table_name: str, groups: list[_ParquetGroup], columns: Sequence[str]
) -> dict[str, str]:
    """Returns the types of the columns that are integers or decimals in some files and floats in others.

    SQL makes such a column DOUBLE, which rounds long integers. It is DOUBLE only if that is exact for all values, else
    BIGINT if that is.
    """
    common = {}
    for column in columns:
        floats = [g for g in groups if g.types[column] in ("FLOAT", "DOUBLE")]
        exact = [g for g in groups if g not in floats and is_numeric(g.types[column])]
        if not floats or not exact:
            continue
        if _all_exact(connection, exact, column, "DOUBLE"):
            common[column] = "DOUBLE"
        elif _all_exact(connection, floats, column, "BIGINT") and _all_exact(connection, exact, column, "BIGINT"):
            common[column] = "BIGINT"
        else:
            one, other = exact[0], floats[0]
            got = (
                f"the column {column!r} as {one.types[column]}, and as {other.types[column]} in "
                f"{other.files.files[0][1].uri}, which does not hold the numbers of both exactly"
            )
            want = f"write the column with one type in all files, or declare it in source.tables.{table_name}.columns"
            where = f"{table_name}: {one.files.files[0][1].uri}"
            raise TidemillError(Code.UNREADABLE_FILE, where, got, want)
    return common


def _all_exact(connection: duckdb.DuckDBPyConnection, groups: list[_ParquetGroup], column: str, target: str) -> bool:
    for group in groups:
        value, kind = group.value(column, set())
        cast = f"TRY_CAST({value} AS {target})"
        exact = f"TRY_CAST({cast} AS {kind}) = {value}"
        if kind in ("FLOAT", "DOUBLE"):
            # A whole number beyond this may be the rounded form of another one.
            exact += f" AND abs({value}) <= {(1 << 53) if kind == 'DOUBLE' else (1 << 24)}"
        query = f"SELECT count(*) FROM {group.scan()} WHERE {value} IS NOT NULL AND coalesce({exact}, false) = false"
        if connection.execute(query).fetchall()[0][0]:
            return False
    return True


def _text_columns(connection: duckdb.DuckDBPyConnection, groups: list[_ParquetGroup]) -> set[str]:
    """Returns the binary columns whose values are all UTF-8. Writers without a type for text leave them binary."""
    texts = {c for g in groups for c, kind in g.types.items() if kind == "BLOB"}
    for group in groups:
        if some := sorted(c for c in texts if group.types[c] == "BLOB"):
            tests = ", ".join(f"count({quote(c)}) = count(TRY(decode({quote(c)})))" for c in some)
            row = connection.execute(f"SELECT {tests} FROM {group.scan()}").fetchall()[0]
            texts -= {c for c, is_text in zip(some, row, strict=True) if not is_text}
    return texts


def check_readable(files: dict[Path, SourceFile]) -> None:
    """Reads Parquet files to their end, to find the damaged file that made a query fail.

    Raises:
        TidemillError: `unreadable-file`.
    """
    for path, file in files.items():
        with _unreadable(file.table, file), pq.ParquetFile(path) as parquet:
            for _ in parquet.iter_batches():
                pass


def _schema(table_name: str, path: Path, file: SourceFile) -> pa.Schema:
    with _unreadable(table_name, file):
        schema = pq.read_schema(path)
    for field in schema:
        if pa.types.is_decimal256(field.type):
            where, got = f"{table_name}: {file.uri}", f"the column {field.name!r} of type {field.type}"
            want = "write it with at most 38 digits, or as text"
            raise TidemillError(Code.UNREADABLE_FILE, where, got, want)
    return schema


@contextlib.contextmanager
def _unreadable(table_name: str, file: SourceFile) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError.
        got = f"a damaged Parquet file ({str(error).splitlines()[0][:120]})"
        where, want = f"{table_name}: {file.uri}", "replace it with an intact file"
        raise TidemillError(Code.UNREADABLE_FILE, where, got, want) from error
