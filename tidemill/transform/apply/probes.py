"""Probes of a graph: parts of it, run on the raw values that it names and on one that it does not.

Imports TensorFlow.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Collection, Iterable, MutableMapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from tidemill.transform.apply.facts import Facts
from tidemill.transform.raw import SENTINELS

PACKET = 64
"""TensorFlow computes an array in packets and its end value by value; logarithms and similar functions then differ in
the last bit. A number of values divisible by this has no such end."""
_INTEGER = "^(0|-?[1-9][0-9]{0,18})$"
_ARROW = {"string": pa.large_binary(), "int64": pa.int64()}


def named_values(
    facts: Facts, sources: Iterable[str], dtype: str, keys: Callable[[str], pa.Array | None]
) -> pa.Array | None:
    """Returns the values of a raw column that the sources of an `Elements` distinguish from others.

    Args:
        facts: The facts that the sources belong to.
        sources: Names of constants and tables.
        dtype: The column's dtype, `string` or `int64`. For integers a source may hold digits.
        keys: Returns the keys of a table by its name, None if unknown.

    Returns:
        Unique large_binary or int64 values without a sentinel; None if they are unknown.
    """
    arrays = [pa.array([], _ARROW[dtype])]
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
        arrays.append(values)
    values = arrays[1] if len(arrays) == 2 else pa.concat_arrays(arrays)
    values = values if len(arrays) == 2 and pa.types.is_large_binary(values.type) else pc.unique(values)
    is_sentinel = pc.equal(values, pa.scalar(SENTINELS[dtype], _ARROW[dtype]))
    return values.filter(pc.invert(is_sentinel)) if pc.any(is_sentinel, min_count=0).as_py() else values


def other_values(named: pa.Array, count: int = 1) -> list[bytes | int]:
    """Returns values that are neither named nor a sentinel."""
    candidates = (
        (b"tidemill-%d" % number for number in range(1 << 62))
        if pa.types.is_large_binary(named.type)
        else (number * 7919 + 104729 for number in range(1 << 40))
    )
    others: list[bytes | int] = []
    for value in candidates:
        if not pc.any(pc.equal(named, pa.scalar(value, named.type)), min_count=0).as_py():
            others.append(value)
        if len(others) == count:
            return others
    raise AssertionError("unreachable: there are more candidates than values")


def sparse_probe(values: Any, missing_rows: int, dtype: tf.DType) -> tf.SparseTensor:
    """Returns a sparse tensor `[values + missing_rows, 1]`: rows with the values, then rows without any."""
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
    """Returns values as a column of the dtype holds them; for integers, only those that are digits of an integer."""
    is_text = pa.types.is_large_binary(values.type)
    if dtype == "string":
        return values if is_text else None
    if not is_text:
        return values.cast(pa.int64())
    digits = values.filter(pc.match_substring_regex(values, _INTEGER))
    numbers = [int(digit) for digit in digits.to_pylist()]
    return pa.array([number for number in numbers if -(2**63) <= number < 2**63], pa.int64())


_PARTS = ("indices", "values", "dense_shape")
_results: MutableMapping[tf.Graph, dict[tuple, tuple[list[Any], Any]]] = weakref.WeakKeyDictionary()
"""Cache of `run_on`."""
_RENAMED: dict[Any, str] = {
    ("ExpandDims", "dim"): "axis",
    ("Select", "e"): "y",
    ("Select", "t"): "x",
    ("Squeeze", "squeeze_dims"): "axis",
}
"""Inputs and attributes whose names differ between `tf.raw_ops` and the op."""


def run_on(
    graph: tf.Graph, column: tf.SparseTensor, tensor: tf.Tensor, raw: list[bytes | int], has_missing: bool
) -> tuple[list[Any], Any]:
    """Returns the elements of a tensor that `Facts` calls `Elements` of one column.

    Runs the ops one by one: for a dozen ops that takes less time than making a function.

    Args:
        graph: The tensor's graph.
        column: The column's placeholders.
        tensor: The tensor.
        raw: Values of the column.
        has_missing: Whether the tensor has an element for a missing value.

    Returns:
        An element for each value, and the element of a missing value; None if there is none.
    """
    form = _form(graph, column, tensor)
    if form is None:
        return _run_on(graph, column, tensor, raw, has_missing)
    results = _results.setdefault(graph, {})
    key = form, tuple(raw), has_missing
    if key not in results:
        results[key] = _run_on(graph, column, tensor, raw, has_missing)
    return results[key]


def _form(graph: tf.Graph, column: tf.SparseTensor, tensor: tf.Tensor) -> tuple | None:
    """Returns the structure of a tensor's computation, regardless of the names of its column and ops.

    Many columns usually share a structure, and comparing is quicker than running.

    Returns:
        Each op's type, attributes and the positions of its inputs; None if captured tensors are among them.
    """
    positions = {getattr(column, part).name: position for position, part in enumerate(_PARTS)}
    captured = {inner.name for _, inner in graph.captures}
    form: list[tuple] = [(column.dtype,)]
    stack = [tensor]
    while stack:
        top = stack[-1]
        if top.name in positions:
            stack.pop()
        elif top.name in captured:
            return None
        elif missing := [part for part in top.op.inputs if part.name not in positions]:
            stack.extend(missing)
        else:
            attributes = sorted((name, value.SerializeToString()) for name, value in top.op.node_def.attr.items())
            inputs = [positions[part.name] for part in top.op.inputs]
            positions |= {part.name: len(positions) + index for index, part in enumerate(top.op.outputs)}
            form.append((top.op.type, tuple(attributes), tuple(inputs)))
    return (*form, positions[tensor.name])


def _run_on(
    graph: tf.Graph, column: tf.SparseTensor, tensor: tf.Tensor, raw: list[bytes | int], has_missing: bool
) -> tuple[list[Any], Any]:
    values = np.array(raw, object if column.dtype == tf.string else column.dtype.as_numpy_dtype)
    probe = sparse_probe(values, int(has_missing), column.dtype)
    known = {getattr(column, part).name: getattr(probe, part) for part in _PARTS}
    known |= {inner.name: outer for outer, inner in graph.captures}
    elements = _eager(tensor, known).numpy().reshape(-1).tolist()
    return elements[: len(raw)], elements[-1] if has_missing else None


def _eager(tensor: tf.Tensor, known: dict[str, tf.Tensor]) -> tf.Tensor:
    """Returns a tensor's value by running the few ops before it one by one.

    Args:
        tensor: A tensor of a graph.
        known: Values of tensors by name, including the needed placeholders. Results are added.
    """
    stack = [tensor]
    while stack:
        top = stack[-1]
        if top.name in known:
            stack.pop()
        elif missing := [part for part in top.op.inputs if part.name not in known]:
            stack.extend(missing)
        else:
            results = _run_op(top.op, [known[part.name] for part in top.op.inputs])
            known |= {part.name: result for part, result in zip(top.op.outputs, results, strict=True)}
    return known[tensor.name]


def _run_op(op: Any, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    if op.type == "Const":
        return [tf.constant(tf.make_ndarray(op.get_attr("value")))]
    function, parameters = _raw_op(op.type)
    arguments: dict[Any, Any] = {}
    for argument in op.op_def.input_arg:
        is_list = argument.number_attr or argument.type_list_attr
        count = op.get_attr(argument.number_attr) if argument.number_attr else len(inputs) if is_list else 1
        arguments[_RENAMED.get((op.type, argument.name), argument.name)] = inputs[:count] if is_list else inputs[0]
        inputs = inputs[count:]
    for attribute in op.op_def.attr:
        name = _RENAMED.get((op.type, attribute.name), attribute.name)
        if name in parameters:
            arguments[name] = op.get_attr(attribute.name)
    result = function(**arguments)
    return list(result) if isinstance(result, tuple | list) else [result]


@functools.cache
def _raw_op(type_: str) -> tuple[Callable[..., Any], Collection[str]]:
    function = getattr(tf.raw_ops, type_)
    return function, frozenset(inspect.signature(function).parameters)
