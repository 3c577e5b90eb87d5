"""The input of training: transformed examples, from Parquet row groups to shuffled batches of contiguous matrices.

Background threads decode row groups and collect batches before the training needs them.
"""

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
are being filled. Their memory is reused: allocating it costs more than writing to it."""
_PREFETCHED_BUFFERS = 2
_CHUNK_ROWS = 1 << 15
"""Maximum number of rows that a background thread takes from buffers at once, or one batch if that is larger."""
_PREFETCHED_CHUNKS = 2
_DECODE_THREADS = 2
"""Threads that decode row groups and draw the order of each full buffer."""
_BLOCK_ROWS = 1 << 12
"""Rows that are transposed from columns to rows at once, so that both fit the cache."""


@dataclass(frozen=True)
class _RowGroup:
    """A row group of one of the split's files."""

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
) -> Generator[Rows, None, None]:
    """Yields one epoch of a split in an order that depends only on the rows, `seed`, `epoch` and `buffer_rows`.

    The row groups of all shards are put in a random order and grouped to buffers of at least `buffer_rows` rows. Each
    buffer is shuffled as a whole. Batches cross the borders of buffers, so only the epoch's last batch may be smaller.

    Args:
        dataset: A transformed dataset.
        split: The split's name.
        layout: The features and labels to read.
        batch_size: Rows of a batch.
        seed: 0 or more.
        epoch: 0 or more.
        first_batch: Number of batches to skip. Skipped buffers are not decoded. Defaults to 0.
        negative_rate: Share of the rows without a label 1 to use, drawn by `seed` and `epoch`. Defaults to 1.
        buffer_rows: Minimum number of rows that are shuffled together.

    Yields:
        Batches with labels. Their memory is not reused.
    """
    rng = np.random.default_rng([seed, epoch])
    groups = _row_groups(dataset.files(split))
    buffers = _group_to_buffers([groups[i] for i in rng.permutation(len(groups))], buffer_rows)

    def draw_order(buffer: int, rows: Rows) -> np.ndarray:
        draw = np.random.default_rng([seed, epoch, buffer])
        order = draw.permutation(len(rows))
        if negative_rate < 1:
            order = order[rows.labels[order].any(axis=1) | (draw.random(len(order)) < negative_rate)]
        return order

    skip = first_batch * batch_size
    first_buffer = 0
    # With a negative rate, a buffer must be decoded to know how many of its rows are used.
    while negative_rate == 1 and first_buffer < len(buffers) and skip >= (count := _count_rows(buffers[first_buffer])):
        skip -= count
        first_buffer += 1
    # A chunk has several batches if they are small, because passing an object between threads has a cost.
    chunk_rows = batch_size * max(1, _CHUNK_ROWS // batch_size)
    chunks = _prefetched(_chunks(_filled(buffers, layout, draw_order, first_buffer), skip, chunk_rows))
    with contextlib.closing(chunks):
        for chunk in chunks:
            for start in range(0, len(chunk), batch_size):
                yield chunk.slice(start, start + batch_size)


class TimedBatches(Iterator[Rows]):
    """An iterator of batches that measures the time spent waiting for them.

    Attributes:
        seconds: The waiting time so far.
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


def _prefetched(chunks: Generator[Rows, None, None]) -> Generator[Rows, None, None]:
    """Yields chunks that a background thread computes in advance."""
    pool = ThreadPoolExecutor(1)
    upcoming = collections.deque(pool.submit(next, chunks, None) for _ in range(_PREFETCHED_CHUNKS))
    try:
        while (chunk := upcoming.popleft().result()) is not None:
            upcoming.append(pool.submit(next, chunks, None))
            yield chunk
    finally:
        pool.shutdown(cancel_futures=True)
        chunks.close()


def _chunks(
    buffers: Generator[tuple[Rows, np.ndarray], None, None], skip: int, chunk_rows: int
) -> Generator[Rows, None, None]:
    """Yields the rows of all buffers in their order, without the first `skip`, copied `chunk_rows` at a time."""
    pending: list[Rows] = []
    with contextlib.closing(buffers):
        for rows, order in buffers:
            start = min(skip, len(order))
            skip -= start
            while start < len(order):
                stop = min(start + chunk_rows - sum(map(len, pending)), len(order))
                pending.append(rows.take(order[start:stop]))
                start = stop
                if sum(map(len, pending)) == chunk_rows:
                    yield concat(pending)
                    pending = []
    if pending:
        yield concat(pending)


def _filled(
    buffers: Sequence[Sequence[_RowGroup]], layout: Layout, draw_order: Callable[[int, Rows], np.ndarray], first: int
) -> Generator[tuple[Rows, np.ndarray], None, None]:
    """Decodes buffers in advance, one row group per task.

    Args:
        buffers: The row groups of each buffer.
        layout: What to read.
        draw_order: Returns a buffer's order from its index and its rows.
        first: Index of the first buffer to decode.

    Yields:
        Rows in the order of the files, and the order to take them in. The next iteration overwrites the rows.
    """
    spare: list[Rows] = []
    upcoming: collections.deque[tuple[Rows, Future[tuple[Rows, np.ndarray]]]] = collections.deque()
    capacity = max((_count_rows(buffer) for buffer in buffers[first:]), default=0)
    pool = ThreadPoolExecutor(_DECODE_THREADS)

    def finish(buffer: int, rows: Rows, decodings: Sequence[Future[None]]) -> tuple[Rows, np.ndarray]:
        # This cannot deadlock: the pool runs tasks in order, so the decodings started before, and they do not wait.
        for decoding in decodings:
            decoding.result()
        return rows, draw_order(buffer, rows)

    def start_decoding(buffer: int) -> None:
        memory = spare.pop() if spare else Rows.empty(capacity, layout)
        start, decodings = 0, []
        for group in buffers[buffer]:
            decodings.append(pool.submit(_decode, group, layout, memory.slice(start, start + group.rows)))
            start += group.rows
        upcoming.append((memory, pool.submit(finish, buffer, memory.slice(0, start), decodings)))

    try:
        for buffer in range(first, min(first + _PREFETCHED_BUFFERS, len(buffers))):
            start_decoding(buffer)
        for buffer in range(first, len(buffers)):
            memory, filled = upcoming.popleft()
            if buffer + _PREFETCHED_BUFFERS < len(buffers):
                start_decoding(buffer + _PREFETCHED_BUFFERS)
            yield filled.result()
            spare.append(memory)
    finally:
        pool.shutdown(cancel_futures=True)


def _row_groups(files: Sequence[Path]) -> list[_RowGroup]:
    groups = []
    for path in files:
        metadata = pq.read_metadata(path)
        groups += [_RowGroup(path, metadata, i, metadata.row_group(i).num_rows) for i in range(metadata.num_row_groups)]
    return [group for group in groups if group.rows]


def _group_to_buffers(groups: Sequence[_RowGroup], buffer_rows: int) -> list[list[_RowGroup]]:
    buffers: list[list[_RowGroup]] = []
    rows = buffer_rows
    for group in groups:
        if rows >= buffer_rows:
            buffers.append([])
            rows = 0
        buffers[-1].append(group)
        rows += group.rows
    return buffers


def _count_rows(buffer: Sequence[_RowGroup]) -> int:
    return sum(group.rows for group in buffer)


def _decode(group: _RowGroup, layout: Layout, rows: Rows) -> None:
    """Reads a row group into `rows`."""
    with pq.ParquetFile(group.path, metadata=group.metadata) as file:
        table = file.read_row_group(group.index, columns=[*layout.columns, *layout.labels], use_threads=False)
    _fill(rows, table, layout)


def _fill(rows: Rows, table: pa.Table, layout: Layout) -> None:
    """Copies columns to rows block by block. A block stays in the cache while all its columns are copied."""
    for names, matrix in ((layout.ids, rows.ids), (layout.numbers, rows.numbers), (layout.labels, rows.labels)):
        columns = [table.column(name).to_numpy() for name in names]
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = matrix[start : start + _BLOCK_ROWS]
            for i, column in enumerate(columns):
                block[:, i] = column[start : start + _BLOCK_ROWS]
