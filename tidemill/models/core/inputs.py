"""Model inputs: how transformed rows are laid out as matrices of ids, numbers and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tidemill.artifacts.examples import Dataset


@dataclass(frozen=True)
class Layout:
    """How a transformed row is laid out for a model: its ids side by side, then its numbers, then its labels.

    Attributes:
        ids: Names of the id features.
        num_ids: For each id feature the number of its ids, which are 0 to `num_ids` - 1.
        numbers: Names of the number features.
        labels: Names of the labels. Defaults to none, for what only looks at features.
    """

    ids: tuple[str, ...]
    num_ids: tuple[int, ...]
    numbers: tuple[str, ...]
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, features: Sequence[dict], labels: Sequence[str]) -> Layout:
        """The layout of the features and labels in a transformed dataset's metadata, in their order."""
        ids = [f for f in features if f["kind"] == "id"]
        numbers = [f["name"] for f in features if f["kind"] == "number"]
        names, num_ids = tuple(f["name"] for f in ids), tuple(int(f["num_ids"]) for f in ids)
        return cls(names, num_ids, tuple(numbers), tuple(labels))

    @property
    def columns(self) -> list[str]:
        """All features: ids first."""
        return [*self.ids, *self.numbers]


@dataclass(frozen=True)
class Rows:
    """Transformed rows.

    Attributes:
        ids: [rows, number of id features] int32.
        numbers: [rows, number of number features] float32.
        labels: [rows, number of labels] float32, or [rows, 0] where labels were not asked for.
    """

    ids: np.ndarray
    numbers: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def empty(cls, rows: int, layout: Layout) -> Rows:
        """Room for rows."""
        return cls(
            np.empty((rows, len(layout.ids)), np.int32),
            np.empty((rows, len(layout.numbers)), np.float32),
            np.empty((rows, len(layout.labels)), np.float32),
        )

    def slice(self, start: int, stop: int) -> Rows:
        """A view of the rows from `start` to before `stop`."""
        return Rows(self.ids[start:stop], self.numbers[start:stop], self.labels[start:stop])

    def take(self, places: np.ndarray) -> Rows:
        """A copy of the rows in these places, in their order."""
        return Rows(*(np.take(part, places, axis=0) for part in (self.ids, self.numbers, self.labels)))


def concat(parts: Sequence[Rows]) -> Rows:
    """The parts one below the other."""
    if len(parts) == 1:
        return parts[0]
    return Rows(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("ids", "numbers", "labels")))


def to_rows(data: pa.Table | pa.RecordBatch, layout: Layout) -> Rows:
    """Arrow columns to matrices, without labels."""

    def fill(names: Sequence[str], dtype: type) -> np.ndarray:
        matrix = np.empty((data.num_rows, len(names)), dtype)
        for place, name in enumerate(names):
            matrix[:, place] = data.column(name).to_numpy(**to_numpy)
        return matrix

    to_numpy = {} if isinstance(data, pa.Table) else {"zero_copy_only": False}
    return Rows(fill(layout.ids, np.int32), fill(layout.numbers, np.float32), fill((), np.float32))


def in_order(dataset: Dataset, split: str, layout: Layout, batch_rows: int) -> Iterator[Rows]:
    """The split's rows in their order, in batches of at most `batch_rows`, without labels."""
    for batch in dataset.batches(split, layout.columns, batch_rows):
        yield to_rows(batch, layout)


def read_labels(dataset: Dataset, split: str, labels: Sequence[str]) -> np.ndarray:
    """A split's labels, [rows, labels] float32, in the rows' order."""
    table = dataset.read(split, list(labels))
    return np.stack([table.column(label).to_numpy().astype(np.float32) for label in labels], axis=1)
