"""The transform as a TensorFlow function, for writing rows and for the serving model. Imports TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf

from tidemill.transform.raw import SENTINELS, RawColumn

_TF_DTYPES = {"int64": tf.int64, "float32": tf.float32, "string": tf.string}


def dense_spec(column: RawColumn, name: str | None = None) -> tf.TensorSpec:
    """The dense tensor of a raw column: `[batch]`, or `[batch, longest]` for lists."""
    return tf.TensorSpec([None, None] if column.is_list else [None], _TF_DTYPES[column.dtype], name)


class DenseFunction(tf.Module):
    """Raw columns as dense tensors to features. Can be traced in a tf.function and saved with tf.saved_model.save,
    which takes the vocabularies along.

    Args:
        transform_fn: The SavedModel's folder.
        columns: The raw columns that are given.
        outputs: The names of the graph's outputs to return, with `int32` for ids and `float32` for numbers.
        offsets: What is added to an output's ids so that they begin at 0.
    """

    def __init__(
        self,
        transform_fn: str | Path,
        columns: Sequence[RawColumn],
        outputs: Mapping[str, str],
        offsets: Mapping[str, int],
    ):
        super().__init__()
        self._loaded = tf.saved_model.load(str(transform_fn))
        self._columns = {column.name: column for column in columns}
        self._signature = self._loaded.transform_fn.structured_input_signature[0][0]
        self._outputs = dict(outputs)
        self._offsets = dict(offsets)

    def __call__(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Transforms rows.

        Args:
            inputs: By raw column a tensor of int64, float32 or string, `[batch]` or, for lists, `[batch, any]`, with
                sentinels for missing values.

        Returns:
            By feature a tensor `[batch]` of int32 ids or float32 numbers.
        """
        dense = {name: tf.convert_to_tensor(inputs[name], _TF_DTYPES[c.dtype]) for name, c in self._columns.items()}
        rows = tf.shape(next(iter(dense.values())), out_type=tf.int64)[0]
        sparse = {
            name: _sparse(dense[name], self._columns[name]) if name in dense else _no_values(spec.dtype, rows)
            for name, spec in self._signature.items()
        }
        transformed = self._loaded.transform_fn(sparse)
        return {name: self._flat(name, transformed[name], dtype) for name, dtype in self._outputs.items()}

    def concrete(self) -> tf.types.experimental.ConcreteFunction:
        """The function traced once for any number of rows."""
        signature = {name: dense_spec(column) for name, column in self._columns.items()}
        return tf.function(self.__call__, autograph=False).get_concrete_function(signature)

    def _flat(self, name: str, tensor: tf.Tensor, dtype: str) -> tf.Tensor:
        tensor = tf.reshape(tensor, [-1])
        if offset := self._offsets.get(name):
            tensor += tf.constant(offset, tensor.dtype)
        return tf.cast(tensor, dtype)


class ExampleFunction(tf.Module):
    """Serialized `tf.Example` protos to features.

    Args:
        dense: What is applied to the parsed columns.
        columns: The raw columns to parse. One that an example lacks, or has without a value, is missing.
    """

    def __init__(self, dense: DenseFunction, columns: Sequence[RawColumn]):
        super().__init__()
        self._dense = dense
        self._columns = {column.name: column for column in columns}

    def __call__(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Transforms `examples`, a string tensor `[batch]`, to what `DenseFunction` returns.

        Raises:
            tf.errors.InvalidArgumentError: a proto does not parse, or a feature that is no list has several values.
        """
        return self._dense(self.parse(examples))

    def parse(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """The raw columns of serialized examples as dense tensors with sentinels, see `dense_spec`."""
        specs = {name: tf.io.VarLenFeature(_TF_DTYPES[column.dtype]) for name, column in self._columns.items()}
        parsed = tf.io.parse_example(examples, specs)
        return {name: _parsed(parsed[name], column) for name, column in self._columns.items()}


def _parsed(column: tf.SparseTensor, raw: RawColumn) -> tf.Tensor:
    missing = tf.constant(SENTINELS[raw.dtype], _TF_DTYPES[raw.dtype])
    if raw.is_list:
        return tf.sparse.to_dense(column, default_value=missing)
    one = tf.debugging.assert_less_equal(
        column.dense_shape[1], tf.constant(1, tf.int64), f"{raw.name}: more than one value"
    )
    with tf.control_dependencies([one] if one is not None else []):
        shape = tf.stack([column.dense_shape[0], tf.constant(1, tf.int64)])
    at_most_one = tf.SparseTensor(column.indices, column.values, shape)
    return tf.squeeze(tf.sparse.to_dense(at_most_one, default_value=missing), axis=1)


def _sparse(values: tf.Tensor, column: RawColumn) -> tf.SparseTensor:
    is_number = column.dtype == "float32"
    is_there = tf.math.is_finite(values) if is_number else tf.not_equal(values, SENTINELS[column.dtype])
    if column.is_list:
        return tf.ragged.boolean_mask(values, is_there).to_sparse()
    where = tf.where(is_there)
    indices = tf.concat([where, tf.zeros_like(where)], axis=1)
    rows = tf.shape(values, out_type=tf.int64)[0]
    return tf.SparseTensor(indices, tf.gather(values, where[:, 0]), tf.stack([rows, tf.constant(1, tf.int64)]))


def _no_values(dtype: tf.DType, rows: tf.Tensor) -> tf.SparseTensor:
    empty = tf.constant([], dtype, shape=[0])
    return tf.SparseTensor(tf.zeros([0, 2], tf.int64), empty, tf.stack([rows, tf.constant(1, tf.int64)]))
