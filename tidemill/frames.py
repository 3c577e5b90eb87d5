"""Conversions between data frames and Arrow tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from tidemill.errors import Code, TidemillError

Frame = Any
"""A `pa.Table`, a `pa.RecordBatch`, an iterable of record batches, or a data frame of pandas or Polars."""


def as_table(data: Frame) -> pa.Table:
    """Returns data in memory as an Arrow table. NaN in a pandas frame becomes null.

    Raises:
        TidemillError: `feature-type` for an object that is not a `Frame`.
    """
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    package = type(data).__module__.partition(".")[0]
    if package == "pandas" and hasattr(data, "columns"):
        return pa.Table.from_pandas(data, preserve_index=False)
    if package == "polars" and hasattr(data, "to_arrow") and hasattr(data, "columns"):
        return data.to_arrow()
    if isinstance(data, Iterable):
        batches = list(data)
        if batches and all(isinstance(batch, pa.RecordBatch) for batch in batches):
            return pa.Table.from_batches(batches)
    want = "use Parquet paths, a pyarrow table or record batches, or a data frame of pandas or Polars"
    raise TidemillError(Code.FEATURE_TYPE, "data", f"a {type(data).__name__}", want)


def as_frame_like(table: pa.Table, data: Frame) -> Frame:
    """Returns a table as the kind of frame that `data` is.

    Args:
        table: As many rows as `data`, in the same order.
        data: The frame that `as_table` converted.

    Returns:
        A pandas data frame with the index of `data`, a Polars data frame, or the table itself.
    """
    package = type(data).__module__.partition(".")[0]
    if package == "pandas":
        frame = table.to_pandas()
        frame.index = data.index
        return frame
    if package == "polars":
        import polars as pl

        return pl.from_arrow(table)
    return table
