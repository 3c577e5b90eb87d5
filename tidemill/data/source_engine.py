"""The seam between `ingest` and the engine that reads a source: DuckDB today, BigQuery or another warehouse later.

An engine does three things. It *records* what a run will read, so that the run can be cached and repeated. It *reads*
the record: runs the query, assigns each row to a split, and puts the rows in order. And it delivers the rows as Arrow
batches, or writes the shards itself, as a warehouse does with an export. `ingest` does the rest for every engine: it
writes or adopts the shards, checks labels, splits and features, and publishes the examples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from tidemill.artifacts.model_columns import SourceColumns
from tidemill.data.source_record import SourceRecord
from tidemill.experiment.source import Source
from tidemill.runtime import Progress
from tidemill.steps.ingest import IngestSpec


@dataclass(frozen=True)
class ReadRequest:
    """What `SourceEngine.read` is asked for.

    Attributes:
        spec: The settings of the step.
        record: What planning recorded.
        work: An empty folder for temporary files. The caller removes it.
        quarantine: Path of the JSON-lines file to write with the malformed rows, even if there are none or too many.
        progress: Receives phases.
    """

    spec: IngestSpec
    record: SourceRecord
    work: Path
    quarantine: str
    progress: Progress


@dataclass(frozen=True)
class SplitRows:
    """Consecutive rows of one split.

    Attributes:
        split: The split's name.
        rows: At least one row, with the columns of `SourceRows.schema`.
        span: The value of the span column, which gets shards of its own. None without a span.
    """

    split: str
    rows: pa.RecordBatch
    span: object = None


@dataclass(frozen=True)
class SourceFacts:
    """What an engine knows of the source once it has delivered all rows.

    Attributes:
        columns: The columns with their types, for prediction.
        malformed: Number of malformed rows that were left out, by table, without tables that have none.
        null_words: Share of the rows of a text column that are a default null word, by table, column and word.
    """

    columns: SourceColumns
    malformed: dict[str, int] = field(default_factory=dict)
    null_words: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class ResultColumns:
    """The columns that ingest would write.

    Attributes:
        types: The engine's types of the query's result by column.
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


class SourceRows(ABC):
    """The rows of the query's result, each with its split.

    `ingest` calls `write_shards`. If that returns None, it reads `batches` to their end. Then it calls `check`, and
    `facts` last.
    """

    @property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """The Arrow schema of the examples."""

    @property
    def total(self) -> int | None:
        """Number of rows. None if it is not known before all rows are read."""
        return None

    @abstractmethod
    def batches(self) -> Iterator[SplitRows]:
        """Yields all rows, sorted by split in the order of `IngestSpec.splits`, then by span.

        Equal rows in the source must yield equal batches, whatever their order there. The iterator is read on a
        thread of its own.
        """

    def write_shards(self, folder: Path) -> dict[str, list[str]] | None:
        """Writes Parquet shards below `folder/<split>/`, compressed with zstd.

        An engine that can export its rows overrides this. The default returns None, so that `batches` is read.

        Args:
            folder: An existing folder.

        Returns:
            Names of the shards of every split, below the folder, in the order of the rows. A split without rows has
            one shard without rows.
        """
        return None

    @abstractmethod
    def check(self) -> None:
        """Checks what only all rows show, such as the share of malformed ones. It may have nothing to check.

        Raises:
            TidemillError: Then no examples are written.
        """

    @abstractmethod
    def facts(self) -> SourceFacts:
        """Returns what is written beside the rows."""

    @abstractmethod
    def largest_group(self, column: str) -> tuple[object, int]:
        """Returns the most frequent value of a column with its number of rows, for an error about empty splits."""


class SourceEngine(ABC):
    """Reads the tables of a source and runs its query."""

    @abstractmethod
    def record(self, source: Source) -> SourceRecord:
        """Lists what a run will read, with a content version for each table or file, without reading rows.

        The record's fingerprint is part of the cache key of `ingest`. It must change whenever the rows change.

        Raises:
            TidemillError: `missing-file`, `over-budget` and other errors of finding the source.
        """

    @abstractmethod
    def check_unchanged(self, record: SourceRecord) -> None:
        """Checks that what is recorded has not changed since.

        Raises:
            TidemillError: `source-changed`.
        """

    @abstractmethod
    def read(self, request: ReadRequest) -> AbstractContextManager[SourceRows]:
        """Opens the rows. Leaving the context frees what they need.

        Checks what can be checked before the rows are delivered: the query, the columns that the spec needs, the key.
        A row that is malformed or that contradicts the given schema goes to the quarantine.

        Raises:
            TidemillError: Any code that `ingest` documents.
        """

    @abstractmethod
    def inspect(self, request: ReadRequest, numbers: Sequence[str] = ()) -> ResultColumns:
        """Returns the columns that `read` would deliver, without running the query.

        Args:
            request: What would be read.
            numbers: Columns that should be numbers. Defaults to none.

        Raises:
            TidemillError: As `read`, without what only the query's result shows.
        """
