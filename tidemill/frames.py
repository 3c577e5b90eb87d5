"""Conversions between data frames and Arrow tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from tidemill.errors import Code, TidemillError

Frame = Any
"""A `pa.Table`, a `pa.RecordBatch`, an iterable of record batches, or a data frame of pandas or Polars."""


def as_table(data: Frame, others: str = "") -> pa.Table:
    """Returns data in memory as an Arrow table. NaN in a pandas frame becomes null.

    Args:
        data: The data.
        others: What else the caller accepts, for the error. Defaults to nothing.

    Raises:
        TidemillError: `feature-type` for an object that is not a `Frame`, and for a pandas frame with values of several
            types in a column or with two columns of one name.
    """
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    package = type(data).__module__.partition(".")[0]
    if package == "pandas" and hasattr(data, "columns"):
        return _from_pandas(data)
    if package == "polars" and hasattr(data, "to_arrow") and hasattr(data, "columns"):
        return data.to_arrow()
    if isinstance(data, Iterable):
        batches = list(data)
        if batches and all(isinstance(batch, pa.RecordBatch) for batch in batches):
            return pa.Table.from_batches(batches)
    want = f"use {others}a pyarrow table or record batches, or a data frame of pandas or Polars"
    raise TidemillError(Code.FEATURE_TYPE, "data", f"a {type(data).__name__}", want)


def _from_pandas(frame: Any) -> pa.Table:
    names = list(frame.columns)
    if twice := next((name for name in names if names.count(name) > 1), None):
        got = f"{names.count(twice)} columns of the name {twice!r}"
        raise TidemillError(Code.FEATURE_TYPE, "data", got, "give each column a name of its own")
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        got = f"values of several types in a column ({' '.join(map(str, error.args))})"
        raise TidemillError(Code.FEATURE_TYPE, "data", got, "convert the column to one type") from error


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
