"""Any graph as record batches: outputs that are dense, sparse and ragged."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

from tests.transform.batch_rows import BatchRows
from tests.transform.local_engine import analyze_rows, transform_rows


def preprocessing_fn(inputs: dict[str, tf.SparseTensor]) -> dict[str, object]:
    words, x = inputs["words"], tf.ensure_shape(tf.sparse.to_dense(inputs["x"]), [None, 1])
    return {
        "words": tft.compute_and_apply_vocabulary(words),
        "lower": tf.SparseTensor(words.indices, tf.strings.lower(words.values), words.dense_shape),
        "pairs": tf.concat([x, x - tft.mean(x)], axis=1),
        "ragged": tf.RaggedTensor.from_sparse(words),
        "sum": tf.reduce_sum(x, axis=1),
    }


def test_all_kinds_of_outputs(tmp_path: Path):
    schema = pa.schema([("words", pa.large_list(pa.large_binary())), ("x", pa.large_list(pa.float32()))])
    batches = [
        pa.record_batch([[[b"B", b"a"], []], [[1.0], [3.0]]], schema=schema),
        pa.record_batch([[[b"B"]], [[5.0]]], schema=schema),
    ]
    representations = {
        name: schema_pb2.TensorRepresentation(
            varlen_sparse_tensor=schema_pb2.TensorRepresentation.VarLenSparseTensor(column_name=name)
        )
        for name in schema.names
    }
    rows = BatchRows(batches, TensorAdapterConfig(schema, representations))
    analyze_rows(preprocessing_fn, rows, tmp_path)
    found = [batch.to_pydict() for batch in transform_rows(tmp_path, rows)]
    assert [len(batch["sum"]) for batch in found] == [2, 1]
    assert [row for batch in found for row in batch["words"]] == [[0, 1], [], [0]]
    assert [row for batch in found for row in batch["lower"]] == [[b"b", b"a"], [], [b"b"]]
    assert [row for batch in found for row in batch["ragged"]] == [[b"B", b"a"], [], [b"B"]]
    assert [row for batch in found for row in batch["pairs"]] == [[1.0, -2.0], [3.0, 0.0], [5.0, 2.0]]
    assert [row for batch in found for row in batch["sum"]] == [[1.0], [3.0], [5.0]]
