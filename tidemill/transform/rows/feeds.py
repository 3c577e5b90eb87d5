"""Arrow arrays as the sparse tensors of tfx_bsl, without a Python object for each number. Imports TensorFlow."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
import tensorflow as tf

TF_DTYPES = {"int64": tf.int64, "float32": tf.float32, "string": tf.string}


def sparse(array: pa.Array) -> tf.SparseTensor:
    """A column of scalars as TFX sees it: a row has one value, or none where it is null.

    Args:
        array: `[rows]` of int64, float32 or large_binary, as `raw.typed` gives it.

    Returns:
        A sparse tensor `[rows, 1]`; `[rows, 0]` where all rows are null.
    """
    return tf.SparseTensor(indices(array), values(array), shape(array))


def indices(array: pa.Array) -> tf.Tensor:
    """The indices of `sparse(array)`: `[values, 2]` int64."""
    if array.null_count == 0:
        return _all_rows(len(array))
    where = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
    pairs = np.zeros((len(where), 2), np.int64)
    pairs[:, 0] = where
    return tf.constant(pairs)


def values(array: pa.Array) -> tf.Tensor:
    """The values of `sparse(array)`: `[values]`."""
    return tensor(array.drop_null() if array.null_count else array)


def shape(array: pa.Array) -> tf.Tensor:
    """The dense shape of `sparse(array)`: `[2]` int64."""
    return _shape(len(array), int(array.null_count < len(array)))


def dense(array: pa.Array, default: int | float | bytes, is_width_one: bool) -> tf.Tensor:
    """What SparseToDense makes of `sparse(array)`.

    Args:
        array: `[rows]`, as for `sparse`.
        default: What stands for a missing value.
        is_width_one: Whether the shape is `[rows, 1]` even where all rows are null; `[rows, 0]` otherwise.
    """
    if array.null_count and array.null_count == len(array) and not is_width_one:
        return tf.constant(_numpy(array.drop_null()), shape=[len(array), 0])
    filled = array.fill_null(pa.scalar(default, array.type)) if array.null_count else array
    return tf.constant(_numpy(filled)[:, np.newaxis])


def sparse_lists(array: pa.LargeListArray) -> tf.SparseTensor:
    """A column of lists as TFX sees it.

    Args:
        array: `[rows]` of lists without nulls of int64, float32 or large_binary, as `raw.typed` gives it.

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
    """An array without nulls as a tensor of the same length."""
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
