"""The transform graph as a TensorFlow function of dense tensors or serialized examples. Imports TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tidemill.transform.raw import SENTINELS, RawColumn

_TF_DTYPES = {"int64": tf.int64, "float32": tf.float32, "string": tf.string}


def dense_spec(column: RawColumn, name: str | None = None) -> tf.TensorSpec:
    """Returns the spec of a raw column's dense tensor: `[batch]`, or `[batch, longest]` for lists."""
    return tf.TensorSpec([None, None] if column.is_list else [None], _TF_DTYPES[column.dtype], name)


class DenseFunction(tf.Module):
    """A function from raw columns as dense tensors to features.

    It can be traced in a tf.function and saved with `tf.saved_model.save`, vocabularies included.

    Args:
        transform_fn: The SavedModel's folder.
        columns: The raw columns that callers pass.
        outputs: The graph's outputs to return, with their dtypes: `int32` for ids, `float32` for numbers.
        offsets: By output, the number that is added to its ids so that they start at 0.
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
            inputs: By raw column, a tensor of int64, float32 or string: `[batch]`, or `[batch, any]` for lists.
                Sentinels stand for missing values.

        Returns:
            By feature, a tensor `[batch]` of int32 ids or float32 numbers.
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
        """Returns the function traced once for any number of rows."""
        signature = {name: dense_spec(column) for name, column in self._columns.items()}
        return tf.function(self.__call__, autograph=False).get_concrete_function(signature)

    def _flat(self, name: str, tensor: tf.Tensor, dtype: str) -> tf.Tensor:
        tensor = tf.reshape(tensor, [-1])
        if offset := self._offsets.get(name):
            tensor += tf.constant(offset, tensor.dtype)
        return tf.cast(tensor, dtype)


class ExampleFunction(tf.Module):
    """A function from serialized `tf.Example` protos to features.

    Args:
        dense: The function that is applied to the parsed columns.
        columns: The raw columns to parse. A column is missing if an example lacks it or has it without a value.
    """

    def __init__(self, dense: DenseFunction, columns: Sequence[RawColumn]):
        super().__init__()
        self._dense = dense
        self._columns = {column.name: column for column in columns}

    def __call__(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Transforms `examples`, a string tensor `[batch]`, to the outputs of `DenseFunction`.

        Raises:
            tf.errors.InvalidArgumentError: A proto does not parse, or a feature that is not a list has several values.
        """
        return self._dense(self.parse(examples))

    def parse(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the raw columns of serialized examples as dense tensors with sentinels, see `dense_spec`."""
        specs = {name: tf.io.VarLenFeature(_TF_DTYPES[column.dtype]) for name, column in self._columns.items()}
        parsed: dict[str, Any] = tf.io.parse_example(examples, specs)
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
    is_present = tf.math.is_finite(values) if is_number else tf.not_equal(values, SENTINELS[column.dtype])
    if column.is_list:
        return tf.ragged.boolean_mask(values, is_present).to_sparse()
    where = tf.where(is_present)
    indices = tf.concat([where, tf.zeros_like(where)], axis=1)
    rows = tf.shape(values, out_type=tf.int64)[0]
    return tf.SparseTensor(indices, tf.gather(values, where[:, 0]), tf.stack([rows, tf.constant(1, tf.int64)]))


def _no_values(dtype: tf.DType, rows: tf.Tensor) -> tf.SparseTensor:
    empty = tf.constant([], dtype, shape=[0])
    return tf.SparseTensor(tf.zeros([0, 2], tf.int64), empty, tf.stack([rows, tf.constant(1, tf.int64)]))
