"""Raw values that stand for all others: what is named in a graph, and a value that is not. Imports TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from tidemill.transform.apply.facts import Facts
from tidemill.transform.raw import SENTINELS

PACKET = 64
"""TensorFlow computes an array packet by packet and its end value by value, and logarithms and the like then differ in
the last bit. A number of values that this divides has no such end."""
_INTEGER = "^(0|-?[1-9][0-9]{0,18})$"
_ARROW = {"string": pa.large_binary(), "int64": pa.int64()}


def named_values(
    facts: Facts, sources: Iterable[str], dtype: str, keys: Callable[[str], pa.Array | None]
) -> pa.Array | None:
    """The values of a raw column that the sources of an `Elements` tell from others.

    Args:
        facts: What the sources belong to.
        sources: Names of constants and tables.
        dtype: The column's dtype, `string` or `int64`. For integers a source may hold digits.
        keys: The keys of a table by its name, None where they are not known.

    Returns:
        Unique large_binary or int64 values without a sentinel; None where they cannot be known.
    """
    found = [pa.array([], _ARROW[dtype])]
    for name in sorted(sources):
        tensor = facts.graph.get_tensor_by_name(name)
        if tensor.dtype == tf.resource:
            values = keys(name)
        else:
            constant = facts.value(tensor)
            values = None if constant is None else _array(constant.reshape(-1))
        values = None if values is None else _of_dtype(values, dtype)
        if values is None:
            return None
        found.append(values)
    values = found[1] if len(found) == 2 else pa.concat_arrays(found)
    values = values if len(found) == 2 and pa.types.is_large_binary(values.type) else pc.unique(values)
    is_sentinel = pc.equal(values, pa.scalar(SENTINELS[dtype], _ARROW[dtype]))
    return values.filter(pc.invert(is_sentinel)) if pc.any(is_sentinel, min_count=0).as_py() else values


def other_values(named: pa.Array, count: int = 1) -> list[bytes | int]:
    """Values that are not among the named ones, nor a sentinel."""
    candidates = (
        (b"tidemill-%d" % number for number in range(1 << 62))
        if pa.types.is_large_binary(named.type)
        else (number * 7919 + 104729 for number in range(1 << 40))
    )
    found: list[bytes | int] = []
    for value in candidates:
        if not pc.any(pc.equal(named, pa.scalar(value, named.type)), min_count=0).as_py():
            found.append(value)
        if len(found) == count:
            return found
    raise AssertionError("unreachable: there are more candidates than values")


def sparse_probe(values: pa.Array | np.ndarray | Sequence, missing_rows: int, dtype: tf.DType) -> tf.SparseTensor:
    """A sparse tensor `[values + missing_rows, 1]`: rows with the values, then rows without any."""
    array = values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else np.asarray(values)
    indices = np.zeros((len(array), 2), np.int64)
    indices[:, 0] = np.arange(len(array))
    shape = np.array([len(array) + missing_rows, 1], np.int64)
    return tf.SparseTensor(tf.constant(indices), tf.constant(array, dtype), tf.constant(shape))


def _array(values: np.ndarray) -> pa.Array | None:
    if values.dtype == object:
        return pa.array(values, pa.large_binary())
    return pa.array(values) if values.dtype.kind in "iu" else None


def _of_dtype(values: pa.Array, dtype: str) -> pa.Array | None:
    """Values as a column of the dtype may hold them; for integers, those that are the digits of one."""
    is_text = pa.types.is_large_binary(values.type)
    if dtype == "string":
        return values if is_text else None
    if not is_text:
        return values.cast(pa.int64())
    digits = values.filter(pc.match_substring_regex(values, _INTEGER))
    numbers = [int(digit) for digit in digits.to_pylist()]
    return pa.array([number for number in numbers if -(2**63) <= number < 2**63], pa.int64())
