"""CSV and TSV files of a table. Only the types of undeclared columns are inferred; the dialect is fixed.

DuckDB splits the files into fields and leaves them text. `text_values` says what a text is, and converts it only if
nothing of it is lost.

A table is created from the files, or, if all types are declared, streamed from them: then the query reads the files
once, and nothing is stored.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa

from tidemill.data import csv_files, null_words
from tidemill.data.column_types import (
    RENAME_PARTITION,
    check_declared,
    check_names,
    check_same_columns,
    count_kinds,
    infer_type,
    partition_types,
    partition_value,
    with_expected,
)
from tidemill.data.csv_malformed import malformed_rows
from tidemill.data.csv_scan import BAD, CsvScan, CsvStream
from tidemill.data.quarantine import REJECT_CHARS, Quarantine
from tidemill.data.source_files import FileGroup, SourceFile, StagedFiles, group_files, partition_values
from tidemill.data.staging import StagingFolder
from tidemill.data.text_values import TextStyle, any_of, exact_sql, malformed_sql
from tidemill.duckdb_session import first_line, literal, quote
from tidemill.errors import Code, TidemillError
from tidemill.experiment.csv_options import DEFAULT_NULLS, Csv

_NO_NULLS = "\x01tidemill\x01"
_MAX_LOCATED = 100_000
_COLUMNS_AT_ONCE = 100
_COUNTED_ROWS = 100_000
_PART = "tidemill_part_"


class CsvTable:
    """A table of CSV or TSV files.

    Args:
        connection: The database.
        name: Name of the table to create, in the schema `main`.
        types: Declared DuckDB types by column. Without a header, the types of all columns in the files' order.
        expected: Types of columns in training. A column that is not declared has it if all its values fit.
        options: How the files are written.
        delimiter: The separator of fields.
        default_nulls: Whether the experiment names no null words, so that those in text columns are counted.
        staging: The folder for copies of files.
        quarantine: Takes the malformed rows.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        name: str,
        types: dict[str, str],
        expected: Mapping[str, str],
        options: Csv,
        delimiter: str,
        default_nulls: bool,
        staging: StagingFolder,
        quarantine: Quarantine,
    ):
        self._connection = connection
        self._name = name
        self._declared = types
        self._expected = expected
        self._options = options
        self._style = TextStyle(
            options.decimal_separator, options.thousands, options.dateformat, options.timestampformat
        )
        self._delimiter = delimiter
        self._default_nulls = default_nulls
        self._staging = staging
        self._quarantine = quarantine

    def create(self, staged: StagedFiles) -> StagedFiles:
        """Creates the table with the rows of the files.

        Malformed rows go to quarantine: rows with a different number of fields, a value that its column's type does not
        hold exactly, text that is not UTF-8, or an unclosed quote.

        Args:
            staged: The files with their local paths.

        Returns:
            The files with the paths of the copies that were read.

        Raises:
            TidemillError: `unreadable-file` for a file that DuckDB cannot split into fields, or a header that is
                missing, is not UTF-8, names a column twice, or differs between files; `missing-column` for a declared
                column that the files do not have.
        """
        staged = [(self._prepared(path, file), file) for path, file in staged]
        # DuckDB does not read a file with line ends of two kinds: it fails, or finds text after a quote.
        try:
            self._create(self._groups(staged))
            has_open_quotes = self._quarantine.has_open_quotes(self._name)
            is_read = not (has_open_quotes and any(csv_files.mixes_line_ends(path) for path, _ in staged))
        except duckdb.InvalidInputException:
            is_read = False
        if is_read:
            return staged
        self._quarantine.forget(self._name)
        staged = [(csv_files.with_one_line_end(self._staging, path, self._options), file) for path, file in staged]
        try:
            self._create(self._groups(staged))
        except duckdb.InvalidInputException as error:
            raise self._unreadable(staged, error) from error
        return staged

    def _prepared(self, path: Path, file: SourceFile) -> Path:
        path = csv_files.decoded(self._staging, path, file, self._options)
        path = csv_files.without_first_lines(self._staging, path, self._options)
        if self._options.skip or self._options.comment:
            # DuckDB expects the line end of the lines above the header in all others, and loses rows without it.
            path = csv_files.with_one_line_end(self._staging, path, self._options)
        return path

    def _groups(self, staged: StagedFiles) -> list[CsvScan]:
        """Reads the headers and returns a scan for each group of files that one query can read."""
        default = self._options.delim is None
        headers = [csv_files.read_header(p, f, self._options, self._delimiter, default) for p, f in staged]
        if self._options.header:
            columns = [header.columns for header in headers]
            for (_, file), names in zip(staged, columns, strict=True):
                check_same_columns(self._name, file, names, staged[0][1], columns[0])
            groups = group_files(staged, columns)
        else:
            partition = {key for group in group_files(staged, [()] * len(staged)) for key, _ in group.partition}
            columns = [tuple(c for c in self._declared if c not in partition)] * len(staged)
            groups = group_files(staged, columns)
        by_path = {path: header for (path, _), header in zip(staged, headers, strict=True)}
        scans = []
        for group in groups:
            for header, files in itertools.groupby(group.files, lambda item: by_path[item[0]]):
                some = FileGroup(group.columns, group.partition, tuple(files))
                scans.append(CsvScan(some, header, self._query(some, header.skip)))
        return scans

    def stream(self, staged: StagedFiles) -> CsvStream | None:
        """Returns the rows of the files as a query that reads them, without reading them now.

        Args:
            staged: The files with their local paths.

        Returns:
            None if the rows have to be stored: if types are inferred, if one query cannot read all files, or if there
            are so many columns that they are converted in parts.

        Raises:
            TidemillError: As `create`.
        """
        if not self._declared:
            return None
        staged = [(self._prepared(path, file), file) for path, file in staged]
        if any(csv_files.mixes_line_ends(path) for path, _ in staged):
            return None
        scans = self._groups(staged)
        columns, partition, types = self._known_types(scans)
        if len(scans) > 1 or partition or len(columns) > _COLUMNS_AT_ONCE or any(c not in types for c in columns):
            return None
        if self._default_nulls:
            self._count_nulls(scans, [c for c in columns if types[c] == "VARCHAR"])
        scan, texts = scans[0], self._texts(columns, types)
        if (words := self._common_nulls(columns)) is not None:
            # DuckDB finds the null words itself, which is faster than a comparison of each field.
            scan = replace(scan, query=self._query(scan.group, scan.header.skip, words))
            texts = {c: self._style.plain_number_sql(quote(c)) if types[c] != "VARCHAR" else quote(c) for c in columns}
        source, is_bad = self._converted(scan, texts, types)
        values = ", ".join(map(quote, columns))
        query = f"SELECT {values}, {is_bad} AS {BAD} FROM {source}"
        return CsvStream(query, types, lambda bad: self._take_malformed(scan, texts, types, bad))

    def _known_types(self, scans: list[CsvScan]) -> tuple[list[str], list[str], dict[str, str]]:
        """Checks the names of columns. Returns the files' columns, those of folders, and the types that are known."""
        groups = [scan.group for scan in scans]
        columns, partition = list(groups[0].columns), [key for key, _ in groups[0].partition]
        check_declared(self._name, self._declared, [*columns, *partition])
        where = f"{self._name}: {groups[0].files[0][1].uri}"
        check_names(where, [*columns, *partition_values(groups[0].files[0][1].uri)], RENAME_PARTITION)
        types = with_expected(self._declared, self._expected, columns)
        return (
            columns,
            partition,
            types | partition_types(self._connection, types, [dict(group.partition) for group in groups]),
        )

    def _create(self, scans: list[CsvScan]) -> None:
        columns, partition, types = self._known_types(scans)
        undeclared = [c for c in columns if c not in types]
        if undeclared or len(columns) > _COLUMNS_AT_ONCE:
            scans = self._stored(columns, scans)
        if undeclared:
            counters = count_kinds(
                self._connection, "tidemill.texts", {c: self._plain(c) for c in undeclared}, self._style
            )
            types = types | {c: infer_type(kinds, self._expected.get(c)) for c, kinds in counters.items()}
        texts = self._texts(columns, types)
        shape = ", ".join(f"{quote(c)} {types[c]}" for c in [*columns, *partition])
        self._connection.execute(f"CREATE OR REPLACE TABLE main.{quote(self._name)} ({shape}, {BAD} BOOLEAN)")
        for scan in scans:
            self._insert(scan, texts, types)
        if self._default_nulls:
            self._count_nulls(scans, [c for c in columns if types[c] == "VARCHAR"])
        self._connection.execute(f"ALTER TABLE main.{quote(self._name)} DROP COLUMN {BAD}")
        self._connection.execute("DROP TABLE IF EXISTS tidemill.texts")

    def _stored(self, columns: list[str], scans: list[CsvScan]) -> list[CsvScan]:
        """Stores all texts in a table, because inference and conversion both read them."""
        shape = ", ".join(f"{quote(c)} VARCHAR" for c in columns)
        self._connection.execute(f"CREATE OR REPLACE TABLE tidemill.texts ({shape}, tidemill_group INTEGER)")
        stored = []
        for index, scan in enumerate(scans):
            self._connection.execute(
                f"INSERT INTO tidemill.texts BY NAME SELECT *, {index} AS tidemill_group FROM ({scan.query})"
            )
            self._quarantine.take_csv_rejects(self._name, scan.group.uris)
            query = f"SELECT * EXCLUDE (tidemill_group) FROM tidemill.texts WHERE tidemill_group = {index}"
            stored.append(replace(scan, query=query, is_stored=True))
        return stored

    def _count_nulls(self, scans: list[CsvScan], columns: list[str]) -> None:
        """Counts null words in text columns: in all rows if they are stored, else in the first rows of the files."""
        source = "tidemill.texts" if scans[0].is_stored else f"({scans[0].query} LIMIT {_COUNTED_ROWS})"
        null_words.count(self._connection, self._name, source, {c: quote(c) for c in columns}, list(DEFAULT_NULLS))
        self._quarantine.discard_csv_rejects()

    def _insert(self, scan: CsvScan, texts: dict[str, str], types: dict[str, str]) -> None:
        """Inserts the rows of one group. Rows with a malformed value go to quarantine."""
        table, partition = f"main.{quote(self._name)}", dict(scan.group.partition)
        values = [quote(c) for c in texts]
        where = f"{self._name}: {scan.group.files[0][1].uri}"
        for column, text in partition.items():
            value = partition_value(self._connection, where, column, text, types[column])
            values.append(f"{value} AS {quote(column)}")
        source, is_bad = self._converted(scan, texts, types)
        self._connection.execute(
            f"INSERT INTO {table} BY NAME SELECT {', '.join(values)}, {is_bad} AS {BAD} FROM {source}"
        )
        for index in range(0, len(texts), _COLUMNS_AT_ONCE):
            self._connection.execute(f"DROP TABLE IF EXISTS temp.{_PART}{index}")
        bad = self._connection.execute(f"SELECT count(*) FILTER ({BAD}) FROM {table}").fetchall()[0][0]
        if bad:
            self._connection.execute(f"DELETE FROM {table} WHERE {BAD}")
        self._take_malformed(scan, texts, types, bad)

    def _take_malformed(self, scan: CsvScan, texts: dict[str, str], types: dict[str, str], bad: int) -> None:
        """Takes the malformed rows of a finished scan: those that were rejected, and `bad` with a malformed value."""
        if not scan.is_stored:
            self._quarantine.take_csv_rejects(self._name, scan.group.uris)
        if bad:
            self._locate(scan, self._bad_texts(scan, texts, types), types, bad)

    def _converted(self, scan: CsvScan, texts: dict[str, str], types: dict[str, str]) -> tuple[str, str]:
        """Returns a relation with the values of all columns, and the condition for rows with a malformed one.

        DuckDB plans a query in a time that is quadratic in its expressions. So it converts wide tables in parts.
        """
        parts = [list(texts)[i : i + _COLUMNS_AT_ONCE] for i in range(0, len(texts), _COLUMNS_AT_ONCE)]
        queries = []
        for index, columns in enumerate(parts):
            # Each level names what the next one uses several times, so that DuckDB computes it once.
            inner = ", ".join(f"{texts[c]} AS tidemill_{i}" for i, c in enumerate(columns))
            exact = ", ".join(
                f"tidemill_{i}, {exact_sql(f'tidemill_{i}', types[c], self._style)} AS tidemill_value_{i}"
                for i, c in enumerate(columns)
            )
            values = [f"tidemill_value_{i} AS {quote(c)}" for i, c in enumerate(columns)]
            tests = self._tests(columns, [f"tidemill_value_{i}" for i in range(len(columns))], types).values()
            # Unlike OR, CASE does not evaluate a condition for all rows.
            cases = " ".join(f"WHEN {test} THEN true" for test in tests)
            values.append(f"{f'CASE {cases} ELSE false END' if cases else 'false'} AS tidemill_bad_{index}")
            queries.append(
                f"(SELECT {', '.join(values)} FROM (SELECT {exact} FROM (SELECT {inner} FROM ({scan.query}))))"
            )
        is_bad = any_of([f"tidemill_bad_{index}" for index in range(len(parts))])
        if len(parts) == 1:
            return queries[0], is_bad
        names = [f"temp.{_PART}{index * _COLUMNS_AT_ONCE}" for index in range(len(parts))]
        for name, query in zip(names, queries, strict=True):
            self._connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS FROM {query}")
        return " POSITIONAL JOIN ".join(names), is_bad

    def _tests(self, columns: Sequence[str], values: Sequence[str], types: dict[str, str]) -> dict[str, str]:
        """Returns the conditions for malformed values, of the texts `tidemill_0` and so on and their values."""
        return {
            c: malformed_sql(f"tidemill_{i}", values[i], types[c])
            for i, c in enumerate(columns)
            if types[c] != "VARCHAR"
        }

    def _bad_texts(self, scan: CsvScan, texts: dict[str, str], types: dict[str, str]) -> dict[str, set[str]]:
        """Returns the malformed fields of each column as they are written, at most `_MAX_LOCATED` of a column."""
        parts = [list(texts)[i : i + _COLUMNS_AT_ONCE] for i in range(0, len(texts), _COLUMNS_AT_ONCE)]
        found: dict[str, set[str]] = {}
        for columns in parts:
            exact = [exact_sql(f"tidemill_{i}", types[c], self._style) for i, c in enumerate(columns)]
            tests = self._tests(columns, exact, types)
            inner = ", ".join(f"{texts[c]} AS tidemill_{i}" for i, c in enumerate(columns))
            counts = ", ".join(f"count(*) FILTER ({test})" for test in tests.values())
            if not tests:
                continue
            row = self._fields(f"SELECT {counts} FROM (SELECT {inner} FROM ({scan.query}))", scan)[0]
            for column in [c for c, count in zip(tests, row, strict=True) if count]:
                text = f"{texts[column]} AS tidemill_{columns.index(column)}"
                query = f"""SELECT DISTINCT {quote(column)} FROM (SELECT {quote(column)}, {text} FROM ({scan.query}))
                    WHERE {tests[column]} LIMIT {_MAX_LOCATED}"""
                found[column] = {value for (value,) in self._fields(query, scan)}
        return found

    def _fields(self, query: str, scan: CsvScan) -> list[tuple]:
        """Returns the rows of a query that reads the files a second time."""
        rows = self._connection.execute(query).fetchall()
        if not scan.is_stored:
            self._quarantine.discard_csv_rejects()
        return rows

    def _locate(self, scan: CsvScan, bad: dict[str, set[str]], types: dict[str, str], count: int) -> None:
        """Puts the rows with a malformed field into quarantine, with their lines."""
        located = 0
        for path, file in scan.group.files:
            skipped = scan.header.lines
            for rows in malformed_rows(path, scan.group.columns, skipped, self._options, self._delimiter, bad, types):
                located += len(rows)
                entries = [{"table": self._name, "uri": file.uri, **row, "lost": 1} for row in rows]
                self._quarantine.insert(pa.Table.from_pylist(entries))
        if missing := count - located:
            column = next(iter(bad))
            reason = f"Column {column}: values that are not exactly of type {types[column]}"
            uri = scan.group.files[0][1].uri
            row = {"table": self._name, "uri": uri, "line": None, "reason": reason, "text": min(bad[column])}
            self._quarantine.insert(pa.Table.from_pylist([{**row, "lost": missing}]))

    def _texts(self, columns: Sequence[str], types: Mapping[str, str]) -> dict[str, str]:
        """Returns the expression of each column's text, from which its values are made."""
        return {c: self._text(c) if types[c] == "VARCHAR" else self._plain(c) for c in columns}

    def _text(self, column: str) -> str:
        """Returns the expression of a column's text, in which null words are null."""
        words = self._nulls(column)
        return f"CASE WHEN {quote(column)} IN ({', '.join(map(literal, words))}) THEN NULL ELSE {quote(column)} END"

    def _plain(self, column: str) -> str:
        """Returns the expression of a column's text, in which numbers are written as in Python."""
        return self._style.plain_number_sql(self._text(column))

    def _nulls(self, column: str) -> list[str]:
        nulls = self._options.nullstr
        words = nulls.get(column, DEFAULT_NULLS) if isinstance(nulls, dict) else nulls
        return list(words) if words else [_NO_NULLS]

    def _common_nulls(self, columns: Sequence[str]) -> list[str] | None:
        """Returns the null words that all columns have. None if there are none, or if they need quotes in a file."""
        words = self._nulls(columns[0])
        special = {self._options.quote, self._options.escape, self._delimiter} - {"", None}
        same = all(self._nulls(c) == words for c in columns)
        return words if same and words != [_NO_NULLS] and not any(s in w for w in words for s in special) else None

    def _query(self, group: FileGroup, skip: int, nulls: list[str] | None = None) -> str:
        """Returns a query for the group's fields as text. DuckDB keeps rows that it cannot split in rejects tables.

        Args:
            group: The files.
            skip: Number of lines to skip.
            nulls: Texts that are null. Defaults to none.
        """
        options = self._options
        # A line without any character is a row if the files have one column.
        empty_is_null = len(group.columns) == 1 and "" in self._nulls(group.columns[0])
        settings = f"""auto_detect=false, header={literal(options.header)}, delim={literal(self._delimiter)},
            quote={literal(options.quote)}, escape={literal(options.escape or options.quote)},
            nullstr={literal(nulls or ["" if empty_is_null else _NO_NULLS])}, hive_partitioning=false,
            store_rejects=true, rejects_limit=0, rejects_line_size_limit={REJECT_CHARS}"""
        if options.comment:
            settings += f", comment={literal(options.comment)}"
        columns = literal(dict.fromkeys(group.columns, "VARCHAR"))
        return f"SELECT * FROM read_csv({literal(group.paths)}, columns={columns}, skip={skip}, {settings})"

    def _unreadable(self, staged: StagedFiles, error: duckdb.Error) -> TidemillError:
        uris = {str(path): file.uri for path, file in staged}
        uri = next((u for p, u in uris.items() if p in str(error)), staged[0][1].uri)
        where, got = f"{self._name}: {uri}", f"a file that does not divide into fields ({first_line(error)})"
        want = f"check the file's quotes and line ends, or set source.tables.{self._name}.csv (quote, escape, delim)"
        return TidemillError(Code.UNREADABLE_FILE, where, got, want)
