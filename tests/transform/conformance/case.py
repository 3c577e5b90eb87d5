"""A preprocessing_fn that both engines run, and how exact its outputs must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import tensorflow as tf

Inputs = Mapping[str, tf.Tensor | tf.SparseTensor | tf.RaggedTensor]
Function = Callable[[dict], dict]


@dataclass(frozen=True)
class QuantileOutput:
    """An output that holds quantile boundaries, repeated for each row.

    Attributes:
        values: Returns the values of the rows, float64, and their weights or None.
        buckets: Number of buckets.
        epsilon: The largest rank error, as a share of the rows.
    """

    values: Callable[[pa.Table], tuple[np.ndarray, np.ndarray | None]]
    buckets: int
    epsilon: float


@dataclass(frozen=True)
class Case:
    """A preprocessing_fn over `awkward_table`.

    Attributes:
        name: Name of the case, which is part of the test's name.
        function: The preprocessing_fn, without the output `row`.
        exact: For some outputs a function that computes them from the rows in float64: a scalar or an array `[rows]`,
            NaN for rows that are not compared.
        quantiles: The outputs that are boundaries.
        near: For outputs that depend on boundaries, the largest share of rows whose id may differ.
    """

    name: str
    function: Function
    exact: Mapping[str, Callable[[pa.Table], np.ndarray | float]] = field(default_factory=dict)
    quantiles: Mapping[str, QuantileOutput] = field(default_factory=dict)
    near: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, inputs: Inputs) -> dict:
        """Returns the outputs of the preprocessing_fn and the output `row`."""
        return {**self.function(dict(inputs)), "row": inputs["row"]}


def repeat(constant: tf.Tensor, inputs: Inputs) -> tf.Tensor:
    """Repeats a tensor without batch dimension for each row. float64 becomes float32, which a schema can hold."""
    constant = tf.convert_to_tensor(constant)
    constant = tf.cast(constant, tf.float32) if constant.dtype == tf.float64 else constant
    batch = tf.shape(inputs["row"])[:1]
    shape = constant.shape
    repeated = tf.tile(constant[tf.newaxis], tf.concat([batch, tf.ones([shape.rank], tf.int32)], 0))
    return tf.ensure_shape(repeated, [None, *shape])


def repeat_joined(constant: tf.Tensor, inputs: Inputs) -> tf.Tensor:
    """Repeats a vector of unknown length for each row, as one string."""
    if constant.dtype != tf.string:
        constant = tf.strings.as_string(constant)
    return repeat(tf.ensure_shape(tf.strings.reduce_join(constant, separator="|"), []), inputs)


def dense(column: tf.SparseTensor, fill: object) -> tf.Tensor:
    """Converts a sparse column with at most one value per row to `[batch]`."""
    shape = tf.stack([column.dense_shape[0], tf.constant(1, tf.int64)])
    one_wide = tf.SparseTensor(column.indices, column.values, shape)
    return tf.squeeze(tf.sparse.to_dense(one_wide, default_value=tf.constant(fill, column.dtype)), axis=1)


def present_values(table: pa.Table, column: str) -> np.ndarray:
    """Returns the values of a scalar or list column that are not missing, rounded to float32, as float64."""
    array = table[column].combine_chunks()
    is_list = pa.types.is_list(array.type)
    values = (array.flatten() if is_list else array.drop_null()).to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f":
        values = values.astype(np.float32)
        values = values if is_list else values[np.isfinite(values)]
    return values.astype(np.float64)


def row_values(table: pa.Table, column: str) -> np.ndarray:
    """Returns a scalar column as float64 `[rows]`, with NaN for missing values."""
    values = table[column].combine_chunks()
    values = np.array([np.nan if v is None else v for v in values.to_pylist()], np.float64)
    values = values.astype(np.float32).astype(np.float64) if pa.types.is_floating(table[column].type) else values
    values[~np.isfinite(values)] = np.nan
    return values
