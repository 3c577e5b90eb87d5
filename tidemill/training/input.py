"""Reading transformed examples for training: Parquet row groups to contiguous matrices, shuffled and decoded ahead."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.artifacts.examples import Dataset
from tidemill.models.core.inputs import Layout, Rows, concat

BUFFER_ROWS = 1 << 19
"""Rows that are shuffled together. At most three buffers are in memory: one that batches are taken from, and two that
are being filled. Their memory is used again and again: to get it anew costs more than to write to it."""
_BUFFERS_AHEAD = 2
"""Buffers that are filled before they are asked for."""
_TAKEN_ROWS = 1 << 15
"""At most so many rows, or a batch if it is larger, are taken from buffers at a time, by a thread of their own."""
_TAKEN_AHEAD = 2
"""Times that rows are taken before they are asked for."""
_THREADS = 2
"""That decode row groups, and draw the order of each buffer once it is full."""
_BLOCK_ROWS = 1 << 12
"""Rows that are turned from columns to rows at a time, so that both lie in the cache."""


@dataclass(frozen=True)
class _RowGroup:
    path: Path
    metadata: pq.FileMetaData
    index: int
    rows: int


def shuffled(
    dataset: Dataset,
    split: str,
    layout: Layout,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    first_batch: int = 0,
    negative_rate: float = 1.0,
    buffer_rows: int = BUFFER_ROWS,
) -> Iterator[Rows]:
    """One epoch of the split in an order that is a pure function of the rows, `seed`, `epoch` and `buffer_rows`.

    The row groups of all shards are put in a random order and cut into buffers of at least `buffer_rows` rows; each
    buffer is shuffled as a whole. Batches run on over the ends of buffers, so that only the epoch's last one may be
    smaller.

    Args:
        dataset: A transformed dataset.
        split: The split's name.
        layout: The features and labels to read.
        batch_size: Rows of a batch.
        seed: 0 or more.
        epoch: 0 or more.
        first_batch: Batches to leave out at the start, without decoding the buffers before. Defaults to none.
        negative_rate: Share of the rows with no label 1 to take, drawn with `seed` and `epoch`. Defaults to all.
        buffer_rows: See above.

    Yields:
        Batches with labels, which are the caller's own: nothing is written to them later.
    """
    rng = np.random.default_rng([seed, epoch])
    groups = _row_groups(dataset.files(split))
    buffers = _cut([groups[i] for i in rng.permutation(len(groups))], buffer_rows)

    def order_of(place: int, rows: Rows) -> np.ndarray:
        draw = np.random.default_rng([seed, epoch, place])
        order = draw.permutation(len(rows))
        if negative_rate < 1:
            order = order[rows.labels[order].any(axis=1) | (draw.random(len(order)) < negative_rate)]
        return order

    skip = first_batch * batch_size
    place = 0
    # How many rows of a buffer are drawn is known when it is decoded.
    while negative_rate == 1 and place < len(buffers) and skip >= (left_out := _rows_of(buffers[place])):
        skip -= left_out
        place += 1
    # Whole batches, many at a time where they are small: to hand something from thread to thread has its price.
    size = batch_size * max(1, _TAKEN_ROWS // batch_size)
    taken = _ahead(_parts(_filled(buffers, layout, order_of, place), skip, size))
    with contextlib.closing(taken):
        for part in taken:
            for start in range(0, len(part), batch_size):
                yield part.slice(start, start + batch_size)


class Waited(Iterator[Rows]):
    """Passes batches on, and counts how long it was waited for them.

    Attributes:
        seconds: Of waiting, so far.
    """

    def __init__(self, batches: Iterator[Rows]):
        self._batches = batches
        self.seconds = 0.0

    def __next__(self) -> Rows:
        started = time.monotonic()
        try:
            return next(self._batches)
        finally:
            self.seconds += time.monotonic() - started


def _fill(rows: Rows, table: pa.Table, layout: Layout) -> None:
    """Writes columns to the rows of a row group, block by block. A block of rows lies in the cache while its columns,
    which are read one after the other, come to stand in it."""
    for names, matrix in ((layout.ids, rows.ids), (layout.numbers, rows.numbers), (layout.labels, rows.labels)):
        columns = [table.column(name).to_numpy() for name in names]
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = matrix[start : start + _BLOCK_ROWS]
            for place, column in enumerate(columns):
                block[:, place] = column[start : start + _BLOCK_ROWS]


def _ahead(parts: Generator[Rows, None, None]) -> Generator[Rows, None, None]:
    """Passes parts on that one thread makes before they are asked for."""
    pool = ThreadPoolExecutor(1)
    upcoming = collections.deque(pool.submit(next, parts, None) for _ in range(_TAKEN_AHEAD))
    try:
        while (part := upcoming.popleft().result()) is not None:
            upcoming.append(pool.submit(next, parts, None))
            yield part
    finally:
        pool.shutdown(cancel_futures=True)
        parts.close()


def _parts(
    buffers: Generator[tuple[Rows, np.ndarray], None, None], skip: int, size: int
) -> Generator[Rows, None, None]:
    """The rows of all buffers in their order, without the first `skip`, copied `size` at a time."""
    pending: list[Rows] = []
    with contextlib.closing(buffers):
        for rows, order in buffers:
            start = min(skip, len(order))
            skip -= start
            while start < len(order):
                stop = min(start + size - sum(map(len, pending)), len(order))
                pending.append(rows.take(order[start:stop]))
                start = stop
                if sum(map(len, pending)) == size:
                    yield concat(pending)
                    pending = []
    if pending:
        yield concat(pending)


def _filled(
    buffers: Sequence[Sequence[_RowGroup]], layout: Layout, order_of: Callable[[int, Rows], np.ndarray], first: int
) -> Generator[tuple[Rows, np.ndarray], None, None]:
    """Decodes buffers from the one in place `first` on, some ahead of what is being used, a row group a task.

    Args:
        buffers: The row groups of each.
        layout: What to read.
        order_of: Gives a buffer's order by its place and its rows as they were read.
        first: See above.

    Yields:
        Rows as they were read, which are overwritten once the next are asked for, and their order.
    """
    spare: list[Rows] = []
    upcoming: collections.deque[tuple[Rows, Future]] = collections.deque()
    room = max((_rows_of(buffer) for buffer in buffers[first:]), default=0)
    pool = ThreadPoolExecutor(_THREADS)

    def finish(place: int, rows: Rows, fills: Sequence[Future]) -> tuple[Rows, np.ndarray]:
        # The pool takes tasks in turn. These came before this one, and wait for none: so they end.
        for fill in fills:
            fill.result()
        return rows, order_of(place, rows)

    def begin(place: int) -> None:
        memory = spare.pop() if spare else Rows.empty(room, layout)
        start, fills = 0, []
        for group in buffers[place]:
            fills.append(pool.submit(_decode, group, layout, memory.slice(start, start + group.rows)))
            start += group.rows
        upcoming.append((memory, pool.submit(finish, place, memory.slice(0, start), fills)))

    try:
        for place in range(first, min(first + _BUFFERS_AHEAD, len(buffers))):
            begin(place)
        for place in range(first, len(buffers)):
            memory, whole = upcoming.popleft()
            if place + _BUFFERS_AHEAD < len(buffers):
                begin(place + _BUFFERS_AHEAD)
            yield whole.result()
            spare.append(memory)
    finally:
        pool.shutdown(cancel_futures=True)


def _row_groups(files: Sequence[Path]) -> list[_RowGroup]:
    groups = []
    for path in files:
        metadata = pq.read_metadata(path)
        groups += [_RowGroup(path, metadata, i, metadata.row_group(i).num_rows) for i in range(metadata.num_row_groups)]
    return [group for group in groups if group.rows]


def _cut(groups: Sequence[_RowGroup], buffer_rows: int) -> list[list[_RowGroup]]:
    buffers: list[list[_RowGroup]] = []
    rows = buffer_rows
    for group in groups:
        if rows >= buffer_rows:
            buffers.append([])
            rows = 0
        buffers[-1].append(group)
        rows += group.rows
    return buffers


def _rows_of(buffer: Sequence[_RowGroup]) -> int:
    return sum(group.rows for group in buffer)


def _decode(group: _RowGroup, layout: Layout, rows: Rows) -> None:
    """Reads a row group to where its rows belong."""
    with pq.ParquetFile(group.path, metadata=group.metadata) as file:
        table = file.read_row_group(group.index, columns=[*layout.columns, *layout.labels], use_threads=False)
    _fill(rows, table, layout)
