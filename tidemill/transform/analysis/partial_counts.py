"""Partial counts of tokens in DuckDB, and their sums in row order.

Sums of floats are added in row order, so that they are the same to the last bit for any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidemill.transform.analysis.count_store import STATE_FILE, STREAM_ROWS, CountStore

_COLUMNS = {
    "file": ("INTEGER", pa.int32()),
    "unit": ("INTEGER", pa.int32()),
    "label": ("INTEGER", pa.int32()),
}


class PartialCounts:
    """A table of partial counts (or weights) of tokens, by unit and file, before they are merged.

    The table has the columns `file`, `token` and `value`. If sums depend on the order, it also has `unit`, a number
    that grows in the order in which units are appended, and `label`.

    Args:
        store: The store of the table.
        token: SQL type of the tokens: BLOB or BIGINT.
        value: SQL type of the values: BIGINT or DOUBLE.
        ordered: Whether sums depend on the order, and have labels.

    Attributes:
        is_integer: Whether tokens are BIGINT.
        table: The table's name; created when it is first read. Call `flush` before reading the table.
        held: Bytes in memory that wait for `flush`.
    """

    def __init__(self, store: CountStore, token: str, value: str, *, ordered: bool):
        self.store, self.ordered, self.is_integer = store, ordered, token == "BIGINT"
        self.held = 0
        self._table: str | None = None
        self._waiting: list[pa.Table] = []
        self._units = 0
        token_type = pa.int64() if self.is_integer else pa.binary()
        value_type = pa.int64() if value == "BIGINT" else pa.float64()
        names = ["file", "unit", "token", "label", "value"] if ordered else ["file", "token", "value"]
        types = {**_COLUMNS, "token": (token, token_type), "value": (value, value_type)}
        self._schema = pa.schema([(name, types[name][1]) for name in names])
        self._columns = ", ".join(f"{name} {types[name][0]}" for name in names)
        store.register(self)

    @property
    def table(self) -> str:
        if self._table is None:
            self._table = self.store.new_table()
            self.store.execute(f"CREATE TABLE {self._table} ({self._columns})")
        return self._table

    def discard(self) -> None:
        """Drops the partial counts."""
        self.store.unregister(self)
        self._waiting, self.held = [], 0
        if self._table is not None:
            self.store.drop(self._table)

    def append(self, file: int, columns: dict[str, pa.Array | pa.ChunkedArray]) -> None:
        """Adds a unit's tokens.

        Args:
            file: Index of the unit's file.
            columns: `token`, `value`, and `label` if the partial counts are ordered.
        """
        rows = len(columns["token"])
        if not rows:
            return
        numbers = {"file": file, "unit": self._units}
        constant = {name: pa.repeat(pa.scalar(number, pa.int32()), rows) for name, number in numbers.items()}
        whole = constant | columns
        chunks = [_as_chunks(whole[field.name], field.type) for field in self._schema]
        table = pa.table(chunks, self._schema)
        self._units += 1
        self._waiting.append(table)
        self.held += table.nbytes
        self.store.flush_buffers()

    def flush(self) -> None:
        """Inserts waiting rows into DuckDB, which spills them if necessary."""
        if self._waiting:
            self.store.insert(self.table, pa.concat_tables(self._waiting))
        self._waiting, self.held = [], 0

    def dump(self, tables: Iterable[pa.Table], folder: Path) -> None:
        """Writes a file's partial counts.

        Args:
            tables: `token`, `value`, and `label` if the partial counts are ordered.
            folder: Where to write to.
        """
        schema = pa.schema([field for field in self._schema if field.name not in ("file", "unit")])
        with pq.ParquetWriter(folder / STATE_FILE, schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table.select(schema.names).cast(schema))

    def load(self, file: int, folder: Path) -> None:
        """Adds the partial counts of a file from what `dump` wrote."""
        with pq.ParquetFile(folder / STATE_FILE) as parquet:
            unit = self._units
            for batch in parquet.iter_batches(STREAM_ROWS):
                # All rows are one unit, because a file's tokens have been merged.
                self._units = unit
                self.append(file, dict(zip(batch.schema.names, batch.columns, strict=True)))
            self._units = unit + 1


def sums(partials: PartialCounts, where: str = "true") -> Iterator[pa.Table]:
    """Yields the sums of each token's partial counts, added within each file first and then over files.

    Args:
        partials: Ordered partial counts; flushed here.
        where: SQL condition of the rows to take. Defaults to all.

    Yields:
        Tables with the columns `token`, `label` and `value`, ordered by token and label. All rows of a token are in one
        table.
    """
    partials.flush()
    rest: pa.Table | None = None
    query = f"SELECT token, label, file, value FROM {partials.table} WHERE {where} ORDER BY token, label, file, unit"
    for batch in partials.store.stream(query):
        table = pa.Table.from_batches([batch])
        table = table if rest is None else pa.concat_tables([rest, table]).combine_chunks()
        last = int(np.flatnonzero(changes(table["token"]))[-1])
        rest = table.slice(last)
        if last:
            yield _summed(table.slice(0, last))
    if rest is not None:
        yield _summed(rest)


def changes(column: pa.ChunkedArray) -> np.ndarray:
    """Returns whether each value differs from the one before it. The first value does."""
    values = column.combine_chunks()
    changed = np.ones(len(values), bool)
    if len(values) > 1:
        changed[1:] = pc.not_equal(values[1:], values[:-1]).to_numpy(zero_copy_only=False)
    return changed


def _summed(table: pa.Table) -> pa.Table:
    is_group = changes(table["token"]) | changes(table["label"])
    files = np.flatnonzero(is_group | changes(table["file"]))
    groups = np.flatnonzero(is_group)
    by_file = np.add.reduceat(table["value"].to_numpy(), files)
    totals = np.add.reduceat(by_file, np.searchsorted(files, groups))
    return table.take(groups).select(["token", "label"]).append_column("value", pa.array(totals))


def _as_chunks(column: pa.Array | pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    chunks = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    return chunks if chunks.type == type_ else chunks.cast(type_)
