"""A part of a graph that is run where it stands. Imports TensorFlow."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence

import tensorflow as tf

from tidemill.transform.tft import private
from tidemill.transform.tft.pruning import prune


class Section:
    """The part of a graph that leads from `feeds` to `fetches`, to be run on eager tensors, by several threads too.

    TensorFlow makes its function of the ops where they are: nothing is copied. What it cannot take as it is `prune`
    copies.

    Before the first call Grappler goes over the function, several times, and makes other roundings of it: a division
    by a constant becomes a product, `x * sigmoid(x)` one op. It does the same to a SavedModel that is served, so the
    results are the same to the bit. Where nothing is a float, nothing is rounded, and Grappler is left out: it takes
    longer than it saves.

    Args:
        graph: The graph. What is changed in it later does not count.
        feeds: Tensors to cut at.
        fetches: Tensors.
    """

    def __init__(self, graph: private.FuncGraph, feeds: Sequence[tf.Tensor], fetches: Sequence[tf.Tensor]):
        cut = {tensor.name for tensor in feeds}
        ops = {op.name: op for op in private.ancestors(fetches, cut)}
        captures = [(outer, inner) for outer, inner in graph.captures if inner.op.name in ops and inner.name not in cut]
        if not _is_closed(graph, ops, [*feeds, *(inner for _, inner in captures)]):
            graph = prune(graph, feeds, list(fetches)).graph
            feeds, fetches, captures = graph.inputs[: len(feeds)], graph.outputs, graph.captures
            ops = {op.name: op for op in graph.get_operations()}
        given = [*feeds, *(inner for _, inner in captures)]
        inputs = {tensor.op.name for tensor in given}
        body = [op for name, op in ops.items() if name not in inputs]
        self._attributes = private.call_attributes(is_exact=all(map(_is_exact, body)))
        self._name = private.define(graph, body, given, fetches)
        weakref.finalize(self, private.remove_function, self._name).atexit = False
        self._captured = [outer for outer, _ in captures]
        self._num_outputs = len(fetches)
        self._graph = graph  # What keeps the functions that are called inside.

    def __call__(self, feeds: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The fetched tensors."""
        given = [*feeds, *self._captured]
        return private.call(self._name, self._num_outputs, given, self._attributes)


def _is_closed(graph: private.FuncGraph, ops: Mapping[str, tf.Operation], given: Sequence[tf.Tensor]) -> bool:
    """Whether ops of a graph, by name, neither wait for an input that is not given, nor give themselves what is given,
    nor have to be where another op is."""
    inputs = {tensor.op.name for tensor in graph.inputs}
    taken = {tensor.op.name for tensor in given}
    if any(name in ops for name in inputs ^ taken):
        return False
    return not any("_class" in op.node_def.attr for op in ops.values())


def _is_exact(op: tf.Operation) -> bool:
    """Whether an op neither gives floats nor calls a function that may."""
    is_float = any(tensor.dtype.is_floating or tensor.dtype.is_complex for tensor in op.outputs)
    return not is_float and not any("func" in attribute.type for attribute in op.op_def.attr)
