"""Token streams that are a raw column but for some values: what a vocabulary may count without running the graph.

Imports TensorFlow.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tidemill.transform.apply.facts import ROWS, Elements, Facts, Level
from tidemill.transform.apply.probes import named_values, other_values, sparse_probe

_DTYPES = {tf.string: "string", tf.int64: "int64", tf.float32: "float32"}


@dataclass(frozen=True)
class Substitution:
    """A stream of tokens that is one raw column with some values replaced.

    A present value `v` gives the token `replaced.get(v, v)`. What is missing is `tidemill.transform.raw`'s rule.

    Attributes:
        column: The raw column's name.
        dtype: The column's dtype, `string` or `int64`.
        as_string: Whether the tokens of an int64 column are its decimal digits. They stay integers otherwise.
        replaced: Raw values (bytes or int) to the tokens that stand for them: bytes, or int for tokens that are
            integers. Holds no value that is its own token.
        missing: The token of each row without a value; None where such a row gives no token.
    """

    column: str
    dtype: str
    as_string: bool
    replaced: Mapping[bytes | int, bytes | int]
    missing: bytes | int | None


class Traced(Protocol):
    """A traced preprocessing_fn, see `tft.trace.Trace`."""

    graph: tf.Graph
    inputs: Mapping[str, Any]

    def ready(self, tensor: tf.Tensor) -> bool:
        """Whether a tensor can be computed."""


def substitution(trace: Traced, tensor: tf.Tensor, flat: Collection[str]) -> Substitution | None:
    """What a token stream is in terms of its raw column.

    The graph's structure proves that all values are their own tokens but for those that the graph names; the tokens of
    those come from running it.

    Args:
        trace: What the tensor belongs to.
        tensor: The tokens, in any shape.
        flat: The names of the inputs that have at most one value a row.

    Returns:
        The substitution; None where the stream is not proven to be one.
    """
    facts, fact = _raw(trace, tensor, flat)
    if fact is None:
        return None
    (column,) = fact.columns
    dtype = _DTYPES[trace.inputs[column].dtype]
    if dtype == "float32" or not fact.is_total:
        return None
    named = named_values(facts, fact.sources, dtype, lambda table: None)
    if named is None:
        return None
    others = other_values(named, 2)
    raw = [*named.to_pylist(), *others]
    tokens, missing = _run(trace, tensor, fact, column, raw)
    as_string = dtype == "int64" and tensor.dtype == tf.string
    own = [b"%d" % value for value in raw] if as_string else raw
    if tokens[-len(others) :] != own[-len(others) :]:
        return None
    replaced = {value: token for value, token, same in zip(raw, tokens, own, strict=True) if token != same}
    return Substitution(column, dtype, as_string, replaced, missing)


def dense_cut(trace: Traced, tensor: tf.Tensor, flat: Collection[str]) -> tuple[str, bytes | float | int] | None:
    """Whether a tensor is a raw column with one value a row, which may then be fed in its place.

    Args:
        trace: What the tensor belongs to.
        tensor: The tensor. Its shape is `[rows]`, `[rows, 1]` or `[1, rows]`, as `Elements.shape` says.
        flat: The names of the inputs that have at most one value a row.

    Returns:
        The column and what stands in it for a missing value; None where the tensor is not proven to be one.
    """
    _, fact = _raw(trace, tensor, flat)
    if fact is None or fact.stream != ROWS or fact.sources or not fact.is_total:
        return None
    (column,) = fact.columns
    dtype = trace.inputs[column].dtype
    if tensor.dtype != dtype:
        return None
    raw = [b"a", b"b"] if dtype == tf.string else [2, 3]
    values, missing = _run(trace, tensor, fact, column, raw)
    return (column, missing) if values == raw else None


def _raw(trace: Traced, tensor: tf.Tensor, flat: Collection[str]) -> tuple[Facts, Elements | None]:
    # Inputs that are not flat may be dense tensors, which have no hash.
    facts = _facts(trace.graph, tuple((name, value) for name, value in trace.inputs.items() if name in flat))
    fact = facts.of(tensor) if trace.ready(tensor) else None
    is_raw = isinstance(fact, Elements) and fact.level is Level.RAW and len(fact.columns) == 1
    return facts, fact if is_raw else None


@functools.lru_cache(maxsize=1)
def _facts(graph: tf.Graph, inputs: tuple[tuple[str, Any], ...]) -> Facts:
    return Facts(graph, dict(inputs), is_width_one=False)


def _run(
    trace: Traced, tensor: tf.Tensor, fact: Elements, column: str, raw: list
) -> tuple[list[bytes | int], bytes | int | float | None]:
    """The tensor's elements for present values, and for a missing one."""
    rows = 1 if fact.stream == ROWS else 0
    placeholder = trace.inputs[column]
    is_text = placeholder.dtype == tf.string
    values = np.array(raw, object if is_text else placeholder.dtype.as_numpy_dtype)
    probe = sparse_probe(values, rows, placeholder.dtype)
    known = {getattr(placeholder, part).name: getattr(probe, part) for part in ("indices", "values", "dense_shape")}
    known |= {inner.name: outer for outer, inner in trace.graph.captures}
    found = _eager(tensor, known).numpy().reshape(-1).tolist()
    return found[: len(raw)], found[-1] if rows else None


def _eager(tensor: tf.Tensor, known: dict[str, tf.Tensor]) -> tf.Tensor:
    """A tensor's value by running the ops that lead to it, which are few, one by one.

    Args:
        tensor: A tensor of a graph.
        known: Values of tensors by name, among them those of the placeholders that are needed. Added to.
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


def _run_op(op: tf.Operation, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    function = getattr(tf.raw_ops, op.type)
    parameters = inspect.signature(function).parameters
    arguments: dict[str, Any] = {}
    for argument in op.op_def.input_arg:
        count = op.get_attr(argument.number_attr) if argument.number_attr else 1
        arguments[argument.name] = inputs[:count] if argument.number_attr else inputs[0]
        inputs = inputs[count:]
    for attribute in op.op_def.attr:
        # Squeeze is the one op here whose attribute has another name in Python.
        name = "axis" if attribute.name == "squeeze_dims" else attribute.name
        if name in parameters:
            arguments[name] = op.get_attr(attribute.name)
    if op.type == "Const":
        return [tf.constant(tf.make_ndarray(op.get_attr("value")))]
    result = function(**arguments)
    return list(result) if isinstance(result, tuple | list) else [result]
