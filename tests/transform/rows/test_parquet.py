"""Rows of Parquet files become the tensors that tfx_bsl makes."""

from decimal import Decimal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.tfxio.tensor_adapter import TensorAdapter, TensorAdapterConfig

from tidemill.errors import Code, TidemillError
from tidemill.transform.raw import RawColumn, list_schema, to_lists, typed
from tidemill.transform.rows.parquet_rows import ParquetRows

pytestmark = pytest.mark.tensorflow
INTS = st.none() | st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1, 0])
FLOATS = st.none() | st.floats(width=32) | st.sampled_from([float("nan"), float("inf"), -float("inf"), -0.0])
TEXTS = st.none() | st.text(max_size=4) | st.sampled_from(["", "\x00", "a\n", "é", "😀"])
COLUMNS = [
    RawColumn("i", "int64"),
    RawColumn("f", "float32"),
    RawColumn("s", "string"),
    RawColumn("il", "int64", True),
    RawColumn("fl", "float32", True),
    RawColumn("sl", "string", True),
]
TYPES = [pa.int64(), pa.float32(), pa.string(), pa.list_(pa.int64()), pa.list_(pa.float32()), pa.list_(pa.string())]


def lists(values):
    return st.none() | st.lists(values, max_size=4)


ROWS = st.lists(st.tuples(INTS, FLOATS, TEXTS, lists(INTS), lists(FLOATS), lists(TEXTS)), max_size=12)


def table(rows):
    return pa.table(
        [pa.array([row[k] for row in rows], type_) for k, type_ in enumerate(TYPES)], names=[c.name for c in COLUMNS]
    )


def varlen(columns):
    representations = {}
    for column in columns:
        sparse = schema_pb2.TensorRepresentation.VarLenSparseTensor(column_name=column.name)
        representations[column.name] = schema_pb2.TensorRepresentation(varlen_sparse_tensor=sparse)
    return TensorAdapterConfig(list_schema(columns), representations)


def assert_same(got, want):
    got, want = (tf.nest.flatten(value, expand_composites=True) for value in (got, want))
    assert [(g.dtype, g.shape) for g in got] == [(w.dtype, w.shape) for w in want]
    for g, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(g.numpy(), w.numpy())


def batches(rows, names):
    return [(b, rows.feed(b, names)) for file in rows.files for unit in file.units for b in unit.batches(names)]


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, group=st.integers(1, 5), batch_rows=st.integers(1, 4))
def test_tensors_are_those_of_tfx_bsl(tmp_path_factory, rows, group, batch_rows):
    path = tmp_path_factory.mktemp("rows") / "a.parquet"
    pq.write_table(table(rows), path, row_group_size=group)
    parquet = ParquetRows([path], COLUMNS, batch_rows=batch_rows)
    adapter = TensorAdapter(varlen(COLUMNS))
    assert dict(parquet.specs) == adapter.TypeSpecs()
    read = 0
    for batch, fed in batches(parquet, list(parquet.specs)):
        assert 0 < batch.num_rows <= batch_rows
        (given_rows,) = table(rows).slice(read, batch.num_rows).combine_chunks().to_batches()
        want = adapter.ToBatchTensors(to_lists(given_rows, COLUMNS))
        assert_same([fed[c.name] for c in COLUMNS], [want[c.name] for c in COLUMNS])
        read += batch.num_rows
    assert read == len(rows) == parquet.files[0].rows
    groups = [unit.rows for unit in parquet.files[0].units if unit.rows]
    assert groups == [len(rows[k : k + group]) for k in range(0, len(rows), group)]


def represented(kind, column, **rest):
    return schema_pb2.TensorRepresentation(**{kind: dict(column_name=column, **rest)})


REPRESENTATIONS = {
    "dense": (pa.array([1, 2, 3]), represented("dense_tensor", "x", shape={"dim": [{"size": 1}]})),
    "scalar": (pa.array([1.5, float("nan"), float("inf")]), represented("dense_tensor", "x", shape={})),
    "default": (
        pa.array(["a", None, "\x00"]),
        represented("dense_tensor", "x", shape={}, default_value={"bytes_value": b"?"}),
    ),
    "matrix": (
        pa.array([[1, 2], [3, 4], [5, 6]]),
        represented("dense_tensor", "x", shape={"dim": [{"size": 2}]}),
    ),
    "varlen": (pa.array([[1.0], None, [float("nan"), 2.0]]), represented("varlen_sparse_tensor", "x")),
    "ragged": (
        pa.array([["a", "b"], [], ["c"]]),
        schema_pb2.TensorRepresentation(
            ragged_tensor={"feature_path": {"step": ["x"]}, "row_partition_dtype": "INT64"}
        ),
    ),
}


@pytest.mark.parametrize("kind", REPRESENTATIONS)
@pytest.mark.parametrize("batch_rows", [2, 8])
def test_tensors_of_columns_with_a_representation_are_those_of_tfx_bsl(tmp_path, kind, batch_rows):
    array, representation = REPRESENTATIONS[kind]
    pq.write_table(pa.table({"x": array}), tmp_path / "a.parquet")
    value = array.type.value_type if pa.types.is_list(array.type) else array.type
    dtype = "string" if pa.types.is_string(value) else "int64" if pa.types.is_integer(value) else "float32"
    is_list = pa.types.is_list(array.type)
    column = RawColumn("x", dtype, is_list)
    rows = ParquetRows([tmp_path / "a.parquet"], [column], representations={"t": representation}, batch_rows=batch_rows)
    assert list(rows.specs) == ["t"] and rows.scan("t") is None and rows.scan("x") is None
    arrow = {"string": pa.large_binary(), "int64": pa.int64(), "float32": pa.float32()}[dtype]
    values = array.to_pylist()
    read = 0
    for batch, fed in batches(rows, ["t"]):
        part = values[read : read + batch.num_rows]
        listed = pa.array(part if is_list else [None if v is None else [v] for v in part], pa.large_list(arrow))
        adapter = TensorAdapter(TensorAdapterConfig(pa.schema([("x", listed.type)]), {"t": representation}))
        assert dict(rows.specs) == adapter.TypeSpecs()
        assert_same(fed["t"], adapter.ToBatchTensors(pa.record_batch({"x": listed}))["t"])
        read += batch.num_rows
    assert read == len(array)


def test_batches_without_columns_still_have_their_rows(tmp_path):
    pq.write_table(pa.table({"x": [1, 2, 3]}), tmp_path / "a.parquet", row_group_size=2)
    rows = ParquetRows([tmp_path / "a.parquet"], [RawColumn("x", "int64")])
    assert [batch.num_rows for batch, _ in batches(rows, [])] == [2, 1]


def test_reads_only_the_given_columns(tmp_path):
    pq.write_table(pa.table({"a.b": [1], "c": [2], "d": [3]}), tmp_path / "a.parquet")
    rows = ParquetRows([tmp_path / "a.parquet"], [RawColumn(name, "int64") for name in ("a.b", "c", "d")])
    ((batch, fed),) = batches(rows, ["d", "a.b"])
    assert sorted(batch.schema.names) == ["a.b", "d"] and list(fed) == ["d", "a.b"]


def test_rejects_a_file_that_lacks_a_column(tmp_path):
    pq.write_table(pa.table({"x": [1], "y": [2]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "b.parquet")
    rows = ParquetRows([tmp_path / "a.parquet", tmp_path / "b.parquet"], [RawColumn("y", "int64")])
    with pytest.raises(TidemillError) as raised:
        batches(rows, ["y"])
    assert raised.value.code is Code.MISSING_COLUMN


SCANNED = {
    "int": (pa.array([1, None, -(2**63), 2**63 - 1], pa.int64()), "int64"),
    "int8": (pa.array([1, None, -128], pa.int8()), "int64"),
    "bool": (pa.array([True, None, False]), "int64"),
    "int as float": (pa.array([2**24 + 1, None, 2**62 + 3], pa.int64()), "float32"),
    "float": (pa.array([1.5, None, float("nan"), float("inf"), -float("inf"), -0.0], pa.float32()), "float32"),
    "double": (pa.array([1e300, -1e300, 0.1, 1e-46, None], pa.float64()), "float32"),
    "decimal": (pa.array([None, 1, Decimal("12345678.25")], pa.decimal128(18, 4)), "float32"),
    "text": (pa.array(["", "\x00", "\x00a", None, "é", "a\n"]), "string"),
    "large text": (pa.array(["a", None, "\x00"], pa.large_string()), "string"),
    "dictionary": (pa.array(["a", None, "\x00", "a"]).dictionary_encode(), "string"),
    "bytes": (pa.array([b"\xff", b"\x00", None, b"\x00\x00"], pa.binary()), "string"),
    "nothing": (pa.array([None, None]), "string"),
}


@pytest.mark.parametrize("kind", SCANNED)
def test_duckdb_reads_the_values_that_tensorflow_gets(tmp_path, kind):
    array, dtype = SCANNED[kind]
    name = 'x "y" z'
    column = RawColumn(name, dtype)
    pq.write_table(pa.table({name: array}), tmp_path / "a.parquet")
    scan = ParquetRows([tmp_path / "a.parquet"], [column]).scan(name)
    got = duckdb.sql(f"SELECT {scan.sql} AS x FROM read_parquet('{scan.files[0]}')").to_arrow_table()["x"]
    want = typed(pa.record_batch({name: array}), column)
    assert (
        got.cast(want.type if not pa.types.is_dictionary(want.type) else pa.large_binary()).to_pylist()
        == want.to_pylist()
    )


def test_duckdb_reads_neither_lists_nor_floats_as_integers(tmp_path):
    pq.write_table(pa.table({"l": [[1]], "f": [1.0]}), tmp_path / "a.parquet")
    rows = ParquetRows([tmp_path / "a.parquet"], [RawColumn("l", "int64", True), RawColumn("f", "int64")])
    assert rows.scan("l") is None and rows.scan("f") is None
