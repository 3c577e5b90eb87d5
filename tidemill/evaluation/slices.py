"""Slices: the rows of a split, grouped by the values of raw columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError

MISSING = "(missing)"
OTHER = "(other)"


@dataclass(frozen=True)
class Slice:
    """A slice: rows that share the values of some columns.

    Attributes:
        name: For example `origin=EWR, month=1`; `(other)` for the slice of all remaining rows.
        values: One text for each column, `(missing)` for null; None for the remaining rows.
        rows: Indices of the rows within the split, ascending, int64.
    """

    name: str
    values: tuple[str, ...] | None
    rows: np.ndarray


def slice_rows(examples: Dataset, split: str, slicings: Sequence[Sequence[str]], max_slices: int) -> list[list[Slice]]:
    """Returns the slices of a split for each slicing. Each row is in one slice of each slicing.

    Args:
        examples: The raw examples.
        split: The split's name.
        slicings: Lists of columns. Each combination of a list's values is a slice.
        max_slices: Maximum number of slices of one slicing: the largest are kept; ties by name. All remaining rows
            become one more slice, `(other)`.

    Raises:
        TidemillError: `missing-column`; `invalid-value` for a column that cannot be cast to text, such as lists.
    """
    names = list(dict.fromkeys(name for columns in slicings for name in columns))
    for name in names:
        if name not in examples.columns:
            got = f"{name!r}, not among the columns {', '.join(examples.columns)}"
            raise TidemillError(Code.MISSING_COLUMN, "evaluation.slices", got, "name columns that the query returns")
    codes = _encode(examples, split, names)
    return [_slices(columns, [codes[name] for name in columns], max_slices) for columns in slicings]


@dataclass(frozen=True)
class _EncodedColumn:
    """A column as ids [rows] int64 into its distinct texts."""

    ids: np.ndarray
    texts: list[str]


def _encode(examples: Dataset, split: str, names: list[str]) -> dict[str, _EncodedColumn]:
    ids: dict[str, list[np.ndarray]] = {name: [] for name in names}
    known: dict[str, dict[str, int]] = {name: {} for name in names}
    for batch in examples.batches(split, names):
        for name in names:
            values = _texts(name, batch.column(name)).dictionary_encode()
            mapping = known[name]
            local = [mapping.setdefault(text, len(mapping)) for text in values.dictionary.to_pylist()]
            ids[name].append(np.asarray(local, np.int64)[values.indices.to_numpy(zero_copy_only=False)])
    return {
        name: _EncodedColumn(np.concatenate([np.empty(0, np.int64), *ids[name]]), list(known[name])) for name in names
    }


def _texts(name: str, column: pa.Array) -> pa.Array:
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    try:
        return pc.fill_null(pc.cast(column, pa.large_string()), MISSING)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        got = f"column {name!r} of type {column.type}, whose values are not text"
        raise TidemillError(Code.INVALID_VALUE, "evaluation.slices", got, "slice by another column") from error


def _slices(columns: Sequence[str], encoded: list[_EncodedColumn], max_slices: int) -> list[Slice]:
    if not encoded or not len(encoded[0].ids):
        return []
    key, values = encoded[0].ids, [(text,) for text in encoded[0].texts]
    for column in encoded[1:]:
        width = len(column.texts)
        distinct, key = np.unique(key * width + column.ids, return_inverse=True)
        values = [(*values[k // width], column.texts[k % width]) for k in distinct.tolist()]
    counts = np.bincount(key, minlength=len(values))
    ranked = sorted(range(len(values)), key=lambda i: (-counts[i], values[i]))
    rank = np.empty(len(ranked), np.int64)
    rank[ranked] = np.minimum(np.arange(len(ranked)), max_slices)
    row_ranks = rank[key]
    order = np.argsort(row_ranks, kind="stable")
    bounds = np.searchsorted(row_ranks[order], np.arange(min(len(ranked), max_slices + 1) + 1))
    result = []
    for k in range(len(bounds) - 1):
        value = values[ranked[k]] if k < max_slices else None
        name = OTHER if value is None else ", ".join(f"{c}={v}" for c, v in zip(columns, value, strict=True))
        result.append(Slice(name, value, order[bounds[k] : bounds[k + 1]]))
    return result
