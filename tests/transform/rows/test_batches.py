"""Record batches in memory become the tensors that tfx_bsl makes."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.tfxio.tensor_adapter import TensorAdapter, TensorAdapterConfig

from tests.transform.batch_rows import BatchRows

pytestmark = pytest.mark.tensorflow
BATCH = pa.record_batch(
    {
        "i": pa.array([[0, 1], [2], []], pa.large_list(pa.int64())),
        "v": pa.array([[1.0, 2.0], [3.0], []], pa.large_list(pa.float32())),
        "s": pa.array([["a"], None, ["c", "d"]], pa.large_list(pa.large_binary())),
        "n": pa.array([[[1], [2, 3]], [], [[], [4]]], pa.large_list(pa.large_list(pa.int64()))),
    }
)
REPRESENTATIONS = {
    "sparse": schema_pb2.TensorRepresentation(
        sparse_tensor={"dense_shape": {"dim": [{"size": 9}]}, "index_column_names": ["i"], "value_column_name": "v"}
    ),
    "varlen": schema_pb2.TensorRepresentation(varlen_sparse_tensor={"column_name": "s"}),
    "ragged": schema_pb2.TensorRepresentation(
        ragged_tensor={"feature_path": {"step": ["n"]}, "row_partition_dtype": "INT64"}
    ),
}
CONFIG = TensorAdapterConfig(BATCH.schema, REPRESENTATIONS)


def fed(rows, names):
    return [rows.feed(b, names) for file in rows.files for unit in file.units for b in unit.batches(names)]


@pytest.mark.parametrize("batch_rows", [1, 2, 8])
def test_tensors_are_those_of_tfx_bsl(batch_rows):
    rows = BatchRows([BATCH, BATCH.slice(1, 2)], CONFIG, batch_rows=batch_rows)
    assert rows.specs == TensorAdapter(CONFIG).TypeSpecs()
    got = fed(rows, ["ragged", "varlen", "sparse"])
    python = [row for batch in (BATCH, BATCH.slice(1, 2)) for row in cut(batch.to_pylist(), batch_rows)]
    assert len(got) == len(python)
    for tensors, part in zip(got, python, strict=True):
        want = TensorAdapter(CONFIG).ToBatchTensors(pa.RecordBatch.from_pylist(part, BATCH.schema))
        assert set(tensors) == set(want)
        for name, tensor in tensors.items():
            for a, b in zip(*(tf.nest.flatten(t, expand_composites=True) for t in (tensor, want[name])), strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a.numpy(), b.numpy())


def cut(rows, size):
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def test_makes_only_the_given_tensors():
    rows = BatchRows([BATCH], CONFIG)
    assert [list(tensors) for tensors in fed(rows, ["varlen"])] == [["varlen"]]
    assert fed(rows, []) == [{}]
    assert rows.scan("varlen") is None


def test_files_without_batches_and_batches_without_rows():
    rows = BatchRows([[BATCH], [], [BATCH.slice(0, 0), BATCH]], CONFIG, keys=["a", "b", None])
    assert [(file.index, file.key, file.rows) for file in rows.files] == [(0, "a", 3), (1, "b", 0), (2, None, 3)]
    assert [int(tensors["varlen"].dense_shape[0]) for tensors in fed(rows, ["varlen"])] == [3, 0, 3]
