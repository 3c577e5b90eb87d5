"""Slices: the rows of a split by the values of raw columns."""

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
    """Rows that share the values of some columns.

    Attributes:
        name: For example `origin=EWR, month=1`; `(other)` for the rest.
        values: One text a column, `(missing)` for nulls; None for the rest.
        rows: Indices of the rows within the split, ascending, int64.
    """

    name: str
    values: tuple[str, ...] | None
    rows: np.ndarray


def slice_rows(examples: Dataset, split: str, slicings: Sequence[Sequence[str]], most: int) -> list[list[Slice]]:
    """The slices of a split.

    Args:
        examples: The raw examples.
        split: The split's name.
        slicings: Lists of columns; the values of a list's columns are combined.
        most: Most slices of a slicing, the largest first and equally large ones by name. The rest becomes one slice
            `(other)` at the end.

    Returns:
        For each slicing its slices, which together hold every row once.

    Raises:
        TidemillError: `missing-column`, or `invalid-value` for a column whose values have no text, such as lists.
    """
    wanted = list(dict.fromkeys(name for columns in slicings for name in columns))
    for name in wanted:
        if name not in examples.columns:
            got = f"{name!r}, not among the columns {', '.join(examples.columns)}"
            raise TidemillError(Code.MISSING_COLUMN, "evaluation.slices", got, "name columns that the query returns")
    codes = _codes(examples, split, wanted)
    return [_slices(columns, [codes[name] for name in columns], most) for columns in slicings]


@dataclass(frozen=True)
class _Coded:
    """A column as ids into its texts; [rows] int64."""

    ids: np.ndarray
    texts: list[str]


def _codes(examples: Dataset, split: str, names: list[str]) -> dict[str, _Coded]:
    ids: dict[str, list[np.ndarray]] = {name: [] for name in names}
    known: dict[str, dict[str, int]] = {name: {} for name in names}
    for batch in examples.batches(split, names):
        for name in names:
            values = _texts(name, batch.column(name)).dictionary_encode()
            mapping = known[name]
            local = [mapping.setdefault(text, len(mapping)) for text in values.dictionary.to_pylist()]
            ids[name].append(np.asarray(local, np.int64)[values.indices.to_numpy(zero_copy_only=False)])
    return {name: _Coded(np.concatenate([np.empty(0, np.int64), *ids[name]]), list(known[name])) for name in names}


def _texts(name: str, column: pa.Array) -> pa.Array:
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    try:
        return pc.fill_null(pc.cast(column, pa.large_string()), MISSING)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        got = f"column {name!r} of type {column.type}, whose values cannot be written as text"
        raise TidemillError(Code.INVALID_VALUE, "evaluation.slices", got, "slice by another column") from error


def _slices(columns: Sequence[str], coded: list[_Coded], most: int) -> list[Slice]:
    if not coded or not len(coded[0].ids):
        return []
    key, values = coded[0].ids, [(text,) for text in coded[0].texts]
    for column in coded[1:]:
        width = len(column.texts)
        distinct, key = np.unique(key * width + column.ids, return_inverse=True)
        values = [(*values[k // width], column.texts[k % width]) for k in distinct.tolist()]
    counts = np.bincount(key, minlength=len(values))
    ranked = sorted(range(len(values)), key=lambda i: (-counts[i], values[i]))
    rank = np.empty(len(ranked), np.int64)
    rank[ranked] = np.minimum(np.arange(len(ranked)), most)
    row_ranks = rank[key]
    order = np.argsort(row_ranks, kind="stable")
    bounds = np.searchsorted(row_ranks[order], np.arange(min(len(ranked), most + 1) + 1))
    result = []
    for k in range(len(bounds) - 1):
        value = values[ranked[k]] if k < most else None
        name = OTHER if value is None else ", ".join(f"{c}={v}" for c, v in zip(columns, value, strict=True))
        result.append(Slice(name, value, order[bounds[k] : bounds[k + 1]]))
    return result
