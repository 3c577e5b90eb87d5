"""The interface of row sources: files of units of rows, as record batches and as tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

BATCH_ROWS = 1 << 13
"""Rows of a batch. TFT reduces a batch in float32, which loses precision in larger batches."""


class Unit(Protocol):
    """A unit of rows that one thread reads in order: a row group, or a batch in memory.

    Attributes:
        rows: Number of rows.
    """

    @property
    def rows(self) -> int: ...

    def batches(self, names: Sequence[str], batch_rows: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yields the rows in order.

        Args:
            names: The inputs whose columns are read. If empty, the batches only have a length.
            batch_rows: Maximum rows of a batch. Defaults to that of the `RowSource`.
        """
        ...


@dataclass(frozen=True)
class RowFile:
    """One file of rows.

    Attributes:
        index: Position among the files, from 0.
        key: Identifies the file's content. None if unknown.
        units: In row order. Empty if the file has no row group.
        rows: Number of rows.
    """

    index: int
    key: str | None
    units: tuple[Unit, ...]
    rows: int


@dataclass(frozen=True)
class Scan:
    """A scan: how DuckDB reads a flat Parquet column as an input of the graph.

    Attributes:
        files: The Parquet files, by `RowFile.index`.
        column: The column's name.
        dtype: `int64`, `float32` or `string`.
        arrow_type: The column's type in the files.
        sql: An expression over the column of type BIGINT, FLOAT, VARCHAR or BLOB, which is NULL for missing values.
    """

    files: tuple[str, ...]
    column: str
    dtype: str
    arrow_type: pa.DataType
    sql: str


class RowSource(Protocol):
    """The rows of an analysis.

    Attributes:
        specs: The inputs of a preprocessing_fn by name, as `tf.TypeSpec`.
        files: In row order.
        batch_rows: Maximum rows of a batch that TFT reduces in float32.
        fingerprint: Identifies how a file's content becomes tensors. Two sources with the same fingerprint return the
            same tensors for a file with the same key.
    """

    @property
    def specs(self) -> Mapping[str, Any]: ...

    @property
    def files(self) -> Sequence[RowFile]: ...

    @property
    def batch_rows(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def feed(self, batch: pa.RecordBatch, names: Sequence[str]) -> dict[str, Any]:
        """Returns the named inputs, as the tensors that tfx_bsl's `TensorAdapter` makes from the batch.

        Raises:
            TidemillError: `missing-column` or `feature-type`.
        """
        ...

    def is_flat(self, name: str) -> bool:
        """Returns whether an input is a sparse tensor of at most one value per row, which `typed` returns."""
        ...

    def typed(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        """Returns a flat input as `[rows]` of int64, float32 or large_binary, null in rows without a value.

        Raises:
            TidemillError: `missing-column` or `feature-type`.
        """
        ...

    def scan(self, name: str) -> Scan | None:
        """Returns how DuckDB reads an input; None if it cannot (lists, batches in memory, columns with a
        representation)."""
        ...
