"""From the source's files to examples: read, query, check, divide, write.

Equal input gives byte-equal examples. A query keeps that promise unless it calls on chance or the clock, or adds up
floating-point numbers over many rows, whose last digit depends on how threads share the work.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill import fingerprint, storage
from tidemill.artifacts.examples import ROW_GROUP_ROWS, SPLITS, Dataset, DatasetWriter
from tidemill.data import parquet, split, tables
from tidemill.data.quarantine import QUERY, Quarantine
from tidemill.data.result import Projection, check_range, project
from tidemill.data.sources import check_unchanged, load_record
from tidemill.data.staging import Stage
from tidemill.duckdb_session import columns_of, connect, first_line, quote, shut_off
from tidemill.errors import Code, TidemillError, suggest_name
from tidemill.experiment.source import Source
from tidemill.runtime import Progress
from tidemill.steps.ingest import IngestSpec, SourceFile, SourceRecord

_RESULT = "tidemill.result"
_OWN_PREFIX = "tidemill_"
_SPLIT = f"{_OWN_PREFIX}split"
_SPAN = f"{_OWN_PREFIX}span"


@dataclass(frozen=True)
class IngestSummary:
    """What came of it."""

    rows: dict[str, int]
    """Rows of each split."""
    quarantined: int
    """Rows that were put aside."""
    bytes_read: int
    """Size of the source files as stored."""
    fingerprint: str
    """Content fingerprint of the examples."""


def ingest(spec: IngestSpec, root: str, *, examples: str, quarantine: str, progress: Progress) -> IngestSummary:
    """Reads the recorded sources and writes examples.

    Memory stays bounded, whatever the number of rows: DuckDB spills beside `examples`, to a folder that is removed.

    Args:
        spec: What to do. With stage `predict` all rows go to one split `predict`, and there are no labels to check.
        root: URI of the folder with the source record.
        examples: Path of the dataset to write.
        quarantine: Path of the JSON-lines file for rows that do not parse; written also when there are none, and also
            when there are too many.
        progress: Told of phases and rows.

    Raises:
        TidemillError: with one of the codes `missing-file`, `source-changed`, `over-budget`, `unreadable-file`,
            `malformed-rows`, `sql-error`, `invalid-value`, `missing-column`, `empty-input`, `label-null`, `label-type`,
            `label-one-class`, `duplicate-key`, `empty-split`, `feature-all-null`. No examples are written then.
    """
    record = load_record(root, spec.source_fingerprint)
    bytes_read = _check_files(record)
    work = Path(examples).with_name(Path(examples).name + ".work")
    storage.remove_folder(work)
    work.mkdir(parents=True)
    try:
        with contextlib.closing(connect(work)) as connection:
            _Ingest(connection, spec, progress, quarantine).run(record, work, examples)
    finally:
        storage.remove_folder(work)
    written = Dataset(examples)
    with open(quarantine, "rb") as file:
        quarantined = sum(1 for _ in file)
    rows = {name: written.rows(name) for name in written.splits}
    return IngestSummary(rows, quarantined, bytes_read, written.fingerprint)


def _check_files(record: SourceRecord) -> int:
    """Checks that the files are as they were planned; `max_bytes` held then. Returns their size in bytes."""
    for file in record.files:
        check_unchanged(file)
    return sum(file.bytes for file in record.files)


class _Ingest:
    """One run over one database."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, spec: IngestSpec, progress: Progress, quarantine: str):
        self._connection = connection
        self._spec = spec
        self._progress = progress
        self._quarantine = Quarantine(connection)
        self._quarantine_path = quarantine
        self._result = _RESULT
        self._open: dict[Path, SourceFile] = {}

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
                self._check_label(label, columns[label])
            self._check_key(columns)
            self._write(columns, projection, examples)

    @contextlib.contextmanager
    def _data_errors(self) -> Iterator[None]:
        """Says so when an error comes from a Parquet file that is broken inside; other errors pass."""
        try:
            yield
        except duckdb.Error:
            parquet.check_readable(self._open)
            raise

    @contextlib.contextmanager
    def _sql_errors(self) -> Iterator[None]:
        """Turns DuckDB's errors into `sql-error`, unless the data or the machine is at fault."""
        try:
            yield
        except duckdb.Error as error:
            parquet.check_readable(self._open)
            if isinstance(error, duckdb.OutOfMemoryException | duckdb.IOException):
                raise
            raise TidemillError(Code.SQL_ERROR, "source.sql", first_line(error), "mend the query") from error

    def _load(self, record: SourceRecord, work: Path) -> str:
        """Loads the tables, shuts the engine off from everything else, and gives the query."""
        source = self._spec.source
        stage = Stage(work)
        for table_name, table in source.tables.items():
            self._progress.phase(f"read {table_name}")
            files = [f for f in record.files if f.table == table_name]
            self._open |= tables.load(self._connection, table_name, table, files, stage, self._quarantine)
        shut_off(self._connection, self._open)
        for table_name in source.tables:
            good = self._connection.execute(f"SELECT count(*) FROM main.{quote(table_name)}").fetchall()[0][0]
            bad = self._quarantine.count(table_name)
            self._quarantine.check(table_name, good + bad, source.max_bad_share)
        return source.sql or f"SELECT * FROM main.{quote(next(iter(source.tables)))}"

    def _query(self, query: str) -> dict[str, str]:
        """Runs the query into a table; returns its columns with their types."""
        self._progress.phase("query")
        with self._sql_errors():
            query, params = _checked(self._connection, query, self._spec.source)
        with self._sql_errors():
            described = self._connection.execute(f"DESCRIBE {query}", params).fetchall()
        _check_columns([row[0] for row in described], self._spec)
        kind = "VIEW" if self._spec.source.sql is None else "TABLE"
        with self._sql_errors():
            self._connection.execute(f"CREATE {kind} {_RESULT} AS {query}", params)
        columns = columns_of(self._connection, _RESULT)
        check_range(self._connection, _RESULT, columns)
        return columns

    def _check_size(self) -> int:
        rows = self._connection.execute(f"SELECT count(*) FROM {self._result}").fetchall()[0][0]
        if rows == 0:
            raise TidemillError(Code.EMPTY_INPUT, "source.sql", "no rows", "check the files and the query's conditions")
        limit = self._spec.source.max_rows
        if limit is not None and rows > limit:
            details = {"rows": rows, "max_rows": limit}
            got, want = f"{rows:,} rows, more than {limit:,}", "raise max_rows or narrow the query"
            raise TidemillError(Code.OVER_BUDGET, "source.max_rows", got, want, details)
        return rows

    def _project(self, columns: dict[str, str], rows: int) -> Projection:
        projection = project(columns, self._spec.schema_text)
        if projection.bad:
            self._quarantine.take(projection.quarantine_query(_RESULT, list(columns)))
            self._quarantine.check(QUERY, rows, self._spec.source.max_bad_share)
            self._connection.execute(
                f"CREATE VIEW tidemill.good AS SELECT * FROM {_RESULT} WHERE NOT ({projection.bad})"
            )
            self._result = "tidemill.good"
            self._check_size()
        return projection

    def _check_label(self, label: str, kind: str) -> None:
        column = quote(label)
        counts = f"SELECT {column}::VARCHAR AS value, count(*) AS n FROM {self._result} GROUP BY value"
        values = self._connection.execute(f"{counts} ORDER BY n DESC, value LIMIT 5").fetchall()
        test = f"{column} IS NULL" + (f" OR isnan({column})" if kind in ("FLOAT", "DOUBLE") else "")
        nulls = self._connection.execute(f"SELECT count(*) FROM {self._result} WHERE {test}").fetchall()[0][0]
        if nulls:
            want = "leave such rows out in the query"
            raise TidemillError(Code.LABEL_NULL, f"label {label!r}", f"{nulls:,} nulls", want, {"nulls": nulls})
        numeric = kind == "BOOLEAN" or kind.removeprefix("U").startswith(_NUMBERS)
        if not numeric:
            got = f"a column of type {kind}, with values such as {', '.join(repr(v) for v, _ in values[:3])}"
            raise TidemillError(Code.LABEL_TYPE, f"label {label!r}", got, _WANT_BINARY)
        if kind != "BOOLEAN" and (other := [v for v, _ in values if float(v) not in (0.0, 1.0)]):
            raise TidemillError(Code.LABEL_TYPE, f"label {label!r}", f"the value {other[0]}", _WANT_BINARY)
        if len(values) == 1:
            _raise_one_class(label, values[0][0], "in all rows")

    def _check_key(self, columns: dict[str, str]) -> None:
        key = self._spec.key
        if not key:
            return
        where = f"key {', '.join(key)}"
        nulls = self._connection.execute(
            f"SELECT count(*) FROM {self._result} WHERE {' OR '.join(f'{quote(c)} IS NULL' for c in key)}"
        ).fetchall()[0][0]
        if nulls:
            want = "leave such rows out in the query, or choose key columns without nulls"
            raise TidemillError(Code.DUPLICATE_KEY, where, f"{nulls:,} rows with a null", want, {"nulls": nulls})
        names = ", ".join(quote(c) for c in key)
        double = f"SELECT {names}, count(*) AS n FROM {self._result} GROUP BY {names} HAVING n > 1"
        count, surplus = self._connection.execute(f"SELECT count(*), sum(n) FROM ({double})").fetchall()[0]
        if count:
            *values, rows = self._connection.execute(f"{double} ORDER BY ALL LIMIT 1").fetchall()[0]
            got = f"{count:,} values that occur more than once, such as {', '.join(map(str, values))} in {rows} rows"
            want = "add a column that tells them apart, or make the query return each once"
            raise TidemillError(Code.DUPLICATE_KEY, where, got, want, {"values": count, "rows": int(surplus)})

    def _write(self, columns: dict[str, str], projection: Projection, examples: str) -> None:
        spec = self._spec
        self._progress.phase("split")
        if spec.stage == "train":
            division = split.divide(self._connection, self._result, columns, spec.split, spec.key)
            splits: tuple[str, ...] = SPLITS
        else:
            division = split.Division("0", (split.row_hash(columns, spec.key),))
            splits = ("predict",)
        self._progress.phase("sort")
        total = self._connection.execute(f"SELECT count(*) FROM {self._result}").fetchall()[0][0]
        values = ", ".join(f"{expression} AS {quote(c)}" for c, expression in projection.columns.items())
        sorting = [division.split, *division.order]
        order = ", ".join(f"tidemill_order_{i}" for i in range(len(sorting)))
        keys = ", ".join(f"{expression} AS tidemill_order_{i}" for i, expression in enumerate(sorting))
        # Ordered by the split first, then by what `division.order` begins with.
        span = "NULL::TINYINT" if division.span is None else "tidemill_order_1"
        reader = self._connection.sql(
            f"SELECT * EXCLUDE ({order}), tidemill_order_0::TINYINT AS {_SPLIT}, {span} AS {_SPAN} "
            f"FROM (SELECT {values}, {keys} FROM {self._result}) ORDER BY {order}"
        ).to_arrow_reader(ROW_GROUP_ROWS)
        schema = pa.schema([field for field in reader.schema if field.name not in (_SPLIT, _SPAN)])
        watch = _TrainWatch(spec)
        metadata = {
            "labels": spec.labels,
            "key": spec.key,
            "source_fingerprint": spec.source_fingerprint,
            "spec_fingerprint": fingerprint.of_json(spec.model_dump(mode="json", by_alias=True)),
            "code": spec.code,
        }
        done, last = 0, None
        with DatasetWriter(examples, schema, splits, metadata) as writer:
            for batch in reader:
                for index, span, part in _parts(batch):
                    if (index, span) != last:
                        writer.cut(splits[index])
                    last = index, span
                    writer.write(splits[index], part)
                    watch.see(splits[index], part)
                done += batch.num_rows
                self._progress.rows(done, total, "write")
            watch.check()


class _TrainWatch:
    """What can only be checked once the rows are divided, counted while they go by."""

    def __init__(self, spec: IngestSpec):
        self._spec = spec
        self._rows: dict[str, int] = {}
        self._known: dict[str, int] = dict.fromkeys(spec.columns or (), 0)
        self._classes: dict[str, set[float]] = {label: set() for label in spec.labels}

    def see(self, name: str, part: pa.RecordBatch) -> None:
        self._rows[name] = self._rows.get(name, 0) + part.num_rows
        if name == "train":
            for column in self._known:
                values = part.column(column)
                self._known[column] += len(values) - values.null_count
            for label, classes in self._classes.items():
                classes |= {float(v) for v in pc.unique(part.column(label)).to_pylist()}

    def check(self) -> None:
        if self._spec.stage != "train":
            return
        by, fractions = self._spec.split.by, self._spec.split.fractions
        for part in SPLITS:
            wanted = part == "train" or by == "column" or getattr(fractions, part) > 0
            if wanted and not self._rows.get(part):
                rows = sum(self._rows.values())
                got = f"no rows for {part} of {rows:,} in all"
                want = "give the split a larger fraction or more rows, or choose another split.by"
                raise TidemillError(Code.EMPTY_SPLIT, f"split by {by}", got, want, {"rows": self._rows})
        for label, classes in self._classes.items():
            if len(classes) == 1:
                _raise_one_class(label, f"{classes.pop():g}", "in all rows of train")
        if empty := [column for column, known in self._known.items() if known == 0]:
            got = f"no value in {self._rows['train']:,} rows of train for {', '.join(empty)}"
            want = "leave these columns out, or mend the query or the files' columns"
            raise TidemillError(Code.FEATURE_ALL_NULL, "features, evaluation.slices", got, want, {"columns": empty})


_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")
_WANT_BINARY = "make it 0 and 1, or false and true, in the query"


def _raise_one_class(label: str, value: str, where: str) -> None:
    want = "take rows of both classes, or another label"
    raise TidemillError(Code.LABEL_ONE_CLASS, f"label {label!r}", f"the single value {value} {where}", want)


def _parts(batch: pa.RecordBatch) -> Iterator[tuple[int, object, pa.RecordBatch]]:
    """The batch's runs of rows of one split and one span: the split's index, the span's value, and the rows."""
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


def _checked(connection: duckdb.DuckDBPyConnection, query: str, source: Source) -> tuple[str, dict]:
    """The query, once it is a single SELECT whose parameters have their values and no others are given."""
    statements = connection.extract_statements(query)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        kinds = ", ".join(s.type.name for s in statements) or "nothing"
        raise TidemillError(Code.SQL_ERROR, "source.sql", f"{len(statements)} statements ({kinds})", "write one SELECT")
    used = set(statements[0].named_parameters)
    for param in source.params:
        if param not in used:
            want = suggest_name(param, sorted(used)) if used else "remove it, or write ${param} in the query"
            got = "a parameter that the query does not use"
            raise TidemillError(Code.INVALID_VALUE, f"source.params.{param}", got, want.replace("{param}", param))
    if missing := sorted(used - set(source.params)):
        got = f"no value for ${missing[0]}, which the query uses"
        raise TidemillError(Code.INVALID_VALUE, "source.params", got, f"add {missing[0]}: …")
    return statements[0].query, dict(source.params)


def _check_columns(columns: list[str], spec: IngestSpec) -> None:
    lowered = [c.lower() for c in columns]
    if double := next((c for c in columns if lowered.count(c.lower()) > 1), None):
        got, want = f"two columns called {double!r}", "name one of them otherwise with AS"
        raise TidemillError(Code.SQL_ERROR, "source.sql", got, want)
    if own := next((c for c in lowered if c.startswith(_OWN_PREFIX)), None):
        got, want = f"a column called {own!r}", f"rename it with AS; ingest uses names that begin with {_OWN_PREFIX}"
        raise TidemillError(Code.SQL_ERROR, "source.sql", got, want)
    needed = [("label" if len(spec.labels) == 1 else "labels", label) for label in spec.labels]
    needed += [("key", column) for column in spec.key]
    if spec.stage == "train" and spec.split.column is not None:
        needed.append(("split.column", spec.split.column))
    if spec.stage == "train" and spec.split.span is not None:
        needed.append(("split.span", spec.split.span))
    needed += [
        ("features, evaluation.slices" if spec.stage == "train" else "predict.columns", column)
        for column in spec.columns or ()
    ]
    for where, column in needed:
        if column not in columns:
            got = f"{column!r}, which the query does not return"
            raise TidemillError(Code.MISSING_COLUMN, where, got, suggest_name(str(column), columns))
