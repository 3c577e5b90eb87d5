"""CSV and TSV files, to a table. Nothing but the types of undeclared columns is guessed."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path

import duckdb
import pyarrow as pa

from tidemill.data import inference
from tidemill.data.columns import INTEGERS, check_declared, partition_types, same_columns
from tidemill.data.groups import Group, Staged, group
from tidemill.data.quarantine import MAX_TEXT_CHARS, REJECT_CHARS, Quarantine
from tidemill.duckdb_session import literal, quote
from tidemill.errors import Code, TidemillError
from tidemill.experiment.source import Table
from tidemill.steps.ingest import SourceFile

_HEADER_BYTES = 1 << 20
_EXACT = "DECIMAL(38,9)"


def load(
    connection: duckdb.DuckDBPyConnection,
    table_name: str,
    table: Table,
    types: dict[str, str],
    delimiter: str,
    staged: Staged,
    quarantine: Quarantine,
) -> None:
    """Creates a table of the files' rows.

    Rows with another number of fields, with a value that is not of its column's type, with text that is not UTF-8 or
    with a quote that is not closed go to quarantine. A fraction is not of an integer type: DuckDB would round it.

    Args:
        types: Declared DuckDB types; without a header of all columns in the files' order.
    """
    groups = _groups(table_name, table, types, delimiter, staged)
    partition = [key for key, _ in groups[0].partition]
    columns = list(groups[0].columns)
    check_declared(table_name, types, [*columns, *partition])
    reader = _Reader(connection, table, delimiter)
    integers = [c for c in columns if types.get(c) in INTEGERS]
    if unknown := [c for c in columns if c not in types]:
        totals = {c: Counter() for c in unknown}
        for part in groups:
            for column, kinds in inference.count_kinds(connection, reader.text(part), unknown).items():
                totals[column] += kinds
        types = types | {c: inference.type_of(kinds) for c, kinds in totals.items()}
    types = types | partition_types(connection, types, [dict(g.partition) for g in groups])
    shape = ", ".join(f"{quote(c)} {types[c]}" for c in [*columns, *partition])
    connection.execute(f"CREATE TABLE main.{quote(table_name)} ({shape})")
    for part in groups:
        broken = reader.fractional(part, integers)
        query = reader.typed(part, types | dict.fromkeys(broken, _EXACT))
        values = [quote(c) for c in columns]
        values += [f"CAST({literal(dict(part.partition)[c])} AS {types[c]})" for c in partition]
        good = " AND ".join(f"({quote(c)} IS NULL OR {quote(c)} % 1 = 0)" for c in broken) or "true"
        connection.execute(
            f"INSERT INTO main.{quote(table_name)} SELECT {', '.join(values)} FROM ({query}) WHERE {good}"
        )
        quarantine.take_csv_rejects(table_name, part.uris)
        if broken:
            for batch in reader.fractional_rows(table_name, part, broken):
                quarantine.insert(batch)


class _Reader:
    """DuckDB's CSV reader with the table's dialect, and nothing detected."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, table: Table, delimiter: str):
        self._connection = connection
        self._table = table
        self._delimiter = delimiter
        self._options = f"""auto_detect=false, header={literal(table.header)}, delim={literal(delimiter)}, quote='"',
            escape='"', nullstr={literal(table.null)}, hive_partitioning=false"""

    def typed(self, part: Group, types: dict[str, str]) -> str:
        """A query for the group's rows; what does not parse is kept in DuckDB's rejects tables."""
        extra = f"store_rejects=true, rejects_limit=0, rejects_line_size_limit={REJECT_CHARS}"
        return self._query(part, {c: types[c] for c in part.columns}, extra)

    def text(self, part: Group) -> str:
        """A query for the group's rows as text, without those that do not parse."""
        return self._query(part, dict.fromkeys(part.columns, "VARCHAR"), "ignore_errors=true")

    def _query(self, part: Group, types: dict[str, str], extra: str) -> str:
        return f"SELECT * FROM read_csv({literal(part.paths)}, columns={literal(types)}, {self._options}, {extra})"

    def fractional(self, part: Group, columns: list[str]) -> list[str]:
        """Those of the columns, declared as integers, in which a number has a fraction."""
        if not columns:
            return []
        tests = ", ".join(
            f"count(*) FILTER (regexp_matches({quote(c)}, '[.eE]') AND TRY_CAST({quote(c)} AS {_EXACT}) % 1 != 0)"
            for c in columns
        )
        counts = self._connection.execute(f"SELECT {tests} FROM ({self.text(part)})").fetchall()[0]
        return [c for c, count in zip(columns, counts, strict=True) if count]

    def fractional_rows(self, table_name: str, part: Group, columns: list[str]) -> Iterator[pa.Table]:
        """The rows with a fraction in one of the columns, for the quarantine. A rare case, and so Python will do."""
        places = [(part.columns.index(c), c) for c in columns]
        for path, file in part.files:
            rows = []
            with open(path, encoding="utf-8", errors="replace", newline="") as stream:
                reader = csv.reader(stream, delimiter=self._delimiter)
                start = 1
                for index, row in enumerate(reader):
                    line, start = start, reader.line_num + 1
                    if len(row) != len(part.columns) or (self._table.header and index == 0):
                        continue
                    if broken := [c for i, c in places if _has_fraction(row[i])]:
                        reason = f"Column {broken[0]} is declared as a whole number"
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


def _groups(table_name: str, table: Table, types: dict[str, str], delimiter: str, staged: Staged) -> list[Group]:
    if table.header:
        columns = [_header(table_name, path, file, delimiter) for path, file in staged]
        for (_, file), names in zip(staged, columns, strict=True):
            same_columns(table_name, file, names, staged[0][1], columns[0])
        return group(staged, columns)
    partition = {key for part in group(staged, [()] * len(staged)) for key, _ in part.partition}
    return group(staged, [tuple(c for c in types if c not in partition)] * len(staged))


def _header(table_name: str, path: Path, file: SourceFile, delimiter: str) -> tuple[str, ...]:
    where = f"{table_name}: {file.uri}"
    with path.open("rb") as stream:
        start = stream.read(_HEADER_BYTES)
    text = start.decode("utf-8-sig", "surrogateescape")
    try:
        columns = tuple(next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), ()))
        "".join(columns).encode()
    except (UnicodeEncodeError, csv.Error) as error:
        want = "write the file as text in UTF-8, or set its format"
        raise TidemillError(Code.UNREADABLE_FILE, where, "no header in UTF-8 text", want) from error
    if not columns:
        want = "write a header, or set header: false and columns"
        raise TidemillError(Code.UNREADABLE_FILE, where, "a file without a header line", want)
    lowered = [c.lower() for c in columns]
    double = next((c for c in columns if lowered.count(c.lower()) > 1 or not c.strip()), None)
    if double is not None:
        got = f"the column name {double!r} twice" if double.strip() else "a column without a name"
        want = "give each column a name of its own, or set header: false and columns"
        raise TidemillError(Code.UNREADABLE_FILE, f"{where}, line 1", got, want)
    return columns
