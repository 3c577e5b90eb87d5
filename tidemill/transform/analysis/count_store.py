"""Where vocabularies are counted: an in-memory DuckDB with bounded memory, which spills to a folder.

Nothing here imports TensorFlow.
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

from tidemill.duckdb_session import first_line, literal
from tidemill.errors import Code, TidemillError

STREAM_ROWS = 1 << 16
_HELD_SHARE = 8
STATE_FILE = "counts.parquet"


class Buffer(Protocol):
    """Rows in memory that can be handed to DuckDB.

    Attributes:
        held: Bytes in memory.
    """

    held: int

    def flush(self) -> None:
        """Inserts the rows into DuckDB."""


class CountStore:
    """A DuckDB connection for one analysis; closed by `close` or as a context manager.

    Statements, streams and inserts may come from two threads at a time. Queries of `begin` are run by a thread of its
    own, one after the other.

    Args:
        folder: An existing folder, below which it spills.
        memory_bytes: What DuckDB may hold in memory.
        threads: DuckDB's threads.
        per_file: Whether reductions have to keep the files apart, so that each can be dumped. Defaults to no.

    Attributes:
        connection: DuckDB's.
        threads: As given.
        per_file: As given.
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
        """Held by what uses the connection itself. A stream has a cursor."""
        self._left: collections.deque[str] = collections.deque()
        """Tables to be dropped by the next statement."""
        self._streams: set[duckdb.DuckDBPyConnection] = set()
        self._most_held = memory_bytes // _HELD_SHARE
        self._buffers: list[Buffer] = []
        self._begun: dict[str, tuple[duckdb.DuckDBPyConnection, Future[str]]] = {}
        self._background = ThreadPoolExecutor(1, thread_name_prefix="tidemill-counts")

    def __enter__(self) -> CountStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drops everything. No table may be used afterwards."""
        self._buffers.clear()
        self._background.shutdown(wait=False, cancel_futures=True)
        # An interruption that comes before the query has started is lost.
        while running := [begun for _, begun in self._begun.values() if not begun.done()]:
            self.interrupt()
            wait(running, timeout=0.05)
        self._begun.clear()
        self._background.shutdown()
        self.connection.close()

    def interrupt(self) -> None:
        """Ends the queries that run now, whoever runs them, with an error. One that has not started yet goes on."""
        for connection in [self.connection, *self._streams, *(cursor for cursor, _ in list(self._begun.values()))]:
            # Who ran it may close it at the same time.
            with contextlib.suppress(duckdb.ConnectionException):
                connection.interrupt()

    def new_table(self) -> str:
        """A name that no table has."""
        return f"t{next(self._tables)}"

    def create(self, query: str) -> str:
        """Makes a table of a query's result.

        Returns:
            The table's name. It lives until `drop`.

        Raises:
            TidemillError: `unreadable-file` for a Parquet column of text that is no UTF-8.
        """
        name, _ = self.create_counted(query)
        return name

    def create_counted(self, query: str) -> tuple[str, int]:
        """As `create`; the number of the table's rows too."""
        name = self.new_table()
        with self._exclusive():
            _execute(self.connection, f"CREATE TABLE {name} AS {query}")
            ((rows,),) = self.connection.fetchall()
        return name, rows

    def execute(self, statement: str) -> None:
        """Runs a statement without a result.

        Raises:
            TidemillError: As `create`.
        """
        with self._exclusive():
            _execute(self.connection, statement)

    @property
    def has_prefetched(self) -> bool:
        """Whether a query was begun whose rows nobody has asked for yet."""
        return bool(self._begun)

    def prefetch(self, query: str) -> None:
        """Starts to run a query whose rows `source` will be asked for. Does nothing where it was begun before."""
        if query in self._begun:
            return
        cursor, name = self.connection.cursor(), self.new_table()

        def run() -> str:
            _execute(cursor, f"CREATE TABLE {name} AS {query}")
            return name

        self._begun[query] = cursor, self._background.submit(run)

    @contextlib.contextmanager
    def source(self, query: str) -> Iterator[str]:
        """What stands for a query's rows in another query: the query, or what came of it where it was begun.

        Raises:
            TidemillError: As `create`.
        """
        table = self._result(query) if query in self._begun else None
        if table is None:
            yield f"({query})"
            return
        try:
            yield table
        finally:
            self.drop(table)

    def _result(self, query: str) -> str | None:
        """The table of a query that was begun; None where it did not fit into memory beside the others."""
        cursor, begun = self._begun[query]
        try:
            return begun.result()
        except duckdb.OutOfMemoryException:
            return None
        finally:
            # It is not, where a signal ends the waiting: then `close` stops it.
            if begun.done():
                del self._begun[query]
                cursor.close()

    def rows(self, query: str) -> list[tuple]:
        """All rows of a small result."""
        with self._exclusive():
            return self.connection.execute(query).fetchall()

    def insert(self, table: str, data: pa.Table) -> None:
        """Appends rows to a table, columns by position."""
        with self._exclusive():
            self.connection.from_arrow(data).insert_into(table)

    def stream(self, query: str, rows: int = STREAM_ROWS) -> Iterator[pa.RecordBatch]:
        """A large result in order, in batches. Other statements may run in between."""
        with contextlib.closing(self.connection.cursor()) as cursor:
            self._streams.add(cursor)
            try:
                yield from cursor.sql(query).to_arrow_reader(rows)
            finally:
                self._streams.discard(cursor)

    def pin_file(self, path: Path) -> str:
        """What queries call a Parquet file that must stay readable as long as the folder is there, even if `path` is
        removed."""
        held = self._folder / f"{self.new_table()}.parquet"
        try:
            os.link(path, held)
        except OSError:
            # Another file system, or one without links.
            shutil.copyfile(path, held)
        return f"read_parquet({literal(str(held))})"

    def drop(self, table: str) -> None:
        """Drops a table. Does nothing after `close`."""
        self.drop_later(table)
        with self._exclusive():
            pass

    def drop_later(self, table: str) -> None:
        """Drops a table when the next statement is run: a finalizer may come while a result is being fetched."""
        self._left.append(table)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._using:
            while self._left:
                table = self._left.popleft()
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
        while sum(buffer.held for buffer in self._buffers) > self._most_held:
            max(self._buffers, key=lambda buffer: buffer.held).flush()


def _execute(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    try:
        connection.execute(statement)
    except duckdb.InvalidInputException as error:
        if "not valid UTF8" not in str(error):
            raise
        want = "make the column binary, or mend the file"
        raise TidemillError(Code.UNREADABLE_FILE, "examples", first_line(error), want) from error
