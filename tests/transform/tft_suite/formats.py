"""Converts the rows of TFT's tests to the forms that the local engine reads: record batches and flat Parquet."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.coders import example_proto_coder
from tfx_bsl.coders import example_coder
from tfx_bsl.tfxio import tf_example_record
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

from tests.transform.batch_rows import BatchRows
from tidemill.transform.raw import SENTINELS, is_list, raw_columns
from tidemill.transform.rows.parquet_rows import ParquetRows

_MOST_BATCHES = 500


class Form(StrEnum):
    """The form of the rows: batches of one or two rows, or two flat Parquet files with small row groups."""

    BATCHES = "batches"
    PARQUET = "parquet"


class NotFlat(Exception):
    """The rows have columns that are neither scalars nor lists."""


def read(
    data: Sequence, metadata: tft.DatasetMetadata | TensorAdapterConfig, batch_rows: int = 2
) -> list[pa.RecordBatch]:
    """Converts the rows of a test to record batches of few rows, or of more rows if there are thousands.

    Args:
        data: Dicts by feature name, or record batches.
        metadata: The metadata of the rows.
        batch_rows: Number of rows of a batch.
    """
    if isinstance(metadata, TensorAdapterConfig):
        return [piece for batch in data for piece in _pieces(batch, batch_rows)]
    coder = example_proto_coder.ExampleProtoCoder(metadata.schema)
    decoder = example_coder.ExamplesToRecordBatchDecoder(metadata.schema.SerializeToString())
    rows = [coder.encode(row) for row in data]
    return list(_pieces(decoder.DecodeBatch(rows), batch_rows)) if rows else []


def adapter_config(metadata: tft.DatasetMetadata | TensorAdapterConfig) -> TensorAdapterConfig:
    """Returns how tfx_bsl converts the record batches of `read` to tensors."""
    if isinstance(metadata, TensorAdapterConfig):
        return metadata
    source = tf_example_record.TFExampleBeamRecord("inmem", schema=metadata.schema, telemetry_descriptors=["test"])
    return source.TensorAdapterConfig()


def open_rows(
    batches: list[pa.RecordBatch], config: TensorAdapterConfig, form: Form
) -> tuple[BatchRows | ParquetRows, list[str]]:
    """Converts batches to rows for the local engine, in two files.

    Batches and row groups have as many rows as the first batch.

    Returns:
        The rows, and the names of the inputs that are dense in the test but sparse in Tidemill: see `with_dense`.

    Raises:
        NotFlat: the form is Parquet and the columns are not flat.
    """
    if form is Form.BATCHES:
        return BatchRows([batches[0::2], batches[1::2]] if len(batches) > 1 else [batches], config), []
    folder = Path(tempfile.mkdtemp())
    table = pa.Table.from_batches(batches, config.arrow_schema)
    flat = pa.table({field.name: _flat(table[field.name].combine_chunks()) for field in table.schema})
    size = batches[0].num_rows if batches else 1
    half = (flat.num_rows + size) // (2 * size) * size
    paths = []
    for number, part in enumerate((flat.slice(0, half), flat.slice(half))):
        paths.append(folder / f"part-{number}.parquet")
        pq.write_table(part, paths[-1], row_group_size=size)
    all_representations = config.tensor_representations
    sparse = [name for name, representation in all_representations.items() if _is_plain(representation, flat)]
    dense = [name for name in sparse if all_representations[name].WhichOneof("kind") == "dense_tensor"]
    representations = {
        name: representation for name, representation in all_representations.items() if name not in sparse
    }
    return ParquetRows(paths, raw_columns(flat.schema), representations=representations), dense


def with_dense(preprocessing_fn: Callable, names: list[str]) -> Callable:
    """Returns a preprocessing_fn that converts some sparse inputs without missing values to `[batch]`."""

    def function(inputs: dict) -> dict:
        return preprocessing_fn({n: _dense(value) if n in names else value for n, value in inputs.items()})

    return function


def _dense(column: tf.SparseTensor) -> tf.Tensor:
    shape = tf.stack([column.dense_shape[0], tf.constant(1, tf.int64)])
    return tf.squeeze(tf.sparse.to_dense(tf.SparseTensor(column.indices, column.values, shape)), axis=1)


def _pieces(batch: pa.RecordBatch, batch_rows: int) -> list[pa.RecordBatch]:
    size = max(batch_rows, batch.num_rows // _MOST_BATCHES)
    starts = range(0, batch.num_rows, size)
    # `take`, because tfx_bsl does not accept slices for ragged tensors.
    return [batch.take(pa.array(np.arange(s, min(s + size, batch.num_rows)))) for s in starts]


def _is_plain(representation: schema_pb2.TensorRepresentation, flat: pa.Table) -> bool:
    """Returns whether a tensor can be computed from the sparse tensor of a scalar column."""
    kind = representation.WhichOneof("kind")
    tensor = getattr(representation, kind)
    if kind == "dense_tensor":
        is_scalar = not tensor.shape.dim and not tensor.HasField("default_value")
        return is_scalar and not _is_list(tensor, flat) and not flat[tensor.column_name].null_count
    return kind == "varlen_sparse_tensor" and not _is_list(tensor, flat)


def _is_list(tensor: schema_pb2.TensorRepresentation.DenseTensor, flat: pa.Table) -> bool:
    return is_list(flat.schema.field(tensor.column_name).type)


def _flat(column: pa.Array) -> pa.Array:
    """Converts lists to scalars if no row has two values and no value counts as missing in Tidemill."""
    if is_list(column.type.value_type):
        raise NotFlat(str(column.type))
    values = _text(column.flatten())
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    if lengths.max(initial=0) > 1 or values.null_count or _has_sentinel(values):
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
    where = np.where(lengths == 1, np.cumsum(lengths) - 1, -1)
    return values.take(pa.array(where, pa.int64(), mask=where < 0))


def _text(values: pa.Array) -> pa.Array:
    """Converts binary values to strings if they are UTF-8."""
    if not pa.types.is_large_binary(values.type) and not pa.types.is_binary(values.type):
        return values
    try:
        return values.cast(pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        return values.cast(pa.binary())


def _has_sentinel(values: pa.Array) -> bool:
    if pa.types.is_floating(values.type):
        return not pc.all(pc.is_finite(values), min_count=0).as_py()
    sentinel = SENTINELS["int64"] if pa.types.is_integer(values.type) else SENTINELS["string"]
    return sentinel in values.cast(pa.binary() if pa.types.is_string(values.type) else values.type).to_pylist()
