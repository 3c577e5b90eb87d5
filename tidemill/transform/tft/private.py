"""Every private interface of TensorFlow and of TensorFlow Transform that Tidemill leans on for its local engine.

Importing this module checks that the installed versions are those that the interfaces are known for.
"""

from __future__ import annotations

import atexit
import gc
import itertools
import weakref
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from tidemill.errors import Code, TidemillError

KNOWN = {"tensorflow-transform": "1.21", "tensorflow": "2.21"}


def _check_versions() -> None:
    for name, have in (("tensorflow-transform", tft.__version__), ("tensorflow", tf.__version__)):
        want = KNOWN[name]
        if have.split(".")[:2] != want.split("."):
            got = f"version {have}, while the local engine knows the private interfaces of {want}.*"
            raise TidemillError(Code.UNSUPPORTED, name, got, f"use the beam engine or install {name}=={want}.*")


_check_versions()

from tensorflow.core.framework import graph_pb2  # noqa: E402
from tensorflow.python.client import pywrap_tf_session  # noqa: E402
from tensorflow.python.eager import context as eager_context  # noqa: E402
from tensorflow.python.eager import execute, wrap_function  # noqa: E402
from tensorflow.python.framework import func_graph, function_def_to_graph, importer  # noqa: E402
from tensorflow.python.ops import lookup_ops  # noqa: E402
from tensorflow.python.saved_model import nested_structure_coder  # noqa: E402
from tensorflow.python.trackable import base as trackable  # noqa: E402
from tensorflow.python.trackable import resource as tracking  # noqa: E402
from tensorflow_transform import (  # noqa: E402
    analyzer_nodes,
    analyzers,
    annotators,
    graph_context,
    impl_helper,
    nodes,
    schema_inference,
    tf2_utils,
    tf_utils,
)

# Importing TensorFlow makes a million objects that live as long as the process; the collector need not visit them.
gc.freeze()
# DuckDB's extension module reports what is not collected at exit, line by line.
atexit.register(gc.unfreeze)

FuncGraph = func_graph.FuncGraph
WrappedFunction, VariableHolder = wrap_function.WrappedFunction, wrap_function.VariableHolder
Trackable = trackable.Trackable
ResourceTracker, resource_tracker_scope = tracking.ResourceTracker, tracking.resource_tracker_scope
InitializableTable, StaticVocabularyTable = lookup_ops.InitializableLookupTableBase, lookup_ops.StaticVocabularyTable
TextFileInitializer = lookup_ops.TextFileInitializer

ValueNode = nodes.ValueNode
ObjectTracker, object_tracker_scope = annotators.ObjectTracker, annotators.object_tracker_scope
TFGraphContext = graph_context.TFGraphContext
traced_function = impl_helper.get_traced_transform_fn
structured_inputs = tf2_utils.get_structured_inputs_from_func_graph
tensor_values = tf_utils.get_values

OVERRIDDEN = schema_inference._TF_METADATA_TENSOR_COLLECTION
OVERRIDE_MIN = schema_inference._TF_METADATA_TENSOR_MIN_COLLECTION
OVERRIDE_MAX = schema_inference._TF_METADATA_TENSOR_MAX_COLLECTION
ANNOTATED = schema_inference._TF_METADATA_EXTRA_ANNOTATION
ANNOTATION_URL = schema_inference._TF_METADATA_EXTRA_ANNOTATION_TYPE_URL
ANNOTATION_PROTO = schema_inference._TF_METADATA_EXTRA_ANNOTATION_PROTO
ANNOTATED_SCHEMA = schema_inference._TF_METADATA_EXTRA_ANNOTATION_GLOBAL
schema_overrides = schema_inference._get_schema_overrides
schema_annotations = schema_inference._get_schema_annotations_common
sparse_annotations = schema_inference._get_sparse_output_annotations_v2
keys_by_tensor = schema_inference._get_tensor_value_to_key_map
infer_schema = schema_inference._infer_feature_schema_common

TABLE_VALUES = {
    "_make_construct_vocabulary_table_function.<locals>.construct_table": tf.int64,
    "apply_per_key_vocabulary.<locals>._construct_table": tf.string,
}
"""What TFT's own lookup tables give, by the name of the function that makes them."""
LOOKUPS = tf_utils
"""The module whose `construct_and_lookup_table` TFT calls through its name."""
ANALYZERS = analyzers
"""The module whose `_get_vocabulary_analyzer_inputs` TFT calls through its name."""
FREQUENCY = analyzers._VocabOrderingType.FREQUENCY
filter_regex = analyzers.get_vocab_newline_characters_regex

_numbers = itertools.count()


def sinks(graph: tf.Graph) -> list[Any]:
    """The analyzers' results that a graph lacks: each has `tensor`, `future` (a ValueNode) and `is_asset_filepath`."""
    return list(graph.get_collection(analyzer_nodes.TENSOR_REPLACEMENTS))


def sources(graph: FuncGraph) -> dict[str, list[tf.Tensor]]:
    """What each analyzer's result is computed from, known or not: tensors by the name of the result's tensor."""
    return {sink.tensor.name: _sources(sink.future) for sink in graph.get_collection(analyzer_nodes.ALL_REPLACEMENTS)}


def _sources(value: ValueNode) -> list[tf.Tensor]:
    operation = value.parent_operation
    if isinstance(operation.operation_def, analyzer_nodes.TensorSource):
        return list(operation.operation_def.tensors)
    return [tensor for before in operation.inputs for tensor in _sources(before)]


def is_ptransform(operation: nodes.OperationDef) -> bool:
    """Whether an analyzer is a Beam PTransform of the user's own."""
    return isinstance(operation, analyzer_nodes.PTransform)


def reserved_tokens(graph: FuncGraph, name: str) -> tf.Tensor:
    """The tensor of a vocabulary's reserved tokens, `[tokens]` strings."""
    names = graph.get_collection(tf_utils._VOCABULARY_RESERVED_TOKENS_IDS)
    return graph.get_collection(tf_utils._VOCABULARY_RESERVED_TOKENS)[names.index(name)]


def asset_map(graph: FuncGraph) -> dict[str, str]:
    """The vocabularies' file names by their keys."""
    return annotators.get_asset_annotations(graph)


def asset_paths(graph: FuncGraph) -> list[tf.Tensor]:
    """The list, which may be changed, of the paths of the files that a graph needs."""
    return graph.get_collection_ref(tf.compat.v1.GraphKeys.ASSET_FILEPATHS)


def missing_inputs(inputs: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """One row of zeros and empty strings for inputs of a graph."""
    return dict(tf2_utils.supply_missing_inputs(inputs, 1, list(names))) if names else {}


def ancestors(fetches: Sequence[tf.Tensor], cut: Collection[str] = ()) -> list[tf.Operation]:
    """The ops that tensors depend on, by data or control, stopping at the tensors named in `cut`."""
    seen: dict[str, tf.Operation] = {}
    stack = [tensor.op for tensor in fetches if tensor.name not in cut]
    while stack:
        op = stack.pop()
        if op.name in seen:
            continue
        seen[op.name] = op
        stack.extend(tensor.op for tensor in op.inputs if tensor.name not in cut)
        stack.extend(op.control_inputs)
    return list(seen.values())


def rewire(old: tf.Tensor, new: tf.Tensor) -> None:
    """Lets every op that takes `old` take `new`."""
    for op in old.consumers():
        for index, tensor in enumerate(op.inputs):
            if tensor is old:
                op._update_input(index, new)


def function_graph(definition: Any, captured: Sequence[tf.Tensor]) -> FuncGraph:
    """The graph of a function in a SavedModel.

    Args:
        definition: The `FunctionDef`.
        captured: The values of its last inputs, which it captured when it was traced.
    """
    graph = function_def_to_graph.function_def_to_graph(definition)
    for outer, inner in zip(captured, graph.inputs[len(graph.inputs) - len(captured) :], strict=True):
        graph.replace_capture(outer, inner)
    return graph


def saved_structure(proto: Any) -> Any:
    """A structure of specs as a SavedModel's `StructuredValue` holds it."""
    return nested_structure_coder.decode_proto(proto)


def drop_waits(op: tf.Operation) -> None:
    """Removes an op's control inputs, so that it no longer waits for other ops."""
    op._remove_all_control_inputs()


def prune(
    graph: FuncGraph,
    feeds: Sequence[tf.Tensor],
    fetches: Any,
    signature: Any = None,
) -> tf.types.experimental.ConcreteFunction:
    """A function of the part of a graph that leads from `feeds` to `fetches`, with shapes inferred anew.

    TensorFlow's own `WrappedFunction.prune` copies op by op in Python; this takes a third of its time.

    Args:
        graph: The graph.
        feeds: Tensors to cut at.
        fetches: Tensors and composite tensors in any structure.
        signature: The function's structured input signature. Defaults to none: it takes the feeds in their order.
    """
    flat = tf.nest.flatten(fetches, expand_composites=True)
    cut = {tensor.name for tensor in feeds}
    needed = {op.name for op in ancestors(flat, cut)}
    captures = [(outer, inner) for outer, inner in graph.captures if inner.op.name in needed and inner.name not in cut]
    with graph.as_default():
        pruned = FuncGraph("pruned")
    with pruned.as_default():
        placed = {
            tensor.name: tf.raw_ops.Placeholder(dtype=tensor.dtype, shape=tensor.shape, name=f"feed_{index}")
            for index, tensor in enumerate(feeds)
        }
        pruned.inputs.extend(placed.values())
        for index, (outer, inner) in enumerate(captures):
            placed[inner.name] = pruned.capture(outer, name=f"captured_{index}")
        inside = needed - {tensor.op.name for tensor in graph.inputs}
        part = _slim(_part(graph, inside), kept={tensor.op.name for tensor in flat})
        taken = {name if ":" in name else f"{name}:0" for node in part.node for name in node.input}
        used = {name: tensor for name, tensor in placed.items() if name in taken}
        wanted = [tensor.name for tensor in flat if tensor.name not in placed]
        found = importer.import_graph_def(part, input_map=used, return_elements=wanted, name="")
        placed |= dict(zip(wanted, found, strict=True))
    outputs = [placed[tensor.name] for tensor in flat]
    for old, new in zip(flat, outputs, strict=True):
        new.set_shape(old.shape)
    pruned.outputs.extend(outputs)
    pruned.variables = graph.variables
    pruned.structured_outputs = tf.nest.pack_sequence_as(fetches, outputs, expand_composites=True)
    pruned.structured_input_signature = signature
    function = WrappedFunction(pruned, VariableHolder(share_variables=True))
    function._num_positional_args = len(feeds)
    function._arg_keywords = [tensor.op.name for tensor in feeds]
    return function


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

    def __init__(self, graph: FuncGraph, feeds: Sequence[tf.Tensor], fetches: Sequence[tf.Tensor]):
        cut = {tensor.name for tensor in feeds}
        ops = {op.name: op for op in ancestors(fetches, cut)}
        captures = [(outer, inner) for outer, inner in graph.captures if inner.op.name in ops and inner.name not in cut]
        if not _is_closed(graph, ops, [*feeds, *(inner for _, inner in captures)]):
            graph = prune(graph, feeds, list(fetches)).graph
            feeds, fetches, captures = graph.inputs[: len(feeds)], graph.outputs, graph.captures
            ops = {op.name: op for op in graph.get_operations()}
        given = [*feeds, *(inner for _, inner in captures)]
        inputs = {tensor.op.name for tensor in given}
        body = [op for name, op in ops.items() if name not in inputs]
        self._attributes = _call_attributes(is_exact=all(map(_is_exact, body)))
        self._name = _define(graph, body, given, fetches)
        weakref.finalize(self, eager_context.context().remove_function, self._name).atexit = False
        self._captured = [outer for outer, _ in captures]
        self._num_outputs = len(fetches)
        self._graph = graph  # What keeps the functions that are called inside.

    def __call__(self, feeds: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The fetched tensors."""
        given = [*feeds, *self._captured]
        return execute.execute(self._name, self._num_outputs, given, self._attributes, eager_context.context())


def _define(
    graph: FuncGraph, ops: Sequence[tf.Operation], inputs: Sequence[tf.Tensor], outputs: Sequence[tf.Tensor]
) -> str:
    """Makes a function of a graph's ops known to TensorFlow by the name that is returned."""
    context, name = eager_context.context(), f"tidemill_section_{next(_numbers)}"
    ends = [[tensor._as_tf_output() for tensor in tensors] for tensors in (inputs, outputs)]
    with graph._c_graph.get() as c_graph:
        function = pywrap_tf_session.TF_GraphToFunction_wrapper(
            c_graph, name, False, [op._c_op for op in ops], *ends, [], [], [], None, ""
        )
    context.add_c_function(function)
    pywrap_tf_session.TF_DeleteFunction(function)
    return name


def _is_closed(graph: FuncGraph, ops: Mapping[str, tf.Operation], given: Sequence[tf.Tensor]) -> bool:
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


def _call_attributes(*, is_exact: bool) -> tuple[str, Any, str, Any]:
    """How a function is called: as TensorFlow calls it by default, or where nothing is rounded without Grappler."""
    config = eager_context.context().config
    config.allow_soft_placement = True
    config.graph_options.rewrite_options.disable_meta_optimizer = is_exact
    return "executor_type", "", "config_proto", config.SerializeToString()


def _part(graph: FuncGraph, names: Collection[str]) -> graph_pb2.GraphDef:
    """The ops of these names, without control dependencies on others."""
    whole = graph.as_graph_def()
    part = graph_pb2.GraphDef(versions=whole.versions, library=whole.library)
    part.node.extend(node for node in whole.node if node.name in names)
    for node in part.node:
        node.attr.pop("_class", None)
        inputs = [name for name in node.input if not name.startswith("^") or name[1:] in names]
        if len(inputs) != len(node.input):
            node.input[:] = inputs
    return part


def _slim(part: graph_pb2.GraphDef, kept: Collection[str]) -> graph_pb2.GraphDef:
    """The same ops without those that only pass a tensor on, and with one constant for each value.

    TFT passes each input on, and of a function over many columns a quarter of the ops are the same few constants.

    Args:
        part: The ops.
        kept: The names of those that are asked for themselves.
    """
    kept = {*kept, *(name[1:] for node in part.node for name in node.input if name.startswith("^"))}
    stands_for: dict[str, str] = {}
    constants: dict[tuple[str, bytes], str] = {}
    for node in part.node:
        if node.name in kept:
            continue
        if node.op == "Identity" and len(node.input) == 1:
            stands_for[node.name] = node.input[0]
        elif node.op == "Const" and not node.input:
            first = constants.setdefault((node.device, node.attr["value"].SerializeToString()), node.name)
            if first != node.name:
                stands_for[node.name] = first

    def origin(name: str) -> str:
        while (passed := name.removesuffix(":0")) in stands_for:
            name = stands_for[passed]
        return name

    slim = graph_pb2.GraphDef(versions=part.versions, library=part.library)
    slim.node.extend(node for node in part.node if node.name not in stands_for)
    for node in slim.node:
        node.input[:] = map(origin, node.input)
    return slim
