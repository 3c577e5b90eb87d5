"""Subgraphs: parts of a graph as functions, made in place or as a copy. Imports TensorFlow."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2, node_def_pb2

from tidemill.transform.tft import private

TensorType = tf.Tensor | tf.SparseTensor | tf.RaggedTensor
_HANDLES = (tf.resource, tf.variant)


class Subgraph:
    """A function of eager tensors: the part of a graph between `feeds` and `fetches`. Several threads may call it.

    TensorFlow makes the function from the ops in place, without a copy. `prune` copies the ops that TensorFlow cannot
    take in place.

    Before the first call, Grappler rewrites the function several times and changes how it rounds: a division by a
    constant becomes a product, `x * sigmoid(x)` one op. It does the same to a served SavedModel, so results are equal
    to the bit. Grappler is disabled if no op returns a float, because it would take longer than it saves and nothing is
    rounded.

    Args:
        graph: The graph. Later changes of it have no effect.
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
        self._graph = graph  # Keeps the functions that are called inside alive.

    def __call__(self, feeds: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the fetched tensors."""
        given = [*feeds, *self._captured]
        return private.call(self._name, self._num_outputs, given, self._attributes)


class GraphFunction:
    """A function of a part of a graph, from raw inputs by name. Several threads may call it.

    Attributes:
        inputs: Names of the raw inputs that it takes.
        feeds: Tensors inside the graph that it takes after them.
    """

    def __init__(self, subgraph: Subgraph, inputs: Sequence[str], feeds: Sequence[tf.Tensor]):
        self._subgraph = subgraph
        self.inputs = list(inputs)
        self.feeds = list(feeds)

    def __call__(self, inputs: Mapping[str, TensorType], feeds: Sequence[tf.Tensor] = ()) -> list[tf.Tensor]:
        """Returns the fetched tensors.

        Args:
            inputs: Raw inputs by name, at least those in `self.inputs`.
            feeds: The values of `self.feeds`.
        """
        flat = [part for name in self.inputs for part in parts(inputs[name])]
        return self._subgraph([*flat, *feeds])


def parts(value: TensorType) -> list[tf.Tensor]:
    """Returns the tensors of a composite tensor."""
    return tf.nest.flatten(value, expand_composites=True)


def _is_closed(graph: private.FuncGraph, ops: Mapping[str, tf.Operation], given: Sequence[tf.Tensor]) -> bool:
    """Returns whether some ops can become a function in place.

    They can if they do not depend on an input that is not given, do not compute a given tensor, and are not colocated
    with other ops.

    Args:
        graph: The graph.
        ops: The ops by name.
        given: The tensors that the function takes.
    """
    inputs = {tensor.op.name for tensor in graph.inputs}
    taken = {tensor.op.name for tensor in given}
    if any(name in ops for name in inputs ^ taken):
        return False
    return not any("_class" in op.node_def.attr for op in ops.values())


def _is_exact(op: tf.Operation) -> bool:
    """Returns whether an op neither returns floats nor calls a function that may."""
    is_float = any(tensor.dtype.is_floating or tensor.dtype.is_complex for tensor in op.outputs)
    return not is_float and not any("func" in attribute.type for attribute in op.op_def.attr)


def prune(
    graph: private.FuncGraph,
    feeds: Sequence[tf.Tensor],
    fetches: Any,
    signature: Any = None,
) -> private.WrappedFunction:
    """Returns a function of the part of a graph between `feeds` and `fetches`, with shapes inferred anew.

    TensorFlow's own `WrappedFunction.prune` copies op by op in Python, which takes at least three times as long.

    Args:
        graph: The graph.
        feeds: Tensors to cut at.
        fetches: Tensors and composite tensors in any structure.
        signature: The function's structured input signature. Defaults to none: it takes the feeds in order.
    """
    flat = tf.nest.flatten(fetches, expand_composites=True)
    cut = {tensor.name for tensor in feeds}
    needed = {op.name for op in private.ancestors(flat, cut)}
    captures = [(outer, inner) for outer, inner in graph.captures if inner.op.name in needed and inner.name not in cut]
    values = [(outer, inner) for outer, inner in captures if outer.dtype not in _HANDLES]
    resources = [(outer, inner) for outer, inner in captures if outer.dtype in _HANDLES]
    placeholders = {tensor.name: _free(f"feed_{index}", needed) for index, tensor in enumerate(feeds)}
    placeholders |= {inner.name: _free(f"captured_{index}", needed) for index, (_, inner) in enumerate(values)}
    part = _part(graph, needed - {tensor.op.name for tensor in graph.inputs})
    part = _slim(part, {name.removesuffix(":0"): new for name, new in placeholders.items()}, flat)
    # Importing a placeholder with the other ops takes a fifth of the time of creating one.
    part.node.extend(_placeholder_node(placeholders[tensor.name], tensor) for tensor in feeds)
    part.node.extend(_placeholder_node(placeholders[inner.name], inner) for _, inner in values)
    with graph.as_default():
        pruned = private.FuncGraph("pruned")
    with pruned.as_default():
        handles = {
            inner.name: pruned.capture(outer, _free(f"handle_{index}", needed))
            for index, (outer, inner) in enumerate(resources)
        }
        imported = _imported(part, handles, placeholders, flat)
    for outer, inner in values:
        pruned.add_capture(outer, imported[inner.name])
    pruned.inputs = [*(imported[tensor.name] for tensor in feeds), *pruned.internal_captures]
    outputs = [imported[tensor.name] for tensor in flat]
    for old, new in zip(flat, outputs, strict=True):
        new.set_shape(old.shape)
    pruned.outputs.extend(outputs)
    pruned.variables = graph.variables
    pruned.structured_outputs = tf.nest.pack_sequence_as(fetches, outputs, expand_composites=True)
    pruned.structured_input_signature = signature
    function = private.WrappedFunction(pruned, private.VariableHolder(share_variables=True))
    function._num_positional_args = len(feeds)
    function._arg_keywords = [tensor.op.name for tensor in feeds]
    return function


def _imported(
    part: graph_pb2.GraphDef,
    handles: Mapping[str, tf.Tensor],
    placeholders: Mapping[str, str],
    fetches: Sequence[tf.Tensor],
) -> dict[str, tf.Tensor]:
    """Imports ops into the default graph.

    Args:
        part: The ops.
        handles: Tensors that exist in the default graph, by the names of the tensors they replace.
        placeholders: Names of placeholders, by the names of the tensors they replace.
        fetches: The tensors to return.

    Returns:
        The new tensors for the handles, the placeholders and the fetches, by the old names.
    """
    names = {tensor.name: tensor.name for tensor in fetches} | {name: f"{new}:0" for name, new in placeholders.items()}
    names = {name: new for name, new in names.items() if name not in handles}
    inputs = {name if ":" in name else f"{name}:0" for node in part.node for name in node.input}
    used = {name: tensor for name, tensor in handles.items() if name in inputs}
    imported = tf.graph_util.import_graph_def(part, input_map=used, return_elements=list(names.values()), name="")
    return {**handles, **dict(zip(names, imported, strict=True))}


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _part(graph: private.FuncGraph, names: Collection[str]) -> graph_pb2.GraphDef:
    """Returns the named ops, without control dependencies on others."""
    whole = graph.as_graph_def()
    part = graph_pb2.GraphDef(versions=whole.versions, library=whole.library)
    part.node.extend(node for node in whole.node if node.name in names)
    for node in part.node:
        node.attr.pop("_class", None)
        inputs = [name for name in node.input if not name.startswith("^") or name[1:] in names]
        if len(inputs) != len(node.input):
            node.input[:] = inputs
    return part


def _placeholder_node(name: str, tensor: tf.Tensor) -> node_def_pb2.NodeDef:
    node = node_def_pb2.NodeDef(name=name, op="Placeholder")
    node.attr["dtype"].type = tensor.dtype.as_datatype_enum
    node.attr["shape"].shape.CopyFrom(tensor.shape.as_proto())
    return node


def _slim(
    part: graph_pb2.GraphDef, placeholders: Mapping[str, str], fetches: Sequence[tf.Tensor]
) -> graph_pb2.GraphDef:
    """Returns the same ops without identities, and with one constant for each value.

    TFT adds many identities, and a function over many columns repeats the same few constants.

    Args:
        part: The ops.
        placeholders: New names of inputs, by the names that nodes use.
        fetches: The tensors that must keep their names.
    """
    fixed = {tensor.op.name for tensor in fetches}
    fixed |= {name[1:] for node in part.node for name in node.input if name.startswith("^")}
    replacement: dict[str, str] = {}
    constants: dict[tuple[str, bytes], str] = {}
    for node in part.node:
        if node.name in fixed:
            continue
        if node.op == "Identity" and len(node.input) == 1:
            replacement[node.name] = node.input[0]
        elif node.op == "Const" and not node.input:
            first = constants.setdefault((node.device, node.attr["value"].SerializeToString()), node.name)
            if first != node.name:
                replacement[node.name] = first

    def origin(name: str) -> str:
        while (source := name.removesuffix(":0")) not in placeholders:
            if source not in replacement:
                return name
            name = replacement[source]
        return placeholders[source]

    slim = graph_pb2.GraphDef(versions=part.versions, library=part.library)
    slim.node.extend(node for node in part.node if node.name not in replacement)
    for node in slim.node:
        node.input[:] = map(origin, node.input)
    return slim
