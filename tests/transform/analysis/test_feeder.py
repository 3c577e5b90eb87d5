"""The feeder of the graph: which parts of a column it feeds, and how many rows at a time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from tidemill.transform.analysis import nodes
from tidemill.transform.analysis.passes import Feeder
from tidemill.transform.raw import RawColumn
from tidemill.transform.rows.parquet_rows import ParquetRows
from tidemill.transform.tft.trace import Trace

pytestmark = pytest.mark.tensorflow
COLUMNS = [RawColumn("i", "int64"), RawColumn("f", "float32"), RawColumn("s", "string"), RawColumn("l", "int64", True)]


def filled(column, default, shape=None):
    shape = [column.dense_shape[0], 1] if shape is None else shape
    return tf.sparse.to_dense(tf.SparseTensor(column.indices, column.values, shape), default)


def preprocessing_fn(inputs):
    outputs = {
        "int": tf.squeeze(filled(inputs["i"], -1), 1),
        "float": filled(inputs["f"], 0.5),
        "text": filled(inputs["s"], "none"),
        "as it is": tf.sparse.to_dense(inputs["f"], 2.0),
        "values": tf.cast(inputs["i"].values, tf.float32)[:, tf.newaxis],
        "wide": filled(inputs["i"], 3, [inputs["i"].dense_shape[0], 2]),
        "list": filled(inputs["l"], 0, inputs["l"].dense_shape),
        "rows": tf.reshape(inputs["s"].dense_shape, [-1, 1]),
        "filtered": filled(tf.sparse.map_values(tf.add, inputs["i"], 1), 0),
        "unknown default": filled(inputs["f"], tf.reduce_sum(inputs["f"].values)),
    }
    return {name: tf.reshape(value, [-1, 1]) for name, value in outputs.items()}


PARTS = {
    "int": ["dense"],
    "float": ["dense"],
    "text": ["dense"],
    "as it is": ["dense"],
    "values": ["values"],
    "wide": ["values", "indices", "shape"],
    "list": [],
    "rows": ["shape"],
    "filtered": ["values", "indices", "shape"],
    "unknown default": ["values", "indices", "shape"],
}

TABLES = {
    "some": pa.table(
        {"i": [1, None, 3], "f": [None, 2.0, None], "s": ["a", None, "é"], "l": [[1, 2], None, []]},
        pa.schema([("i", pa.int64()), ("f", pa.float32()), ("s", pa.string()), ("l", pa.list_(pa.int64()))]),
    ),
}
TABLES["all"] = TABLES["some"].take([0]).set_column(1, "f", pa.array([1.0], pa.float32()))
TABLES["none"] = TABLES["some"].take([1, 1]).set_column(1, "f", pa.array([None, None], pa.float32()))


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", PARTS)
def test_parts_of_a_column_give_the_same_values_as_the_whole_column(name, table, tmp_path):
    pq.write_table(TABLES[table], tmp_path / "a.parquet")
    rows = ParquetRows([tmp_path / "a.parquet"], COLUMNS)
    trace = Trace(preprocessing_fn, rows.specs, tmp_path)
    feeder = Feeder(trace, rows, [trace.outputs[name]])
    assert sorted(
        part.make.func.__name__ if hasattr(part.make, "func") else part.make.__name__ for part in feeder._parts
    ) == sorted(PARTS[name])
    (batch,) = rows.files[0].units[0].batches(feeder.columns)
    whole = trace.function([trace.outputs[name]])
    (want,) = whole(rows.feed(batch, feeder.columns))
    (got,) = feeder(batch)
    assert got.dtype == want.numpy().dtype
    np.testing.assert_array_equal(got, want.numpy())


def plain(inputs):
    return tft.mean(tf.math.log1p(tf.abs(tf.squeeze(filled(inputs["f"], 0.0), 1))))


def products(inputs):
    x = filled(inputs["f"], 0.0)
    return tft.covariance(tf.concat([x, x], 1), tf.float32)[0, 0]


def by_column(inputs):
    return tft.mean(filled(inputs["f"], 0.0), reduce_instance_dims=False)[0]


def lists(inputs):
    return tft.mean(inputs["l"])


def keys(inputs):
    return tft.count_per_key(tf.squeeze(filled(inputs["s"], "none"), 1))[1][0]


@pytest.mark.parametrize(
    ("function", "times"),
    [(plain, 8), (products, 1), (by_column, 1), (lists, 1), (keys, 8)],
    ids=["plain", "products", "by_column", "lists", "keys"],
)
def test_batches_are_large_only_if_no_digits_are_lost(function, times, tmp_path):
    pq.write_table(TABLES["some"], tmp_path / "a.parquet")
    rows = ParquetRows([tmp_path / "a.parquet"], COLUMNS, batch_rows=100)

    def outputs(inputs):
        constant = tf.reshape(tf.cast(function(inputs), tf.float32), [1, 1])
        return {"x": tf.tile(constant, tf.stack([tf.cast(inputs["f"].dense_shape[0], tf.int32), 1]))}

    trace = Trace(outputs, rows.specs, tmp_path)
    operations = [operation for operation in nodes.operations(trace.sinks) if nodes.is_accumulate(operation)]
    tensors = [tensor for operation in operations for tensor in nodes.source_tensors(operation)]
    assert Feeder(trace, rows, tensors).batch_rows == 100 * times


def test_tensorflow_sums_a_large_vector_exactly_enough():
    """Batches may be large because TensorFlow adds the elements of a vector in a tree."""
    values = np.random.default_rng(0).lognormal(2, 2, 1 << 16).astype(np.float32)
    exact = values.astype(np.float64).sum()
    large = float(tf.reduce_sum(tf.constant(values)))
    assert abs(large - exact) / exact < 1e-6
