"""A Parquet file that is written on a thread, so that encoding overlaps with reading and with other files."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.artifacts.artifact import FileEntry

_COMPRESSION = "zstd"


class ByteBudget:
    """A limit of the bytes that wait to be written, for all files together.

    Args:
        limit: Number of bytes. A larger table is accepted if no other waits.
    """

    def __init__(self, limit: int):
        self._limit, self._used = limit, 0
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Waits until the bytes fit into the limit."""
        with self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + size <= self._limit)
            self._used += size

    def give_back(self, size: int) -> None:
        with self._changed:
            self._used -= size
            self._changed.notify_all()


class ShardFile:
    """A Parquet file in the making.

    Args:
        root: The dataset's folder.
        name: Path of the file below it.
        schema: The Arrow schema.
        row_group_rows: Number of rows of a row group.
        budget: The bytes that may wait.
    """

    def __init__(self, root: Path, name: str, schema: pa.Schema, row_group_rows: int, budget: ByteBudget):
        self._root, self._name, self._schema = root, name, schema
        self._row_group_rows, self._budget = row_group_rows, budget
        self._tables: queue.SimpleQueue[tuple[pa.Table, int] | None] = queue.SimpleQueue()
        self._entry: FileEntry | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="tidemill-shard", daemon=True)
        self._thread.start()

    def write(self, table: pa.Table) -> None:
        """Appends a row group.

        Raises:
            OSError: An earlier write failed, or another error of the thread.
        """
        if self._error is not None:
            raise self._error
        size = table.nbytes
        self._budget.take(size)
        self._tables.put((table, size))

    def close(self) -> None:
        """Ends the file after what was written. Does not wait."""
        self._tables.put(None)

    def wait(self) -> None:
        """Waits for the thread, which ends after `close`."""
        self._thread.join()

    def entry(self) -> FileEntry:
        """Waits for the file and returns its entry in the manifest.

        Raises:
            OSError: A write failed, or another error of the thread.
        """
        self.wait()
        if self._error is not None:
            raise self._error
        assert self._entry is not None
        return self._entry

    def _run(self) -> None:
        try:
            rows = 0
            with pq.ParquetWriter(self._root / self._name, self._schema, compression=_COMPRESSION) as writer:
                while (item := self._tables.get()) is not None:
                    table, size = item
                    try:
                        # With several chunks the pages would depend on how the rows arrived.
                        writer.write_table(table.combine_chunks(), row_group_size=self._row_group_rows)
                    finally:
                        self._budget.give_back(size)
                    rows += table.num_rows
            self._entry = FileEntry.of(self._root, self._name, rows=rows)
        except BaseException as error:  # It is raised in the thread that writes.
            self._error = error
            while (item := self._tables.get()) is not None:
                self._budget.give_back(item[1])
