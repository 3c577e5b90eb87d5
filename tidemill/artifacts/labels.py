"""Rules for label columns: only 0 and 1, or false and true, no nulls, and both classes in the train split.

Ingest checks the rules in SQL, validate from statistics, and preprocess and train on the values. All of them raise the
errors of this module.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.errors import Code, TidemillError

_REMEDIES = {
    Code.LABEL_NULL: "leave out the rows without a label in the query",
    Code.LABEL_TYPE: "make it 0 and 1, or false and true, in the query",
    Code.LABEL_ONE_CLASS: "select rows of both classes, or choose another label",
}


def label_error(
    code: Code, label: str, got: str, *, split: str | None = None, details: dict | None = None
) -> TidemillError:
    """Returns the error for a label that breaks a rule.

    Args:
        code: `LABEL_NULL`, `LABEL_TYPE` or `LABEL_ONE_CLASS`.
        label: The label column's name.
        got: What is in the column.
        split: The split that breaks it. Defaults to all rows.
        details: Numbers that programs read. Defaults to none.
    """
    where = f"label {label!r}" + (f" in {split}" if split else "")
    want = _REMEDIES[code]
    if code is Code.LABEL_ONE_CLASS and split is not None:
        want = "select more rows of both classes, or split them with split.by: random or other split.fractions"
    return TidemillError(code, where, got, want, details)


def count_ones(label: str, values: pa.Array | np.ndarray, *, split: str | None = None) -> int:
    """Returns the number of ones among a batch of label values.

    Args:
        label: The label column's name, for errors.
        values: Booleans or numbers `[rows]`.
        split: The split of the rows, for errors.

    Raises:
        TidemillError: `label-null` for nulls and NaN, `label-type` for any value other than 0 and 1.
    """
    column = pa.array(values) if isinstance(values, np.ndarray) else values
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    nulls = column.null_count
    if pa.types.is_floating(column.type):
        nulls += pc.sum(pc.is_nan(column)).as_py() or 0
    if nulls:
        raise label_error(Code.LABEL_NULL, label, f"{nulls:,} nulls", split=split, details={"nulls": nulls})
    ones = pc.sum(pc.equal(column, 1)).as_py() or 0
    zeros = pc.sum(pc.equal(column, 0)).as_py() or 0
    if ones + zeros != len(column):
        other = next(value for value in column.unique().to_pylist() if value not in (0, 1))
        raise label_error(Code.LABEL_TYPE, label, f"the value {other:g}", split=split)
    return ones


def check_both_classes(label: str, ones: int, rows: int, *, split: str) -> None:
    """Checks that a split has rows of both classes.

    Args:
        label: The label column's name, for errors.
        ones: Number of rows with label 1.
        rows: Number of all rows.
        split: The split's name.

    Raises:
        TidemillError: `label-one-class`.
    """
    if ones in (0, rows):
        got = f"the single value {int(ones > 0)} in all {rows:,} rows"
        raise label_error(Code.LABEL_ONE_CLASS, label, got, split=split, details={"split": split, "rows": rows})
