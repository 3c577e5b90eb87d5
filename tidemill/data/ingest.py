"""The ingest step: reads source files, runs the query, checks the result, splits it and writes examples.

Equal input produces byte-equal examples, unless the query uses random numbers or the clock, or sums floating-point
numbers over many rows: the last digit of such a sum depends on how threads share the work.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill import fingerprint, storage
from tidemill.artifacts import model_columns
from tidemill.artifacts.examples import MALFORMED, NULL_WORDS, ROW_GROUP_ROWS, SPLITS, Dataset, DatasetWriter
from tidemill.artifacts.model_columns import SourceColumns, TableColumns
from tidemill.data import model_types, null_words, query_checks
from tidemill.data.parquet_table import check_readable
from tidemill.data.projection import Projection, check_range, exact_types, project
from tidemill.data.quarantine import QUERY, Quarantine
from tidemill.data.source_files import SourceFile
from tidemill.data.source_record import SourceRecord, check_unchanged, load_record
from tidemill.data.splitting import SplitExpressions, row_hash_sql, split_expressions
from tidemill.data.staging import StagingFolder
from tidemill.data.statements import check_statement, sql_error
from tidemill.data.tables import known_types, load_table, table_columns
from tidemill.duckdb_session import columns_of, connect, quote, restrict_access
from tidemill.errors import Code, TidemillError
from tidemill.runtime import Progress
from tidemill.steps.ingest import IngestSpec

_RESULT = "tidemill.result"
_SPLIT = f"{query_checks.RESERVED_PREFIX}split"
_SPAN = f"{query_checks.RESERVED_PREFIX}span"


@dataclass(frozen=True)
class IngestSummary:
    """The result of the step.

    Attributes:
        rows: Number of rows of each split.
        quarantined: Number of rows in the quarantine file.
        bytes_read: Size of the source files as stored, in bytes.
        fingerprint: Content fingerprint of the examples.
        uneven: A sentence if the shares of the splits are not the wanted ones, else an empty text.
    """

    rows: dict[str, int]
    quarantined: int
    bytes_read: int
    fingerprint: str
    uneven: str


def ingest(spec: IngestSpec, root: str, *, examples: str, quarantine: str, progress: Progress) -> IngestSummary:
    """Reads the files of the source record and writes examples.

    Memory does not grow with the number of rows: DuckDB spills to a folder next to `examples`, which is removed.

    Args:
        spec: The settings. With the stage `predict`, all rows go to one split `predict` and no labels are checked.
        root: URI of the folder with the source record.
        examples: Path of the dataset to write.
        quarantine: Path of the JSON-lines file to write with the malformed rows, even if there are none or too many.
        progress: Receives phases and rows.

    Raises:
        TidemillError: one of `missing-file`, `source-changed`, `over-budget`, `unreadable-file`,
            `malformed-rows`, `sql-error`, `invalid-value`, `unsupported`, `missing-column`, `empty-input`,
            `label-null`, `label-type`, `label-one-class`, `duplicate-key`, `empty-split`, `feature-all-null`. Then no
            examples are written.
    """
    record = load_record(root, spec.source_fingerprint)
    bytes_read = _check_files(record)
    work = Path(examples).with_name(Path(examples).name + ".work")
    storage.remove_folder(work)
    work.mkdir(parents=True)
    try:
        with contextlib.closing(connect(work)) as connection:
            _Ingestion(connection, spec, progress, quarantine).run(record, work, examples)
    finally:
        storage.remove_folder(work)
    written = Dataset(examples)
    with open(quarantine, "rb") as file:
        quarantined = sum(1 for _ in file)
    rows = {name: written.rows(name) for name in written.splits}
    uneven = query_checks.uneven_split(spec.split, rows) if spec.stage == "train" else ""
    return IngestSummary(rows, quarantined, bytes_read, written.fingerprint, uneven)


@dataclass(frozen=True)
class ResultColumns:
    """The columns that ingest would write.

    Attributes:
        types: DuckDB types of the query's result by column.
        schema: The Arrow schema of the examples.
        malformed: Number of malformed rows by table, without tables that have none.
        source: The columns of the tables and of the result, as a published model keeps them.
        unchecked: What only a run of the query would show: one phrase each.
        texts: Some texts of each column of `numbers` that is text, if a table has it under its name.
    """

    types: dict[str, str]
    schema: pa.Schema
    malformed: dict[str, int]
    source: SourceColumns
    unchecked: list[str]
    texts: dict[str, list[str]]


def inspect(spec: IngestSpec, record: SourceRecord, progress: Progress, numbers: Sequence[str] = ()) -> ResultColumns:
    """Reads the tables as `ingest` does, and binds the query without running it.

    Labels and key are checked if one scan of one table gives their values, as without a query.

    Args:
        spec: The settings.
        record: The source record.
        progress: Receives phases.
        numbers: Columns that should be numbers. Defaults to none.

    Raises:
        TidemillError: As `ingest`, without what only the query's result shows.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-inspect-")))
        connection = stack.enter_context(contextlib.closing(connect(folder)))
        return _Ingestion(connection, spec, progress, str(folder / "quarantine")).inspect(record, folder, numbers)


def _check_files(record: SourceRecord) -> int:
    """Checks that the files have not changed since planning. Returns their size in bytes."""
    for file in record.files:
        check_unchanged(file)
    return sum(file.bytes for file in record.files)


class _Ingestion:
    """An ingest in progress, in one DuckDB database."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, spec: IngestSpec, progress: Progress, quarantine: str):
        self._connection = connection
        self._spec = spec
        self._progress = progress
        self._quarantine = Quarantine(connection)
        self._quarantine_path = quarantine
        self._result = _RESULT
        self._open: dict[Path, SourceFile] = {}
        self._tables: dict[str, TableColumns] = {}
        self._malformed: dict[str, int] = {}
        self._null_words: dict[str, dict[str, dict[str, float]]] = {}

    def run(self, record: SourceRecord, work: Path, examples: str) -> None:
        with self._data_errors():
            try:
                query = self._load(record, work)
                columns = self._query(query)
                rows = self._check_size()
                projection = self._project(columns, rows)
            finally:
                self._quarantine.write(self._quarantine_path)
            for label in self._spec.labels:
                query_checks.check_label(self._connection, self._result, label, columns[label])
            query_checks.check_key(self._connection, self._result, self._spec.key)
            self._write(columns, projection, examples)

    def inspect(self, record: SourceRecord, work: Path, numbers: Sequence[str]) -> ResultColumns:
        with self._data_errors():
            query, params, columns = self._bind(self._load(record, work))
            self._check_tables()
            with self._sql_errors():
                unchecked = query_checks.check_in_one_scan(self._connection, query, params, columns, self._spec)
            for label in self._spec.labels:
                query_checks.check_label_type(label, columns[label])
            projection = project(columns, self._spec.schema_text)
            values = ", ".join(f"{expression} AS {quote(c)}" for c, expression in projection.columns.items())
            with self._sql_errors():
                rows = self._connection.sql(f"SELECT {values} FROM ({query}) LIMIT 0", params=params)
        malformed = {name: count for name, count in self._malformed.items() if count}
        texts = query_checks.sample_texts(
            self._connection, list(self._spec.source.tables), [c for c in numbers if columns.get(c) == "VARCHAR"]
        )
        source = SourceColumns(result=known_types(columns), tables=self._tables)
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

    def _load(self, record: SourceRecord, work: Path) -> str:
        """Loads the tables, then denies DuckDB access to anything else. Returns the query."""
        source = self._spec.source
        staging = StagingFolder(work)
        for table_name, table in source.tables.items():
            self._progress.phase(f"read {table_name}")
            files = [f for f in record.files if f.table == table_name]
            model = self._spec.model
            known = model and model.table(table_name, len(source.tables), source.sql)
            self._open |= load_table(self._connection, table_name, table, files, staging, self._quarantine, known)
            self._tables[table_name] = table_columns(self._connection, table_name, table, files)
        self._null_words = null_words.read(self._connection)
        restrict_access(self._connection, self._open)
        for table_name in source.tables:
            good = self._connection.execute(f"SELECT count(*) FROM main.{quote(table_name)}").fetchall()[0][0]
            malformed = self._quarantine.count(table_name)
            self._quarantine.check(table_name, good + malformed, source.max_bad_share)
            self._malformed[table_name] = malformed
        return source.sql or f"SELECT * FROM main.{quote(next(iter(source.tables)))}"

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
        if rows == 0 and self._spec.stage == "train":
            raise TidemillError(Code.EMPTY_INPUT, "source.sql", "no rows", "check the files and the query's conditions")
        limit = self._spec.source.max_rows
        if limit is not None and rows > limit:
            details = {"rows": rows, "max_rows": limit}
            got, want = f"{rows:,} rows, more than {limit:,}", "raise max_rows or narrow the query"
            raise TidemillError(Code.OVER_BUDGET, "source.max_rows", got, want, details)
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

    def _write(self, columns: dict[str, str], projection: Projection, examples: str) -> None:
        spec = self._spec
        self._progress.phase("split")
        if spec.stage == "train":
            expressions = split_expressions(self._connection, self._result, columns, spec.split, spec.key)
            splits: tuple[str, ...] = SPLITS
        else:
            expressions = SplitExpressions("0", (row_hash_sql(columns, spec.key),))
            splits = ("predict",)
        self._progress.phase("sort")
        total = self._connection.execute(f"SELECT count(*) FROM {self._result}").fetchall()[0][0]
        values = ", ".join(f"{expression} AS {quote(c)}" for c, expression in projection.columns.items())
        sorting = [expressions.split, *expressions.order]
        order = ", ".join(f"tidemill_order_{i}" for i in range(len(sorting)))
        keys = ", ".join(f"{expression} AS tidemill_order_{i}" for i, expression in enumerate(sorting))
        # The split is the first sort key, and the span, if there is one, the second.
        span = "NULL::TINYINT" if expressions.span is None else "tidemill_order_1"
        reader = self._connection.sql(
            f"SELECT * EXCLUDE ({order}), tidemill_order_0::TINYINT AS {_SPLIT}, {span} AS {_SPAN} "
            f"FROM (SELECT {values}, {keys} FROM {self._result}) ORDER BY {order}"
        ).to_arrow_reader(ROW_GROUP_ROWS)
        schema = pa.schema([field for field in reader.schema if field.name not in (_SPLIT, _SPAN)])
        checks = query_checks.SplitChecks(spec, self._largest_group)
        metadata = {
            "labels": spec.labels,
            "key": spec.key,
            "source_fingerprint": spec.source_fingerprint,
            "spec_fingerprint": fingerprint.of_json(spec.model_dump(mode="json", by_alias=True)),
            "code": spec.code,
            NULL_WORDS: self._null_words,
            MALFORMED: {name: count for name, count in self._malformed.items() if count},
            model_columns.METADATA: SourceColumns(result=known_types(columns), tables=self._tables).model_dump(
                mode="json"
            ),
        }
        done, last = 0, None
        with DatasetWriter(examples, schema, splits, metadata) as writer:
            for batch in reader:
                for index, span, rows in _consecutive_rows(batch):
                    if (index, span) != last:
                        writer.cut(splits[index])
                    last = index, span
                    writer.write(splits[index], rows)
                    checks.add(splits[index], rows)
                done += batch.num_rows
                self._progress.rows(done, total, "write")
            checks.check()

    def _largest_group(self, column: str) -> tuple[object, int]:
        counts = (
            f"SELECT {quote(column)}::VARCHAR, count(*) FROM {self._result} GROUP BY ALL ORDER BY 2 DESC, 1 LIMIT 1"
        )
        return self._connection.execute(counts).fetchall()[0]


def _consecutive_rows(batch: pa.RecordBatch) -> Iterator[tuple[int, object, pa.RecordBatch]]:
    """Yields the batch's consecutive rows of one split and span: the split's index, the span's value and the rows."""
    index, span = np.asarray(batch.column(_SPLIT)), batch.column(_SPAN)
    rows = batch.drop_columns([_SPLIT, _SPAN])
    changes = np.diff(index) != 0
    if len(changes):
        differs = pc.fill_null(pc.not_equal(span.slice(1), span.slice(0, len(changes))), False)
        changes |= differs.to_numpy(zero_copy_only=False)
    bounds = [0, *(np.flatnonzero(changes) + 1).tolist(), len(index)]
    for start, end in itertools.pairwise(bounds):
        if end > start:
            yield int(index[start]), span[start].as_py(), rows.slice(start, end - start)
