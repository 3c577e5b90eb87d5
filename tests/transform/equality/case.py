"""A preprocessing_fn that both engines run, and what its outputs are held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import tensorflow as tf

Inputs = Mapping[str, tf.Tensor | tf.SparseTensor | tf.RaggedTensor]
Function = Callable[[dict], dict]


@dataclass(frozen=True)
class Quantiles:
    """An output that is quantile boundaries, repeated for each row.

    Attributes:
        values: From the rows the values, float64, and their weights or None.
        buckets: Number of buckets.
        epsilon: The rank error that was asked for.
    """

    values: Callable[[pa.Table], tuple[np.ndarray, np.ndarray | None]]
    buckets: int
    epsilon: float


@dataclass(frozen=True)
class Case:
    """A preprocessing_fn over `awkward_table`.

    Attributes:
        name: The test's name.
        function: The preprocessing_fn, without the output `row`.
        exact: From the rows what outputs are in float64, by name: scalars or arrays `[rows]`, NaN where there is none.
        quantiles: Outputs that are boundaries.
        near: By output that depends on boundaries, the most rows of which ids may differ, as a share.
    """

    name: str
    function: Function
    exact: Mapping[str, Callable[[pa.Table], np.ndarray | float]] = field(default_factory=dict)
    quantiles: Mapping[str, Quantiles] = field(default_factory=dict)
    near: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, inputs: Inputs) -> dict:
        """The preprocessing_fn, with the output `row`."""
        return {**self.function(dict(inputs)), "row": inputs["row"]}


def repeat(constant: tf.Tensor, inputs: Inputs) -> tf.Tensor:
    """A tensor without batch dimension, for each row of the batch: float64 as float32, which a schema can hold."""
    constant = tf.convert_to_tensor(constant)
    constant = tf.cast(constant, tf.float32) if constant.dtype == tf.float64 else constant
    batch = tf.shape(inputs["row"])[:1]
    shape = constant.shape
    repeated = tf.tile(constant[tf.newaxis], tf.concat([batch, tf.ones([shape.rank], tf.int32)], 0))
    return tf.ensure_shape(repeated, [None, *shape])


def joined(constant: tf.Tensor, inputs: Inputs) -> tf.Tensor:
    """A vector of unknown length as one string, for each row."""
    if constant.dtype != tf.string:
        constant = tf.strings.as_string(constant)
    return repeat(tf.ensure_shape(tf.strings.reduce_join(constant, separator="|"), []), inputs)


def dense(column: tf.SparseTensor, fill) -> tf.Tensor:
    """A sparse column of at most one value a row as `[batch]`."""
    shape = tf.stack([column.dense_shape[0], tf.constant(1, tf.int64)])
    row_wise = tf.SparseTensor(column.indices, column.values, shape)
    return tf.squeeze(tf.sparse.to_dense(row_wise, default_value=tf.constant(fill, column.dtype)), axis=1)


def numbers(table: pa.Table, column: str) -> np.ndarray:
    """The values of a scalar or list column that count as there, float64 made of float32."""
    array = table[column].combine_chunks()
    is_list = pa.types.is_list(array.type)
    values = (array.flatten() if is_list else array.drop_null()).to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f":
        values = values.astype(np.float32)
        values = values if is_list else values[np.isfinite(values)]
    return values.astype(np.float64)


def rowwise(table: pa.Table, column: str) -> np.ndarray:
    """A scalar column as float64, NaN where a value is missing."""
    values = table[column].combine_chunks()
    values = np.array([np.nan if v is None else v for v in values.to_pylist()], np.float64)
    values = values.astype(np.float32).astype(np.float64) if pa.types.is_floating(table[column].type) else values
    values[~np.isfinite(values)] = np.nan
    return values
