"""CSV and TSV files of a table. Only the types of undeclared columns are inferred; the dialect is fixed."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path

import duckdb
import pyarrow as pa

from tidemill.data.column_types import (
    INTEGERS,
    check_declared,
    check_same_columns,
    count_kinds,
    infer_type,
    partition_types,
    with_expected,
)
from tidemill.data.quarantine import MAX_TEXT_CHARS, REJECT_CHARS, Quarantine
from tidemill.data.source_files import FileGroup, SourceFile, StagedFiles, group_files
from tidemill.duckdb_session import literal, quote
from tidemill.errors import Code, TidemillError
from tidemill.experiment.source import Table

_HEADER_BYTES = 1 << 20
_EXACT = "DECIMAL(38,9)"


def create_table(
    connection: duckdb.DuckDBPyConnection,
    table_name: str,
    table: Table,
    types: dict[str, str],
    expected: Mapping[str, str],
    delimiter: str,
    staged: StagedFiles,
    quarantine: Quarantine,
) -> None:
    """Creates a table with the rows of CSV or TSV files.

    Malformed rows go to quarantine: rows with a different number of fields, a value that does not match its column's
    type, text that is not UTF-8, or an unclosed quote. So do fractions in columns that are declared as integers, which
    DuckDB would round.

    Args:
        connection: The database.
        table_name: Name of the table to create, in the schema `main`.
        table: The table's section of the experiment file.
        types: Declared DuckDB types by column. Without a header, the types of all columns in the files' order.
        expected: Types of columns in training. A column that is not declared has it if all its values fit.
        delimiter: The separator of fields.
        staged: The files with their local paths.
        quarantine: Takes the malformed rows.

    Raises:
        TidemillError: `unreadable-file` for a header that is missing, is not UTF-8, or differs between files;
            `missing-column` for a declared column that the files do not have.
    """
    groups = _group_by_header(table_name, table, types, delimiter, staged)
    partition = [key for key, _ in groups[0].partition]
    columns = list(groups[0].columns)
    check_declared(table_name, types, [*columns, *partition])
    types = with_expected(types, expected, columns)
    reader = _CsvReader(connection, table, delimiter)
    integers = [c for c in columns if types.get(c) in INTEGERS]
    if undeclared := [c for c in columns if c not in types]:
        totals = {c: Counter() for c in undeclared}
        for group in groups:
            for column, kinds in count_kinds(connection, reader.text(group), undeclared).items():
                totals[column] += kinds
        types = types | {c: infer_type(kinds, expected.get(c)) for c, kinds in totals.items()}
    types = types | partition_types(connection, types, [dict(g.partition) for g in groups])
    shape = ", ".join(f"{quote(c)} {types[c]}" for c in [*columns, *partition])
    connection.execute(f"CREATE TABLE main.{quote(table_name)} ({shape})")
    for group in groups:
        fractional = reader.fractional_columns(group, integers)
        query = reader.typed(group, types | dict.fromkeys(fractional, _EXACT))
        values = [quote(c) for c in columns]
        values += [f"CAST({literal(dict(group.partition)[c])} AS {types[c]})" for c in partition]
        good = " AND ".join(f"({quote(c)} IS NULL OR {quote(c)} % 1 = 0)" for c in fractional) or "true"
        connection.execute(
            f"INSERT INTO main.{quote(table_name)} SELECT {', '.join(values)} FROM ({query}) WHERE {good}"
        )
        quarantine.take_csv_rejects(table_name, group.uris)
        if fractional:
            for batch in reader.fractional_rows(table_name, group, fractional):
                quarantine.insert(batch)


class _CsvReader:
    """DuckDB's CSV reader with the table's dialect and without detection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, table: Table, delimiter: str):
        self._connection = connection
        self._table = table
        self._delimiter = delimiter
        self._options = f"""auto_detect=false, header={literal(table.header)}, delim={literal(delimiter)}, quote='"',
            escape='"', nullstr={literal(table.null)}, hive_partitioning=false"""

    def typed(self, group: FileGroup, types: dict[str, str]) -> str:
        """Returns a query for the group's rows. DuckDB keeps malformed rows in its rejects tables."""
        extra = f"store_rejects=true, rejects_limit=0, rejects_line_size_limit={REJECT_CHARS}"
        return self._query(group, {c: types[c] for c in group.columns}, extra)

    def text(self, group: FileGroup) -> str:
        """Returns a query for the group's rows as text, without malformed rows."""
        return self._query(group, dict.fromkeys(group.columns, "VARCHAR"), "ignore_errors=true")

    def _query(self, group: FileGroup, types: dict[str, str], extra: str) -> str:
        return f"SELECT * FROM read_csv({literal(group.paths)}, columns={literal(types)}, {self._options}, {extra})"

    def fractional_columns(self, group: FileGroup, columns: list[str]) -> list[str]:
        """Returns the columns, of those declared as integers, that hold a number with a fraction."""
        if not columns:
            return []
        tests = ", ".join(
            f"count(*) FILTER (regexp_matches({quote(c)}, '[.eE]') AND TRY_CAST({quote(c)} AS {_EXACT}) % 1 != 0)"
            for c in columns
        )
        counts = self._connection.execute(f"SELECT {tests} FROM ({self.text(group)})").fetchall()[0]
        return [c for c, count in zip(columns, counts, strict=True) if count]

    def fractional_rows(self, table_name: str, group: FileGroup, columns: list[str]) -> Iterator[pa.Table]:
        """Yields quarantine rows for fractions in the given columns. They are rare, so Python is fast enough."""
        indexes = [(group.columns.index(c), c) for c in columns]
        for path, file in group.files:
            rows = []
            with open(path, encoding="utf-8", errors="replace", newline="") as stream:
                reader = csv.reader(stream, delimiter=self._delimiter)
                start = 1
                for number, row in enumerate(reader):
                    line, start = start, reader.line_num + 1
                    if len(row) != len(group.columns) or (self._table.header and number == 0):
                        continue
                    if fractional := [c for i, c in indexes if _has_fraction(row[i])]:
                        reason = f"Column {fractional[0]} is declared as an integer"
                        text = self._delimiter.join(row)[:MAX_TEXT_CHARS]
                        rows.append({"line": line, "reason": reason, "text": text})
            if rows:
                yield pa.Table.from_pylist([{"table": table_name, "uri": file.uri, **row, "lost": 1} for row in rows])


def _has_fraction(text: str) -> bool:
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        return False
    return value.is_finite() and value % 1 != 0


def _group_by_header(
    table_name: str, table: Table, types: dict[str, str], delimiter: str, staged: StagedFiles
) -> list[FileGroup]:
    if table.header:
        columns = [_read_header(table_name, path, file, delimiter) for path, file in staged]
        for (_, file), names in zip(staged, columns, strict=True):
            check_same_columns(table_name, file, names, staged[0][1], columns[0])
        return group_files(staged, columns)
    partition = {key for group in group_files(staged, [()] * len(staged)) for key, _ in group.partition}
    return group_files(staged, [tuple(c for c in types if c not in partition)] * len(staged))


def _read_header(table_name: str, path: Path, file: SourceFile, delimiter: str) -> tuple[str, ...]:
    where = f"{table_name}: {file.uri}"
    with path.open("rb") as stream:
        start = stream.read(_HEADER_BYTES)
    text = start.decode("utf-8-sig", "surrogateescape")
    try:
        columns = tuple(next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), ()))
        "".join(columns).encode()
    except (UnicodeEncodeError, csv.Error) as error:
        want = "write the file as text in UTF-8, or set its format"
        raise TidemillError(Code.UNREADABLE_FILE, where, "a header that is not UTF-8 text", want) from error
    if not columns:
        want = "write a header, or set header: false and columns"
        raise TidemillError(Code.UNREADABLE_FILE, where, "a file without a header line", want)
    lowered = [c.lower() for c in columns]
    double = next((c for c in columns if lowered.count(c.lower()) > 1 or not c.strip()), None)
    if double is not None:
        got = f"the column name {double!r} twice" if double.strip() else "a column without a name"
        want = "give each column a different name, or set header: false and columns"
        raise TidemillError(Code.UNREADABLE_FILE, f"{where}, line 1", got, want)
    return columns
