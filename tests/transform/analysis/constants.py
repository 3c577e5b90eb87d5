"""Runs a function of analyzers on record batches, with Beam and with the local engine, and returns its constants."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

from tests.transform.batch_rows import BatchRows
from tests.transform.row_engine import analyze_rows

TYPES = {
    "row": pa.large_list(pa.int64()),
    "x": pa.large_list(pa.float32()),
    "pair": pa.large_list(pa.float32()),
    "weight": pa.large_list(pa.float32()),
    "key": pa.large_list(pa.large_binary()),
    "sparse": pa.large_list(pa.float32()),
    "number": pa.large_list(pa.int64()),
    "words": pa.large_list(pa.large_binary()),
    "ragged": pa.large_list(pa.float32()),
}
SCHEMA = pa.schema(list(TYPES.items()))


def _dense(column: str, *shape: int) -> schema_pb2.TensorRepresentation:
    dims = {"dim": [{"size": size} for size in shape]}
    return schema_pb2.TensorRepresentation(dense_tensor={"column_name": column, "shape": dims})


def _varlen(column: str) -> schema_pb2.TensorRepresentation:
    return schema_pb2.TensorRepresentation(varlen_sparse_tensor={"column_name": column})


CONFIG = TensorAdapterConfig(
    SCHEMA,
    {
        "row": _dense("row"),
        "x": _dense("x"),
        "pair": _dense("pair", 2),
        "weight": _dense("weight"),
        "key": _dense("key"),
        "sparse": _varlen("sparse"),
        "number": _varlen("number"),
        "words": _varlen("words"),
        "ragged": schema_pb2.TensorRepresentation(
            ragged_tensor={"feature_path": {"step": ["ragged"]}, "row_partition_dtype": "INT64"}
        ),
    },
)


def batch(rows: Sequence[dict]) -> pa.RecordBatch:
    """Converts rows of scalars and lists to a record batch as tfx_bsl expects it."""
    listed = [{k: v if v is None or isinstance(v, list) else [v] for k, v in row.items()} for row in rows]
    return pa.RecordBatch.from_pylist(listed, SCHEMA)


def beam_constants(function: Callable, batches: Sequence[pa.RecordBatch]) -> dict[str, np.ndarray]:
    """Returns the constants that Beam computes."""
    import apache_beam as beam
    import tensorflow_transform.beam as tft_beam

    with tempfile.TemporaryDirectory() as work:
        context = tft_beam.Context(temp_dir=work, use_deep_copy_optimization=True)
        with beam.Pipeline(runner="DirectRunner") as pipeline, context:
            rows = pipeline | beam.Create(list(batches), reshuffle=False)
            analyzed = (rows, CONFIG) | tft_beam.AnalyzeDataset(as_outputs(function))
            _ = analyzed | tft_beam.WriteTransformFn(work)
        return constants(Path(work))


def local_constants(
    function: Callable, batches: Sequence[pa.RecordBatch] | Sequence[Sequence[pa.RecordBatch]], **settings
) -> dict[str, np.ndarray]:
    """Returns the constants that the local engine computes.

    Args:
        function: Returns constants by name.
        batches: The rows of one file, or of several.
        settings: `keys` and `batch_rows` of `BatchRows`, and arguments of `analyze_rows`.
    """
    keys = settings.pop("keys", None)
    batch_rows = settings.pop("batch_rows", 8192)
    with tempfile.TemporaryDirectory() as work:
        rows = BatchRows(batches, CONFIG, batch_rows=batch_rows, keys=keys)
        analyze_rows(as_outputs(function), rows, Path(work), **settings)
        return constants(Path(work))


def as_outputs(function: Callable) -> Callable:
    """Returns a preprocessing_fn whose outputs are the constants of a function, repeated for each row."""

    def preprocessing_fn(inputs):
        rows = tf.shape(inputs["row"])[:1]
        outputs = {}
        for name, constant in function(inputs).items():
            constant = tf.convert_to_tensor(constant)
            if constant.dtype != tf.string:
                constant = tf.cast(constant, tf.float32 if constant.dtype.is_floating else tf.int64)
            tiled = tf.tile(tf.reshape(constant, [1, -1]), tf.concat([rows, [1]], 0))
            everywhere = tf.where(tf.ones_like(tiled, tf.bool))
            shape = tf.shape(tiled, tf.int64)
            outputs[name] = tf.SparseTensor(everywhere, tf.reshape(tiled, [-1]), tf.ensure_shape(shape, [2]))
        return outputs

    return preprocessing_fn


def constants(folder: Path) -> dict[str, np.ndarray]:
    """Returns the outputs of a written transform for one row."""
    loaded = tf.saved_model.load(str(folder / "transform_fn"))
    row = batch([{"row": 0, "x": 1.0, "pair": [1.0, 2.0], "weight": 1.0, "key": b"a", "sparse": [], "ragged": []}])
    inputs = BatchRows([row], CONFIG).feed(row, list(TYPES))
    return {name: value.values.numpy() for name, value in loaded.transform_fn(inputs).items()}
