"""Raw columns: dtypes, sentinels, and the dense and the list form of a record batch."""

from __future__ import annotations

import math
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.errors import Code, TidemillError
from tidemill.transform.raw import SENTINELS, RawColumn, raw_columns, raw_dtype, to_dense, to_lists

MIN = -(2**63)


@pytest.mark.parametrize(
    ("type_", "dtype"),
    [
        (pa.bool_(), "int64"),
        (pa.int8(), "int64"),
        (pa.uint32(), "int64"),
        (pa.float16(), "float32"),
        (pa.float64(), "float32"),
        (pa.decimal128(9, 2), "float32"),
        (pa.string(), "string"),
        (pa.large_string(), "string"),
        (pa.string_view(), "string"),
        (pa.binary(), "string"),
        (pa.null(), "string"),
        (pa.dictionary(pa.int32(), pa.string()), "string"),
        (pa.dictionary(pa.int8(), pa.int64()), "int64"),
        (pa.timestamp("us"), None),
        (pa.date32(), None),
        (pa.list_(pa.int64()), None),
        (pa.struct([("a", pa.int64())]), None),
    ],
)
def test_dtype_of_each_arrow_type(type_: pa.DataType, dtype: str | None):
    assert raw_dtype(type_) == dtype


@pytest.mark.parametrize(
    ("array", "dtype", "dense", "lists"),
    [
        (pa.array([1, None, 2**63 - 1, MIN]), "int64", [1, MIN, 2**63 - 1, MIN], [[1], [], [2**63 - 1], []]),
        (pa.array([True, None, False]), "int64", [1, MIN, 0], [[1], [], [0]]),
        (pa.array([3.0, None, -4.0]), "int64", [3, MIN, -4], [[3], [], [-4]]),
        (pa.array([1.5, None, math.nan, math.inf, 1e300]), "float32", [1.5, *[math.nan] * 4], [[1.5], [], [], [], []]),
        (pa.array([1, None], pa.int32()), "float32", [1.0, math.nan], [[1.0], []]),
        (pa.array([Decimal("1.50"), None]), "float32", [1.5, math.nan], [[1.5], []]),
        (
            pa.array(["é", None, "", "\x00"]),
            "string",
            ["é".encode(), b"\x00", b"", b"\x00"],
            [["é".encode()], [], [b""], []],
        ),
        (pa.array([b"\xff", None]), "string", [b"\xff", b"\x00"], [[b"\xff"], []]),
        (
            pa.array(["a", None, "b", "a"]).dictionary_encode(),
            "string",
            [b"a", b"\x00", b"b", b"a"],
            [[b"a"], [], [b"b"], [b"a"]],
        ),
        (pa.array(["\x00", None, "b"]).dictionary_encode(), "string", [b"\x00", b"\x00", b"b"], [[], [], [b"b"]]),
        (pa.nulls(2), "int64", [MIN, MIN], [[], []]),
        (pa.nulls(2), "float32", [math.nan, math.nan], [[], []]),
        (pa.nulls(2), "string", [b"\x00", b"\x00"], [[], []]),
    ],
)
def test_converts_values_to_dense_and_lists(array: pa.Array, dtype: str, dense: list, lists: list):
    batch, columns = pa.record_batch({"x": array}), [RawColumn("x", dtype)]
    result = to_dense(batch, columns)["x"]
    assert result.dtype == (object if dtype == "string" else np.dtype(dtype))
    np.testing.assert_array_equal(result, np.array(dense, result.dtype))
    assert to_lists(batch, columns)["x"].to_pylist() == lists
    assert len(to_dense(batch.slice(0, 0), columns)["x"]) == 0
    assert len(to_lists(batch.slice(0, 0), columns)) == 0
    np.testing.assert_array_equal(to_dense(batch.slice(1), columns)["x"], result[1:])
    assert to_lists(batch.slice(1), columns)["x"].to_pylist() == lists[1:]


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (pa.array(["1"]), "int64"),
        (pa.array(["1"]), "float32"),
        (pa.array([1]), "string"),
        (pa.array([1.5]), "int64"),
        (pa.array([2**64 - 1], pa.uint64()), "int64"),
        (pa.array([0], pa.timestamp("s")), "float32"),
        (pa.array([["a"]]), "string"),
    ],
)
def test_rejects_columns_of_another_type(array: pa.Array, dtype: str):
    with pytest.raises(TidemillError, match="x") as caught:
        to_dense(pa.record_batch({"x": array}), [RawColumn("x", dtype)])
    assert caught.value.code is Code.FEATURE_TYPE


def test_rejects_missing_columns():
    batch = pa.record_batch({"x": pa.array([1])})
    for call in (lambda: to_dense(batch, [RawColumn("z", "int64")]), lambda: raw_columns(batch.schema, ["z"])):
        with pytest.raises(TidemillError) as caught:
            call()
        assert caught.value.code is Code.MISSING_COLUMN


def test_raw_columns_of_a_schema():
    schema = pa.schema([("a", pa.int8()), ("when", pa.timestamp("us")), ("b", pa.string())])
    assert raw_columns(schema) == [RawColumn("a", "int64"), RawColumn("b", "string")]
    assert raw_columns(schema, exclude=["a"]) == [RawColumn("b", "string")]
    assert raw_columns(schema, ["b", "a"]) == [RawColumn("b", "string"), RawColumn("a", "int64")]
    with pytest.raises(TidemillError) as caught:
        raw_columns(schema, ["when"])
    assert caught.value.code is Code.FEATURE_TYPE


@given(
    st.lists(st.none() | st.integers(MIN, 2**63 - 1)),
    st.lists(st.none() | st.floats(width=32)),
    st.lists(st.none() | st.text()),
)
def test_dense_and_lists_agree(integers: list, floats: list, texts: list):
    values = {"int64": (integers, pa.int64()), "float32": (floats, pa.float32()), "string": (texts, pa.string())}
    for dtype, (items, type_) in values.items():
        batch, columns = pa.record_batch({"x": pa.array(items, type_)}), [RawColumn("x", dtype)]
        lists = to_lists(batch, columns)["x"].to_pylist()
        rebuilt = [item[0] if item else SENTINELS[dtype] for item in lists]
        np.testing.assert_array_equal(
            to_dense(batch, columns)["x"], np.array(rebuilt, object if dtype == "string" else dtype)
        )


@pytest.mark.process
def test_importing_raw_columns_does_not_import_tensorflow():
    code = "import sys, tidemill.transform.raw, tidemill.transform.graph; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
