"""The data that the schemas of `schema_cases` describe."""

from __future__ import annotations

import datetime

import pyarrow as pa

PREVIOUS_ROWS = 40
"""Rows of the published model's train split."""


def tables() -> dict[str, pa.Table]:
    """Returns the splits. Each case reads the columns that it names."""
    png = b"\x89PNG\r\n\x1a\n"
    columns = {
        "label": pa.array([0, 1] * 4),
        "n": pa.array([1, 2, 3, 4, 5, 6, 7, 8], pa.int64()),
        "f": pa.array([0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5]),
        "s": pa.array(["a", "b"] * 4),
        "gap": pa.array(["a", None] * 4),
        "none": pa.array([None] * 8, pa.string()),
        "late": pa.array([None] * 4 + ["x"] * 4),
        "yes": pa.array(["yes", "no"] * 4),
        "digits": pa.array(["5", "17"] * 4),
        "decimals": pa.array(["0.5", "nan"] * 3 + ["inf", "1e3"]),
        "neg": pa.array([-1, 0, 1, 1] * 2, pa.int64()),
        "two": pa.array([0, 1, 2, 1] * 2, pa.int64()),
        "when": pa.array([datetime.datetime(2026, 1, day) for day in range(1, 9)]),
        "inf": pa.array([float("inf"), *map(float, range(7))]),
        "nan": pa.array([float("nan"), *map(float, range(7))]),
        "tags": pa.array([["a"], ["a", "b"], ["b", "c", "d"], ["a"]] * 2),
        "vec": pa.array([[1.0, 2.0, 3.0]] * 8),
        "nested": pa.array([[[1, 2], [3]], [[4]]] * 4, pa.list_(pa.list_(pa.int64()))),
        "struct": pa.array(
            [{"a": 1, "b": {"t": ["x", "y"]}}, {"a": 3, "b": {"t": []}}, {"a": None, "b": {"t": ["x"]}}, None] * 2
        ),
        "image": pa.array([png, b"no image"] * 4),
    }
    train = pa.table(columns)
    valid = train.slice(0, 4).set_column(train.column_names.index("s"), "s", pa.array(["a", "a", "a", None]))
    return {
        "train": train,
        "valid": valid.set_column(train.column_names.index("f"), "f", pa.array([50.0, 60.0, 70.0, 80.0])),
    }
