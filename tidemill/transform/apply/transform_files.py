"""Transformation of Parquet files on several threads, in order and in bounded memory."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.artifacts.examples import ROW_GROUP_ROWS, numbers_writer

_Path = str | os.PathLike
_POSITION_BYTES = 4
"""Maximum bytes of a value that is written as its position in a dictionary."""


@dataclass(frozen=True)
class _UnitOfGroups:
    """A unit: row groups of one file that are read together, several small ones or one.

    `position` is its number among the file's units.
    """

    file: int
    position: int
    groups: list[int]


def transform_files(
    pairs: Sequence[tuple[_Path, _Path]],
    columns: Sequence[str],
    texts: Sequence[str],
    schema: pa.Schema,
    transform: Callable[[pa.RecordBatch], pa.RecordBatch],
    threads: int,
    on_rows: Callable[[int], None],
) -> None:
    """Transforms Parquet files, each to one with the same rows in the same order.

    The bytes do not depend on the number of threads. At most `threads + 2` units of row groups are in memory.

    Args:
        pairs: Source and target of each file.
        columns: The columns to read.
        texts: The string columns among them, which may be read as dictionaries.
        schema: Schema of the results of `transform`: numbers of four bytes.
        transform: Called on several threads with at most `ROW_GROUP_ROWS` rows.
        threads: Number of threads.
        on_rows: Called with the number of rows of each written unit, never on two threads at once.
    """
    sources = [_SourceFile(source, columns, texts) for source, _ in pairs]
    units = [
        _UnitOfGroups(f, position, groups)
        for f, source in enumerate(sources)
        for position, groups in enumerate(source.units())
    ]
    counts = Counter(unit.file for unit in units)
    targets = [_TargetFile(target, schema, counts[file]) for file, (_, target) in enumerate(pairs)]
    run = _FileTransform(sources, targets, iter(units), transform, threads + 2, on_rows)
    try:
        with ThreadPoolExecutor(threads, "transform") as pool:
            try:
                futures = [pool.submit(run.work) for _ in range(threads)]
                wait(futures)
            except BaseException:
                run.give_up()
                raise
        for future in futures:
            future.result()
    finally:
        for target in targets:
            target.close()


class _FileTransform:
    """The state of one call of `transform_files`, which its threads share."""

    def __init__(
        self,
        sources: Sequence[_SourceFile],
        targets: Sequence[_TargetFile],
        units: Iterator[_UnitOfGroups],
        transform: Callable[[pa.RecordBatch], pa.RecordBatch],
        slots: int,
        on_rows: Callable[[int], None],
    ):
        self._sources, self._targets, self._units = sources, targets, units
        self._transform, self._on_rows = transform, on_rows
        # Units are taken in order, so some thread always has the unit that a target waits for.
        self._slots = threading.Semaphore(slots)
        self._taking, self._reporting = threading.Lock(), threading.Lock()
        self._has_failed = False

    def work(self) -> None:
        """Transforms units until none are left."""
        reader = _UnitReader(self._sources)
        try:
            while unit := self._take():
                batches = [self._transform(batch) for batch in reader.read(unit)]
                self._targets[unit.file].put(unit.position, batches, self._written)
        except BaseException:
            self.give_up()
            raise
        finally:
            reader.close()
            # Wakes a thread that waits for a slot, to see that no unit is left.
            self._slots.release()

    def give_up(self) -> None:
        """Makes all threads stop after their current unit."""
        self._has_failed = True

    def _take(self) -> _UnitOfGroups | None:
        self._slots.acquire()
        with self._taking:
            return None if self._has_failed else next(self._units, None)

    def _written(self, batches: list[pa.RecordBatch]) -> None:
        self._slots.release()
        with self._reporting:
            self._on_rows(sum(batch.num_rows for batch in batches))


class _SourceFile:
    """A file to read, of which only the metadata is in memory."""

    def __init__(self, path: _Path, columns: Sequence[str], texts: Sequence[str]):
        self.path, self.columns = path, list(columns)
        self.metadata = pq.read_metadata(path)
        self.dictionaries = [name for name in texts if name in self._with_dictionaries()]

    def units(self) -> Iterator[list[int]]:
        """Yields the numbers of the row groups that are read together."""
        groups: list[int] = []
        rows = 0
        for group in range(self.metadata.num_row_groups):
            size = self.metadata.row_group(group).num_rows
            if groups and rows + size > ROW_GROUP_ROWS:
                yield groups
                groups, rows = [], 0
            groups.append(group)
            rows += size
        if groups:
            yield groups

    def _with_dictionaries(self) -> set[str]:
        """Returns the columns whose values are written as positions in a dictionary in the first row group.

        A writer that abandons a dictionary because it is too large does not record that, but the values are longer
        then.
        """
        if not self.metadata.num_row_groups:
            return set()
        group = self.metadata.row_group(0)
        chunks = [group.column(index) for index in range(group.num_columns)]
        return {chunk.path_in_schema for chunk in chunks if chunk.has_dictionary_page and _are_positions(chunk)}


def _are_positions(chunk: pq.ColumnChunkMetaData) -> bool:
    dictionary = chunk.data_page_offset - (chunk.dictionary_page_offset or chunk.data_page_offset)
    ratio = chunk.total_uncompressed_size / max(chunk.total_compressed_size, 1)
    return (chunk.total_compressed_size - dictionary) * ratio <= _POSITION_BYTES * max(chunk.num_values, 1)


class _UnitReader:
    """A reader of units on one thread. It keeps one file open."""

    def __init__(self, sources: Sequence[_SourceFile]):
        self._sources = sources
        self._open: tuple[int, pq.ParquetFile] | None = None

    def read(self, unit: _UnitOfGroups) -> list[pa.RecordBatch]:
        """Returns the unit's rows in batches of `ROW_GROUP_ROWS` and a rest."""
        file = self._file(unit.file)
        table = file.read_row_groups(unit.groups, self._sources[unit.file].columns, use_threads=False)
        if any(column.num_chunks > 1 for column in table.columns):
            table = table.combine_chunks()
        return [batch for batch in table.to_batches(ROW_GROUP_ROWS) if batch.num_rows]

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()

    def _file(self, number: int) -> pq.ParquetFile:
        if self._open is None or self._open[0] != number:
            self.close()
            source = self._sources[number]
            file = pq.ParquetFile(source.path, metadata=source.metadata, read_dictionary=source.dictionaries)
            self._open = (number, file)
        return self._open[1]


class _TargetFile:
    """A file to write. Units arrive in any order and are written by position, each batch as a row group.

    It may be closed at any time: the thread that waits for the others may be interrupted while they write.
    """

    def __init__(self, path: _Path, schema: pa.Schema, units: int):
        self._path, self._schema, self._units = path, schema, units
        self._lock = threading.Lock()
        self._using = threading.RLock()
        """Held while the file is written to or closed."""
        self._waiting: dict[int, list[pa.RecordBatch]] = {}
        self._next = 0
        self._is_writing = self._is_closed = False
        self._writer = None if units else self._open()
        if not units:
            self.close()

    def put(
        self, position: int, batches: list[pa.RecordBatch], on_written: Callable[[list[pa.RecordBatch]], None]
    ) -> None:
        """Takes a unit, and writes it and the units that waited for it, unless another thread is writing."""
        with self._lock:
            self._waiting[position] = batches
            if self._is_writing:
                return
            self._is_writing = True
        while True:
            with self._lock:
                due = self._waiting.pop(self._next, None)
                if due is None:
                    self._is_writing = False
                    return
            self._write(due)
            on_written(due)

    def close(self) -> None:
        """Closes the file if it is open. Later writes fail."""
        with self._using:
            self._is_closed = True
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _write(self, batches: list[pa.RecordBatch]) -> None:
        with self._using:
            if self._is_closed:
                raise ValueError(f"{self._path} is closed")
            self._writer = self._writer or self._open()
            for batch in batches:
                self._writer.write_table(pa.Table.from_batches([batch]), row_group_size=ROW_GROUP_ROWS)
            self._next += 1
            if self._next == self._units:
                self.close()

    def _open(self) -> pq.ParquetWriter:
        return numbers_writer(self._path, self._schema)
