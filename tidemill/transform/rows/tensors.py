"""Tensors from Arrow columns: tfx_bsl's representations, and sparse tensors without a Python object per value.

Imports TensorFlow.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.tfxio.tensor_adapter import TensorAdapter, TensorAdapterConfig

from tidemill import fingerprint


class Adapter:
    """An adapter that makes tensors from columns of lists, as representations describe.

    It runs tfx_bsl's TensorAdapter for the requested tensors only.

    Args:
        schema: The Arrow schema of the record batches; may have more columns.
        representations: By tensor, how it is made from the columns.

    Attributes:
        specs: By tensor, its `tf.TypeSpec`.
        schema: As given.
        fingerprint: Fingerprint of both arguments.

    Raises:
        ValueError: tfx_bsl cannot make a tensor from its columns.
    """

    def __init__(self, schema: pa.Schema, representations: Mapping[str, schema_pb2.TensorRepresentation]):
        self.schema = schema
        self._representations = dict(representations)
        self.specs = TensorAdapter(TensorAdapterConfig(schema, self._representations)).TypeSpecs()
        described = {name: r.SerializeToString(deterministic=True).hex() for name, r in representations.items()}
        self.fingerprint = fingerprint.of_json([str(schema.remove_metadata()), described])

    def columns(self, names: Sequence[str]) -> list[str]:
        """Returns the columns that some tensors are made from."""
        needed = dict.fromkeys(column for name in names for column in columns_of(self._representations[name]))
        return [name for name in self.schema.names if name in needed]

    def feed(self, batch: pa.RecordBatch, names: Sequence[str]) -> dict:
        """Returns some tensors of a record batch."""
        if not names:
            return {}
        schema, adapter = self._projected(tuple(names))
        return adapter.ToBatchTensors(_whole(batch.select(schema.names).cast(schema)), produce_eager_tensors=True)

    @functools.lru_cache(maxsize=32)  # noqa: B019 - an adapter lives as long as the analysis
    def _projected(self, names: tuple[str, ...]) -> tuple[pa.Schema, TensorAdapter]:
        schema = pa.schema([self.schema.field(name) for name in self.columns(names)])
        return schema, TensorAdapter(TensorAdapterConfig(schema, {name: self._representations[name] for name in names}))


def columns_of(representation: schema_pb2.TensorRepresentation) -> list[str]:
    """Returns the columns that a representation reads."""
    kind = representation.WhichOneof("kind")
    if kind == "sparse_tensor":
        sparse = representation.sparse_tensor
        return [*sparse.index_column_names, sparse.value_column_name]
    if kind == "ragged_tensor":
        ragged = representation.ragged_tensor
        lengths = [p.row_length for p in ragged.partition if p.WhichOneof("kind") == "row_length"]
        # A row length inside the values' struct is a field of the same column.
        path = ragged.feature_path.step
        return [path[0], *(lengths if len(path) == 1 else [])]
    return [getattr(representation, kind).column_name]


def _whole(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Returns a batch without slices, because tfx_bsl reads an array's buffers from their start."""
    if any(column.offset or _has_hidden(column) for column in batch.columns):
        return batch.take(pa.array(np.arange(batch.num_rows)))
    return batch


def _has_hidden(column: pa.Array) -> bool:
    """Returns whether a column of lists has values that no row shows, such as the first part of a longer column."""
    return hasattr(column, "flatten") and hasattr(column, "values") and len(column.values) != len(column.flatten())


TF_DTYPES = {"int64": tf.int64, "float32": tf.float32, "string": tf.string}


def sparse(array: pa.Array) -> tf.SparseTensor:
    """Returns a column of scalars as a sparse tensor, as TFX represents it: a row has one value, or none if it is null.

    Args:
        array: `[rows]` of int64, float32 or large_binary, from `raw.typed`.

    Returns:
        A sparse tensor `[rows, 1]`, or `[rows, 0]` if all rows are null.
    """
    return tf.SparseTensor(indices(array), values(array), shape(array))


def indices(array: pa.Array) -> tf.Tensor:
    """Returns the indices of `sparse(array)`: `[values, 2]` int64."""
    if array.null_count == 0:
        return _all_rows(len(array))
    where = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
    pairs = np.zeros((len(where), 2), np.int64)
    pairs[:, 0] = where
    return tf.constant(pairs)


def values(array: pa.Array) -> tf.Tensor:
    """Returns the values of `sparse(array)`: `[values]`."""
    return tensor(array.drop_null() if array.null_count else array)


def shape(array: pa.Array) -> tf.Tensor:
    """Returns the dense shape of `sparse(array)`: `[2]` int64."""
    return _shape(len(array), int(array.null_count < len(array)))


def dense(array: pa.Array, default: int | float | bytes, is_width_one: bool) -> tf.Tensor:
    """Returns the result of TensorFlow's SparseToDense for `sparse(array)`.

    Args:
        array: `[rows]`, as for `sparse`.
        default: The value in rows without a value.
        is_width_one: Whether the shape is `[rows, 1]` even if all rows are null. Otherwise it is `[rows, 0]` then.
    """
    if array.null_count and array.null_count == len(array) and not is_width_one:
        return tf.constant(_numpy(array.drop_null()), shape=[len(array), 0])
    filled = array.fill_null(pa.scalar(default, array.type)) if array.null_count else array
    return tf.constant(_numpy(filled)[:, np.newaxis])


def sparse_lists(array: pa.LargeListArray) -> tf.SparseTensor:
    """Returns a column of lists as a sparse tensor, as TFX represents it.

    Args:
        array: `[rows]` of lists without nulls, of int64, float32 or large_binary, from `raw.typed`.

    Returns:
        A sparse tensor `[rows, longest list]`.
    """
    lengths = np.diff(array.offsets.to_numpy())
    row = np.repeat(np.arange(len(array)), lengths)
    starts = np.cumsum(lengths) - lengths
    indices = np.stack([row, np.arange(len(row)) - starts[row]], axis=1)
    return tf.SparseTensor(
        tf.constant(indices), tensor(array.flatten()), _shape(len(array), int(lengths.max(initial=0)))
    )


def tensor(array: pa.Array) -> tf.Tensor:
    """Returns an array without nulls as a tensor of the same length."""
    return tf.constant(_numpy(array))


def _numpy(array: pa.Array) -> np.ndarray:
    return (array.dictionary_decode() if pa.types.is_dictionary(array.type) else array).to_numpy(zero_copy_only=False)


@functools.lru_cache(maxsize=64)
def _all_rows(rows: int) -> tf.Tensor:
    indices = np.zeros((rows, 2), np.int64)
    indices[:, 0] = np.arange(rows)
    return tf.constant(indices)


@functools.lru_cache(maxsize=64)
def _shape(rows: int, width: int) -> tf.Tensor:
    return tf.constant([rows, width], tf.int64)
