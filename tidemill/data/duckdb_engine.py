"""The engine that reads files with DuckDB. Memory does not grow with the number of rows: DuckDB spills to disk.

Tables are loaded, the query runs over them, and its result is sorted. If there is no query and nothing has to be known
of the rows before they are sorted, they are streamed: one pass over the files parses, converts, splits and sorts them.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa

from tidemill.artifacts.examples import ROW_GROUP_ROWS
from tidemill.artifacts.model_columns import SourceColumns, TableColumns
from tidemill.data import model_types, null_words, query_checks, source_record
from tidemill.data.csv_scan import BAD, CsvStream
from tidemill.data.parquet_table import check_readable
from tidemill.data.projection import (
    EXAMINED,
    Projection,
    check_range,
    check_spelling,
    exact_types,
    project,
    schema_types,
)
from tidemill.data.quarantine import QUERY, Quarantine
from tidemill.data.source_engine import ReadRequest, ResultColumns, SourceEngine, SourceFacts, SourceRows
from tidemill.data.source_files import SourceFile, file_format
from tidemill.data.source_record import SourceRecord, check_unchanged
from tidemill.data.source_rows import MALFORMED, SPAN, SPLIT, StreamRows, TableRows
from tidemill.data.splitting import SplitExpressions, one_split, split_expressions
from tidemill.data.staging import StagingFolder
from tidemill.data.statements import check_statement, sql_error
from tidemill.data.tables import known_types, load_table, stream_table, table_columns
from tidemill.duckdb_session import columns_of, connect, quote, restrict_access
from tidemill.errors import Code, TidemillError
from tidemill.experiment.source import Source, Table

_RESULT = "tidemill.result"
_PASSES = re.compile(r"""SELECT\s+\*\s+FROM\s+(main\.)?(\w+|"[^"]+")\s*;?""", re.IGNORECASE)


class DuckDBEngine(SourceEngine):
    """Reads files with DuckDB, on one machine."""

    def record(self, source: Source) -> SourceRecord:
        return source_record.record(source)

    def check_unchanged(self, record: SourceRecord) -> None:
        for file in record.files:
            check_unchanged(file)

    @contextlib.contextmanager
    def read(self, request: ReadRequest) -> Iterator[SourceRows]:
        with contextlib.closing(connect(request.work)) as connection:
            yield _Reading(connection, request).rows(request.record, request.work)

    def inspect(self, request: ReadRequest, numbers: Sequence[str] = ()) -> ResultColumns:
        with contextlib.closing(connect(request.work)) as connection:
            return _Reading(connection, request).inspect(request.record, request.work, numbers)


class _Reading:
    """The reading of a source, in one DuckDB database."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, request: ReadRequest):
        self._connection = connection
        self._spec = request.spec
        self._progress = request.progress
        self._quarantine = Quarantine(connection)
        self._quarantine_path = request.quarantine
        self._result = _RESULT
        self._open: dict[Path, SourceFile] = {}
        self._tables: dict[str, TableColumns] = {}
        self._malformed: dict[str, int] = {}
        self._null_words: dict[str, dict[str, dict[str, float]]] = {}
        text = request.spec.schema_text
        self._given = schema_types(text) if text is not None else {}

    def rows(self, record: SourceRecord, work: Path) -> SourceRows:
        """Loads the tables, runs the query and checks its result, or opens a stream."""
        staging = StagingFolder(work)
        if (stream := self._streamed(record, staging)) is not None:
            return stream
        with self._data_errors():
            try:
                query = self._load(record, staging)
                columns = self._query(query)
                self._check_spelling(columns, record)
                rows = self._check_size()
                projection = self._project(columns, rows)
            finally:
                self._quarantine.write(self._quarantine_path)
            for label in self._spec.labels:
                query_checks.check_label(self._connection, self._result, label, columns[label])
            query_checks.check_key(self._connection, self._result, self._spec.key)
            self._progress.phase("split")
            expressions = self._expressions(columns)
            total = self._connection.execute(f"SELECT count(*) FROM {self._result}").fetchall()[0][0]
            facts = self._facts(self._recorded(columns, projection))
            reader = self._sorted(self._result, projection, expressions)
            return TableRows(self._connection, self._result, reader, self._spec.splits, facts, total)

    def _streamed(self, record: SourceRecord, staging: StagingFolder) -> SourceRows | None:
        """Opens rows that are read from the files once. None if something has to be known of them before the sort."""
        spec = self._spec
        if spec.source.sql is not None or spec.key or spec.schema_text is not None or spec.model is not None:
            return None
        if spec.stage == "train" and (spec.split.by not in ("random", "hash") or spec.split.span is not None):
            return None
        ((name, table),) = spec.source.tables.items()
        self._progress.phase(f"read {name}")
        self._quarantine.write(self._quarantine_path)
        stream = stream_table(self._connection, name, table, record.files, staging, self._quarantine)
        if stream is None:
            return None
        try:
            rows = self._open_stream(name, table, stream, record)
        except duckdb.InvalidInputException:
            rows = None  # DuckDB does not read a file with line ends of two kinds. `CsvTable.create` rewrites it.
        if rows is None:
            self._quarantine.forget(name)
            self._connection.execute(f"DROP VIEW main.{quote(name)}")
        return rows

    def _open_stream(self, name: str, table: Table, stream: CsvStream, record: SourceRecord) -> SourceRows | None:
        """Sorts all rows of a stream. None if a type needs a look at its values first."""
        spec, relation = self._spec, f"main.{quote(name)}"
        _, _, columns = self._bind(f"SELECT * FROM {relation}")
        is_label = all(query_checks.is_label_type(columns[label]) for label in spec.labels)
        if not is_label or any(kind.startswith(EXAMINED) for kind in columns.values()):
            return None
        self._tables[name] = table_columns(self._connection, name, table, record.files)
        self._null_words = null_words.read(self._connection)
        expressions = self._expressions(columns)
        # Malformed rows come first, so that they are counted without another pass.
        split = f"CASE WHEN {BAD} THEN {MALFORMED} ELSE {expressions.split} END"
        expressions = replace(expressions, split=split)
        reader = self._sorted(f"({stream.query})", project(columns, None), expressions)
        batches = iter(reader)
        first = next(batches, None)  # All rows are read and sorted now.
        rest = itertools.chain([] if first is None else [first], batches)
        rows = TableRows(self._connection, relation, reader, spec.splits, self._facts(columns))
        return StreamRows(rows, rest, stream, name, spec, self._quarantine, self._quarantine_path)

    def inspect(self, record: SourceRecord, work: Path, numbers: Sequence[str]) -> ResultColumns:
        with self._data_errors():
            query, params, columns = self._bind(self._load(record, StagingFolder(work)))
            self._check_tables()
            with self._sql_errors():
                unchecked = query_checks.check_in_one_scan(self._connection, query, params, columns, self._spec)
            for label in self._spec.labels:
                query_checks.check_label_type(label, columns[label])
            self._check_spelling(columns, record)
            projection = project(columns, self._spec.schema_text)
            values = ", ".join(f"{expression} AS {quote(c)}" for c, expression in projection.columns.items())
            with self._sql_errors():
                rows = self._connection.sql(f"SELECT {values} FROM ({query}) LIMIT 0", params=params)
        malformed = {name: count for name, count in self._malformed.items() if count}
        texts = query_checks.sample_texts(
            self._connection, list(self._spec.source.tables), [c for c in numbers if columns.get(c) == "VARCHAR"]
        )
        made = {c: str(kind) for c, kind in zip(rows.columns, rows.types, strict=True) if c in self._given}
        source = SourceColumns(result=known_types(columns | made), tables=self._tables)
        return ResultColumns(columns, rows.to_arrow_reader(1).schema, malformed, source, unchecked, texts)

    @contextlib.contextmanager
    def _data_errors(self) -> Iterator[None]:
        """Converts errors that come from a damaged Parquet file to `unreadable-file`. Other errors pass."""
        try:
            yield
        except duckdb.Error:
            check_readable(self._open)
            raise

    @contextlib.contextmanager
    def _sql_errors(self) -> Iterator[None]:
        """Converts DuckDB's errors to `sql-error`, unless a damaged file or the machine caused them."""
        try:
            yield
        except duckdb.Error as error:
            check_readable(self._open)
            if isinstance(error, duckdb.OutOfMemoryException | duckdb.IOException):
                raise
            raise sql_error(error, self._spec.source) from error

    def _load(self, record: SourceRecord, staging: StagingFolder) -> str:
        """Loads the tables, then denies DuckDB access to anything else. Returns the query."""
        source = self._spec.source
        texts = self._texts() if _passes_columns(source) else []
        for table_name, table in source.tables.items():
            self._progress.phase(f"read {table_name}")
            files = [f for f in record.files if f.table == table_name]
            model = self._spec.model
            known = model and model.table(table_name, len(source.tables), source.sql)
            self._open |= load_table(
                self._connection, table_name, table, files, staging, self._quarantine, known, texts
            )
            self._tables[table_name] = table_columns(self._connection, table_name, table, files)
        self._null_words = null_words.read(self._connection)
        restrict_access(self._connection, self._open)
        for table_name, table in source.tables.items():
            good = self._connection.execute(f"SELECT count(*) FROM main.{quote(table_name)}").fetchall()[0][0]
            malformed = self._quarantine.count(table_name)
            self._quarantine.check(table_name, good + malformed, source.max_bad_share, table)
            self._malformed[table_name] = malformed
        return source.sql or f"SELECT * FROM main.{quote(next(iter(source.tables)))}"

    def _texts(self) -> list[str]:
        """Returns the columns that the given schema makes text. A time that only splits the rows stays a time."""
        spec = self._spec
        needed = spec.columns is None or spec.split.column in spec.columns
        time = spec.split.column if spec.split.by == "time" and not needed else None
        return [column for column, kind in self._given.items() if kind == "VARCHAR" and column != time]

    def _check_spelling(self, columns: dict[str, str], record: SourceRecord) -> None:
        """Checks that the given schema makes no column text whose spelling is lost. Parquet has no spelling."""
        tables = self._spec.source.tables
        if any(file_format(f.table, tables[f.table].format, f.uri) != "parquet" for f in record.files):
            check_spelling(columns, self._texts())

    def _recorded(self, columns: dict[str, str], projection: Projection) -> dict[str, str]:
        """Returns the types of the result after those of the given schema."""
        made = {c: projection.columns[c] for c in columns if c in self._given}
        if not made:
            return columns
        values = ", ".join(f"{expression} AS {quote(c)}" for c, expression in made.items())
        return columns | columns_of(self._connection, f"SELECT {values} FROM {_RESULT}")

    def _bind(self, query: str) -> tuple[str, dict, dict[str, str]]:
        """Checks the query and its columns. Returns the query, its parameters and its columns with their types."""
        with self._sql_errors():
            query, params = check_statement(self._connection, query, self._spec.source)
        with self._sql_errors():
            described = self._connection.execute(f"DESCRIBE {query}", params).fetchall()
        query_checks.check_columns([row[0] for row in described], self._spec)
        if self._spec.model is not None:
            model_types.check_inputs([row[0] for row in described], self._spec.model.inputs)
        return query, params, {row[0]: row[1] for row in described}

    def _query(self, query: str) -> dict[str, str]:
        """Runs the query into a table. Returns its columns with their types."""
        self._progress.phase("query")
        query, params, _ = self._bind(query)
        kind = "VIEW" if self._spec.source.sql is None else "TABLE"
        with self._sql_errors():
            self._connection.execute(f"CREATE {kind} {_RESULT} AS {query}", params)
        columns = columns_of(self._connection, _RESULT)
        check_range(self._connection, _RESULT, columns)
        return columns

    def _check_tables(self) -> None:
        """Checks that a table has rows."""
        queries = [f"SELECT 1 FROM main.{quote(name)} LIMIT 1" for name in self._spec.source.tables]
        if self._spec.stage == "train" and not any(self._connection.execute(query).fetchall() for query in queries):
            raise TidemillError(Code.EMPTY_INPUT, "source.tables", "no rows in any table", "check the files")

    def _check_size(self) -> int:
        rows = self._connection.execute(f"SELECT count(*) FROM {self._result}").fetchall()[0][0]
        query_checks.check_size(rows, self._spec)
        return rows

    def _project(self, columns: dict[str, str], rows: int) -> Projection:
        exact = exact_types(self._connection, self._result, columns)
        if self._spec.stage == "train":
            query_checks.check_features({**columns, **exact}, self._spec)
        carried = [*self._spec.key, *((self._spec.columns or []) if self._spec.stage == "predict" else [])]
        projection = project(columns, self._spec.schema_text, None, exact, carried)
        if self._spec.model is not None:
            values = ", ".join(f"{expression} AS {quote(c)}" for c, expression in projection.columns.items())
            types = columns_of(self._connection, f"SELECT {values} FROM {_RESULT}")
            targets = model_types.targets(self._connection, _RESULT, types, self._spec.model)
            projection = project(columns, self._spec.schema_text, targets, exact, carried)
        if projection.malformed:
            self._quarantine.take(projection.quarantine_query(_RESULT, list(columns)))
            self._quarantine.check(QUERY, rows, self._spec.source.max_bad_share)
            self._malformed[QUERY] = self._quarantine.count(QUERY)
            self._connection.execute(
                f"CREATE VIEW tidemill.good AS SELECT * FROM {_RESULT} WHERE NOT ({projection.malformed})"
            )
            self._result = "tidemill.good"
            self._check_size()
        return projection

    def _expressions(self, columns: dict[str, str]) -> SplitExpressions:
        spec = self._spec
        if spec.stage == "train":
            return split_expressions(self._connection, self._result, columns, spec.split, spec.key)
        return one_split(columns, spec.key)

    def _sorted(self, relation: str, projection: Projection, expressions: SplitExpressions) -> pa.RecordBatchReader:
        """Returns the rows in their order, with the columns `SPLIT` and `SPAN`."""
        self._progress.phase("sort")
        values = ", ".join(f"{expression} AS {quote(c)}" for c, expression in projection.columns.items())
        texts = ", ".join(f"{expression} AS {name}" for name, expression in expressions.texts.items())
        sorting = [expressions.split, *expressions.order]
        order = ", ".join(f"tidemill_order_{i}" for i in range(len(sorting)))
        keys = ", ".join(f"{expression} AS tidemill_order_{i}" for i, expression in enumerate(sorting))
        # The split is the first sort key, and the span, if there is one, the second.
        span = "NULL::TINYINT" if expressions.span is None else "tidemill_order_1"
        return self._connection.sql(
            f"SELECT * EXCLUDE ({order}), tidemill_order_0::TINYINT AS {SPLIT}, {span} AS {SPAN} "
            f"FROM (SELECT {values}, {keys} FROM (SELECT *, {texts} FROM {relation})) ORDER BY {order}"
        ).to_arrow_reader(ROW_GROUP_ROWS)

    def _facts(self, columns: dict[str, str]) -> SourceFacts:
        known = SourceColumns(result=known_types(columns), tables=self._tables)
        return SourceFacts(known, {name: count for name, count in self._malformed.items() if count}, self._null_words)


def _passes_columns(source: Source) -> bool:
    """Returns whether the query's columns are those of the only table: no query, or `SELECT * FROM table`."""
    return source.sql is None or (len(source.tables) == 1 and _PASSES.fullmatch(source.sql.strip()) is not None)
