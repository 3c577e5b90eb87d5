"""Model inputs: matrices of ids, numbers and labels, and the sizes of the tables that embed the ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tidemill.artifacts.examples import Dataset

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Layout:
    """The order of a model's inputs: ids, then numbers, then labels.

    Attributes:
        ids: Names of the id features.
        num_ids: The number of ids of each id feature. Ids are 0 to `num_ids` - 1.
        numbers: Names of the number features.
        labels: Names of the labels. Defaults to none.
    """

    ids: tuple[str, ...]
    num_ids: tuple[int, ...]
    numbers: tuple[str, ...]
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, features: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Layout:
        """Returns the layout of the features in a transformed dataset's metadata, in their order, and the labels."""
        ids = [f for f in features if f["kind"] == "id"]
        numbers = [f["name"] for f in features if f["kind"] == "number"]
        names, num_ids = tuple(f["name"] for f in ids), tuple(int(f["num_ids"]) for f in ids)
        return cls(names, num_ids, tuple(numbers), tuple(labels))

    @property
    def columns(self) -> list[str]:
        """All features, ids first."""
        return [*self.ids, *self.numbers]


@dataclass(frozen=True)
class TableSizes:
    """The sizes of the embedding tables, for each id feature in the layout's order.

    Attributes:
        dims: Size of a vector.
        rows: Number of rows of the feature's table. If it is smaller than the feature's number of ids, the last row
            belongs to all ids without a row of their own.
        tables: Index of the feature whose table is read: the feature itself, or an earlier one.
        floats: Floats of a row, including the weight of the id if the family has one for each id.
        slots: The row of each id, [number of ids] int32 for each feature. Empty if each id has a row of its own.
    """

    dims: tuple[int, ...]
    rows: tuple[int, ...]
    tables: tuple[int, ...]
    floats: tuple[int, ...]
    slots: tuple[np.ndarray, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of all tables."""
        own = (i for i, table in enumerate(self.tables) if i == table)
        return sum(self.floats[i] * self.rows[i] * FLOAT_BYTES for i in own)


@dataclass(frozen=True)
class Rows:
    """Transformed rows as matrices.

    Attributes:
        ids: [rows, id features] int32.
        numbers: [rows, number features] float32.
        labels: [rows, labels] float32, or [rows, 0] if labels were not read.
    """

    ids: np.ndarray
    numbers: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def empty(cls, rows: int, layout: Layout) -> Rows:
        """Allocates memory for rows without initializing it."""
        return cls(
            np.empty((rows, len(layout.ids)), np.int32),
            np.empty((rows, len(layout.numbers)), np.float32),
            np.empty((rows, len(layout.labels)), np.float32),
        )

    def slice(self, start: int, stop: int) -> Rows:
        """Returns a view of the rows from `start` up to, but not including, `stop`."""
        return Rows(self.ids[start:stop], self.numbers[start:stop], self.labels[start:stop])

    def take(self, indices: np.ndarray) -> Rows:
        """Returns a copy of the rows at these indices, in their order."""
        return Rows(*(np.take(matrix, indices, axis=0) for matrix in (self.ids, self.numbers, self.labels)))


def concat(pieces: Sequence[Rows]) -> Rows:
    """Concatenates rows."""
    if len(pieces) == 1:
        return pieces[0]
    return Rows(*(np.concatenate([getattr(p, name) for p in pieces]) for name in ("ids", "numbers", "labels")))


def to_rows(data: pa.Table | pa.RecordBatch, layout: Layout) -> Rows:
    """Converts Arrow columns to matrices, without labels."""

    def fill(names: Sequence[str], dtype: type) -> np.ndarray:
        matrix = np.empty((data.num_rows, len(names)), dtype)
        for i, name in enumerate(names):
            matrix[:, i] = data.column(name).to_numpy(**to_numpy)
        return matrix

    to_numpy: dict[str, bool] = {} if isinstance(data, pa.Table) else {"zero_copy_only": False}
    return Rows(fill(layout.ids, np.int32), fill(layout.numbers, np.float32), fill((), np.float32))


def batches_in_order(dataset: Dataset, split: str, layout: Layout, batch_rows: int) -> Iterator[Rows]:
    """Yields the split's rows in their order, without labels, in batches of at most `batch_rows`."""
    for batch in dataset.batches(split, layout.columns, batch_rows):
        yield to_rows(batch, layout)


def read_labels(dataset: Dataset, split: str, labels: Sequence[str]) -> np.ndarray:
    """Reads a split's labels, [rows, labels] float32, in the rows' order."""
    table = dataset.read(split, list(labels))
    return np.stack([table.column(label).to_numpy().astype(np.float32) for label in labels], axis=1)
