"""The DuckDB store in which vocabularies are counted, in bounded memory that spills to a folder.

Does not import TensorFlow.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol

import duckdb
import pyarrow as pa

from tidemill.duckdb_session import first_line, parquet_sql
from tidemill.errors import Code, TidemillError

STREAM_ROWS = 1 << 16
_HELD_SHARE = 8
"""Buffers may hold one part in this many of the memory."""
STATE_FILE = "counts.parquet"


class Buffer(Protocol):
    """A buffer of rows in memory that can be inserted into DuckDB.

    Attributes:
        held: Bytes in memory.
    """

    held: int

    def flush(self) -> None:
        """Inserts the rows into DuckDB."""


class CountStore:
    """A store of counts: a DuckDB connection for one analysis. Closed by `close` or as a context manager.

    Two threads may run statements, streams and inserts at the same time. Queries of `prefetch` run one after the other
    on a separate thread.

    Args:
        folder: An existing folder, below which DuckDB spills.
        memory_bytes: DuckDB's memory limit.
        threads: DuckDB's threads.
        per_file: Whether reductions must keep files apart, so that each can be dumped. Defaults to False.

    Attributes:
        connection: DuckDB's connection.
        threads, per_file: As given.
    """

    def __init__(self, folder: str | os.PathLike, memory_bytes: int, threads: int, per_file: bool = False):
        settings = {
            "memory_limit": f"{memory_bytes}B",
            "threads": threads,
            "temp_directory": str(Path(folder) / "counts"),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        }
        self.per_file, self.threads = per_file, threads
        self._folder = Path(folder)
        self.connection = duckdb.connect(":memory:", config=settings)
        self._tables = itertools.count(1)
        self._using = threading.RLock()
        """Held while the connection itself is used. Streams have cursors of their own."""
        self._to_drop: collections.deque[str] = collections.deque()
        """Tables that the next statement drops."""
        self._streams: set[duckdb.DuckDBPyConnection] = set()
        self._max_held = memory_bytes // _HELD_SHARE
        self._buffers: list[Buffer] = []
        self._prefetched: dict[str, tuple[duckdb.DuckDBPyConnection, Future[str]]] = {}
        self._background = ThreadPoolExecutor(1, thread_name_prefix="tidemill-counts")

    def __enter__(self) -> CountStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection, which drops all tables."""
        self._buffers.clear()
        self._background.shutdown(wait=False, cancel_futures=True)
        # DuckDB ignores an interrupt that comes before the query has started.
        while running := [future for _, future in self._prefetched.values() if not future.done()]:
            self.interrupt()
            wait(running, timeout=0.05)
        self._prefetched.clear()
        self._background.shutdown()
        self.connection.close()

    def interrupt(self) -> None:
        """Makes all running queries fail, on any thread. Queries that have not started yet still run."""
        for connection in [self.connection, *self._streams, *(cursor for cursor, _ in list(self._prefetched.values()))]:
            # The thread that ran it may close it at the same time.
            with contextlib.suppress(duckdb.ConnectionException):
                connection.interrupt()

    def new_table(self) -> str:
        """Returns an unused table name."""
        return f"t{next(self._tables)}"

    def create(self, query: str) -> str:
        """Creates a table from a query's result.

        Returns:
            The table's name. The table exists until `drop`.

        Raises:
            TidemillError: `unreadable-file` for a Parquet column of text that is not UTF-8.
        """
        name, _ = self.create_counted(query)
        return name

    def create_counted(self, query: str) -> tuple[str, int]:
        """Creates a table as `create` does, and also returns the number of rows."""
        name = self.new_table()
        with self._exclusive():
            _execute(self.connection, f"CREATE TABLE {name} AS {query}")
            ((rows,),) = self.connection.fetchall()
        return name, rows

    def execute(self, statement: str) -> None:
        """Runs a statement without a result.

        Raises:
            TidemillError: See `create`.
        """
        with self._exclusive():
            _execute(self.connection, statement)

    @property
    def has_prefetched(self) -> bool:
        """Whether there are prefetched queries whose rows have not been read by `source`."""
        return bool(self._prefetched)

    def prefetch(self, query: str) -> None:
        """Starts a query whose rows `source` will return. Does nothing if the query was started before."""
        if query in self._prefetched:
            return
        cursor, name = self.connection.cursor(), self.new_table()

        def run() -> str:
            _execute(cursor, f"CREATE TABLE {name} AS {query}")
            return name

        self._prefetched[query] = cursor, self._background.submit(run)

    @contextlib.contextmanager
    def source(self, query: str) -> Iterator[str]:
        """Yields SQL for a query's rows: the query itself, or the table of its result if it was prefetched.

        Raises:
            TidemillError: See `create`.
        """
        table = self._result(query) if query in self._prefetched else None
        if table is None:
            yield f"({query})"
            return
        try:
            yield table
        finally:
            self.drop(table)

    def _result(self, query: str) -> str | None:
        """Returns the table of a prefetched query; None if its result did not fit into memory."""
        cursor, future = self._prefetched[query]
        try:
            return future.result()
        except duckdb.OutOfMemoryException:
            return None
        finally:
            # Not done if a signal ended the wait; then `close` stops the query.
            if future.done():
                del self._prefetched[query]
                cursor.close()

    def rows(self, query: str) -> list[tuple]:
        """Returns all rows of a small result."""
        with self._exclusive():
            return self.connection.execute(query).fetchall()

    def insert(self, table: str, data: pa.Table) -> None:
        """Appends rows to a table; columns match by position."""
        with self._exclusive():
            self.connection.from_arrow(data).insert_into(table)

    def stream(self, query: str, rows: int = STREAM_ROWS) -> Iterator[pa.RecordBatch]:
        """Yields a large result in order, in batches. Other statements may run in between."""
        with contextlib.closing(self.connection.cursor()) as cursor:
            self._streams.add(cursor)
            try:
                yield from cursor.sql(query).to_arrow_reader(rows)
            finally:
                self._streams.discard(cursor)

    def pin_file(self, path: Path) -> str:
        """Returns SQL for a Parquet file that stays readable while the folder exists, even if `path` is removed."""
        held = self._folder / f"{self.new_table()}.parquet"
        try:
            os.link(path, held)
        except OSError:
            # The folder is on another file system, or on one without links.
            shutil.copyfile(path, held)
        return parquet_sql([str(held)])

    def drop(self, table: str) -> None:
        """Drops a table. Does nothing after `close`."""
        self.drop_later(table)
        with self._exclusive():
            pass

    def drop_later(self, table: str) -> None:
        """Drops a table before the next statement. A finalizer needs this, as it may run while a result is being
        fetched."""
        self._to_drop.append(table)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._using:
            while self._to_drop:
                table = self._to_drop.popleft()
                with contextlib.suppress(duckdb.ConnectionException):
                    self.connection.execute(f"DROP TABLE IF EXISTS {table}")
            yield

    def register(self, buffer: Buffer) -> None:
        """Counts a buffer's memory towards the limit of `flush_buffers`."""
        self._buffers.append(buffer)

    def unregister(self, buffer: Buffer) -> None:
        """Stops counting a buffer's memory. Does nothing if it is not registered."""
        if buffer in self._buffers:
            self._buffers.remove(buffer)

    def flush_buffers(self) -> None:
        """Flushes the largest buffers until all together hold at most an eighth of `memory_bytes`."""
        while sum(buffer.held for buffer in self._buffers) > self._max_held:
            max(self._buffers, key=lambda buffer: buffer.held).flush()


def _execute(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    try:
        connection.execute(statement)
    except duckdb.InvalidInputException as error:
        if "not valid UTF8" not in str(error):
            raise
        want = "make the column binary, or fix the file"
        raise TidemillError(Code.UNREADABLE_FILE, "examples", first_line(error), want) from error
