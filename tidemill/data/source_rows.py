"""The sorted rows that DuckDB delivers: from a table, or from a stream that is read once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.data import query_checks
from tidemill.data.csv_scan import CsvStream
from tidemill.data.quarantine import Quarantine
from tidemill.data.source_engine import SourceFacts, SourceRows, SplitRows
from tidemill.duckdb_session import quote
from tidemill.steps.ingest import IngestSpec

SPLIT = f"{query_checks.RESERVED_PREFIX}split"
"""The column with the index of the row's split."""
SPAN = f"{query_checks.RESERVED_PREFIX}span"
"""The column with the row's span."""
MALFORMED = -1
"""The split of malformed rows in a stream."""


class TableRows(SourceRows):
    """The sorted rows of a table or view, which were checked before."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        relation: str,
        reader: pa.RecordBatchReader,
        splits: Sequence[str],
        facts: SourceFacts,
        total: int | None = None,
    ):
        self._connection = connection
        self._relation = relation
        self._reader = reader
        self._splits = splits
        self._facts = facts
        self._total = total

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([field for field in self._reader.schema if field.name not in (SPLIT, SPAN)])

    @property
    def total(self) -> int | None:
        return self._total

    def batches(self) -> Iterator[SplitRows]:
        for batch in self._reader:
            for index, span, rows in _consecutive_rows(batch):
                yield SplitRows(self._splits[index], rows, span)

    def check(self) -> None:
        pass  # The rows were checked before they were sorted.

    def facts(self) -> SourceFacts:
        return self._facts

    def largest_group(self, column: str) -> tuple[object, int]:
        counts = f"SELECT {quote(column)}::VARCHAR, count(*) FROM {self._relation} GROUP BY ALL ORDER BY 2 DESC, 1"
        return self._connection.execute(f"{counts} LIMIT 1").fetchall()[0]


class StreamRows(SourceRows):
    """The sorted rows of a stream, which are checked when all of them are read."""

    def __init__(
        self,
        rows: TableRows,
        batches: Iterator[pa.RecordBatch],
        stream: CsvStream,
        table: str,
        spec: IngestSpec,
        quarantine: Quarantine,
        quarantine_path: str,
    ):
        self._rows = rows
        self._batches = batches
        self._stream = stream
        self._table = table
        self._spec = spec
        self._quarantine = quarantine
        self._quarantine_path = quarantine_path
        self._good = self._bad = 0

    @property
    def schema(self) -> pa.Schema:
        return self._rows.schema

    def batches(self) -> Iterator[SplitRows]:
        for batch in self._batches:
            for index, _, rows in _consecutive_rows(batch):
                if index == MALFORMED:
                    self._bad += rows.num_rows
                else:
                    self._good += rows.num_rows
                    yield SplitRows(self._spec.splits[index], rows)

    def check(self) -> None:
        try:
            self._stream.take_malformed(self._bad)
            malformed = self._quarantine.count(self._table)
            source = self._spec.source
            options = source.tables.get(self._table)
            self._quarantine.check(self._table, self._good + malformed, source.max_bad_share, options)
        finally:
            self._quarantine.write(self._quarantine_path)
        query_checks.check_size(self._good, self._spec)

    def facts(self) -> SourceFacts:
        malformed = self._quarantine.count(self._table)
        return replace(self._rows.facts(), malformed={self._table: malformed} if malformed else {})

    def largest_group(self, column: str) -> tuple[object, int]:
        return self._rows.largest_group(column)


def _consecutive_rows(batch: pa.RecordBatch) -> Iterator[tuple[int, object, pa.RecordBatch]]:
    """Yields the batch's consecutive rows of one split and span: the split's index, the span's value and the rows."""
    index, span = np.asarray(batch.column(SPLIT)), batch.column(SPAN)
    rows = batch.drop_columns([SPLIT, SPAN])
    changes = np.diff(index) != 0
    if len(changes):
        differs = pc.fill_null(pc.not_equal(span.slice(1), span.slice(0, len(changes))), False)
        changes |= differs.to_numpy(zero_copy_only=False)
    bounds = [0, *(np.flatnonzero(changes) + 1).tolist(), len(index)]
    for start, end in itertools.pairwise(bounds):
        if end > start:
            yield int(index[start]), span[start].as_py(), rows.slice(start, end - start)
