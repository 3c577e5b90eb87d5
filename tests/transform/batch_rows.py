"""A row source of record batches in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

from tidemill import fingerprint
from tidemill.transform.rows.row_source import BATCH_ROWS, RowFile, Scan
from tidemill.transform.rows.tensors import Adapter


class BatchRows:
    """Rows in record batches as tfx_bsl has them: columns of lists, with any representation of tensors.

    Args:
        batches: The record batches, in row order; or a sequence of them for each of several files.
        config: How tfx_bsl converts them to tensors.
        batch_rows: Largest number of rows of a batch; larger ones are cut. Defaults to 8192.
        keys: Content key of each file. Defaults to None: no file has one.

    Attributes:
        specs, files, batch_rows, fingerprint: See `RowSource`.

    Raises:
        ValueError: tfx_bsl cannot make a tensor from its columns.
    """

    def __init__(
        self,
        batches: Sequence[pa.RecordBatch] | Sequence[Sequence[pa.RecordBatch]],
        config: TensorAdapterConfig,
        *,
        batch_rows: int = BATCH_ROWS,
        keys: Sequence[str | None] | None = None,
    ):
        self._adapter = Adapter(config.arrow_schema, config.tensor_representations)
        self.specs = self._adapter.specs
        self.batch_rows = batch_rows
        self.fingerprint = fingerprint.of_json(["batches", self._adapter.fingerprint, batch_rows])
        by_file = [batches] if all(isinstance(item, pa.RecordBatch) for item in batches) else batches
        files = []
        for index, (file, key) in enumerate(zip(by_file, keys or [None] * len(by_file), strict=True)):
            units = tuple(_Batch(batch, batch_rows) for batch in file)
            files.append(RowFile(index, key, units, sum(unit.rows for unit in units)))
        self.files: tuple[RowFile, ...] = tuple(files)

    def feed(self, batch: pa.RecordBatch, names: Sequence[str]) -> dict:
        """See `RowSource.feed`."""
        return self._adapter.feed(batch, names)

    def is_flat(self, name: str) -> bool:
        """Returns False: all columns are lists."""
        return False

    def typed(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        """Raises: no input is flat."""
        raise ValueError(f"not flat: {name!r}")

    def scan(self, name: str) -> Scan | None:
        """Returns None: DuckDB does not read record batches."""
        return None


@dataclass(frozen=True, eq=False)
class _Batch:
    """A record batch. One without rows is passed on, because TFT's results for it count on Beam, too."""

    batch: pa.RecordBatch
    batch_rows: int

    @property
    def rows(self) -> int:
        return self.batch.num_rows

    def batches(self, names: Sequence[str], batch_rows: int | None = None) -> Iterator[pa.RecordBatch]:
        """See `Unit.batches`."""
        size = batch_rows or self.batch_rows
        for start in range(0, max(self.rows, 1), size):
            yield self.batch.slice(start, size)
