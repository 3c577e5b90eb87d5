"""Sums of floats over all pieces of a token, added in row order: the same to the last bit for any number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.transform.analysis.counts import Pieces


def sums(pieces: Pieces, where: str = "true") -> Iterator[pa.Table]:
    """Sums a token's pieces: those of a file first, then the files.

    Args:
        pieces: Pieces whose order counts; flushed here.
        where: SQL of the pieces to take. Defaults to all.

    Yields:
        Tables with the columns `token`, `label` and `value`, ordered by token and label. A token's rows are all in one
        table.
    """
    pieces.flush()
    rest: pa.Table | None = None
    query = f"SELECT token, label, file, value FROM {pieces.table} WHERE {where} ORDER BY token, label, file, unit"
    for batch in pieces.store.stream(query):
        table = pa.Table.from_batches([batch])
        table = table if rest is None else pa.concat_tables([rest, table]).combine_chunks()
        last = int(np.flatnonzero(changes(table["token"]))[-1])
        rest = table.slice(last)
        if last:
            yield _summed(table.slice(0, last))
    if rest is not None:
        yield _summed(rest)


def changes(column: pa.ChunkedArray) -> np.ndarray:
    """Whether each value differs from the one before it; the first does."""
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
