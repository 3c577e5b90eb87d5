"""All private interfaces of TensorFlow and TensorFlow Transform that the local engine uses.

Importing this module checks that the installed versions are those for which the interfaces are known.
"""

from __future__ import annotations

import atexit
import gc
import itertools
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf
import tensorflow_transform as tft

from tidemill.errors import Code, TidemillError

KNOWN = {"tensorflow-transform": "1.21", "tensorflow": "2.21"}


def _check_versions() -> None:
    for name, have in (("tensorflow-transform", tft.__version__), ("tensorflow", tf.__version__)):
        want = KNOWN[name]
        if have.split(".")[:2] != want.split("."):
            got = f"version {have}, for which the local engine does not know the private interfaces"
            raise TidemillError(Code.UNSUPPORTED, name, got, f"use the beam engine or install {name}=={want}.*")


_check_versions()

from tensorflow.python.client import pywrap_tf_session  # noqa: E402
from tensorflow.python.eager import context as eager_context  # noqa: E402
from tensorflow.python.eager import execute, wrap_function  # noqa: E402
from tensorflow.python.framework import (  # noqa: E402
    auto_control_deps,
    func_graph,
    function_def_to_graph,
    op_def_registry,
    ops,
)
from tensorflow.python.ops import lookup_ops  # noqa: E402
from tensorflow.python.saved_model import nested_structure_coder  # noqa: E402
from tensorflow.python.trackable import base as trackable  # noqa: E402
from tensorflow.python.trackable import resource as tracking  # noqa: E402
from tensorflow.python.util import tf_stack  # noqa: E402
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

# Importing TensorFlow makes a million objects that live as long as the process. The collector need not visit them.
gc.freeze()
# DuckDB's extension module prints a line for each object that is not collected at exit.
atexit.register(gc.unfreeze)

if TYPE_CHECKING:

    class FuncGraph(tf.Graph):
        """TensorFlow's graph of a function."""

        def __init__(self, name: str): ...
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    class WrappedFunction:
        """TensorFlow's function of a graph."""

        def __init__(self, graph: FuncGraph, variable_holder: Any): ...
        def __call__(self, *arguments: Any) -> Any: ...
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

else:
    FuncGraph, WrappedFunction = func_graph.FuncGraph, wrap_function.WrappedFunction
VariableHolder = wrap_function.VariableHolder
Trackable: Any = trackable.Trackable
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
"""The value dtypes of TFT's own lookup tables, by the name of the function that makes them."""
LOOKUPS = tf_utils
"""The module through which TFT calls `construct_and_lookup_table` and `copy_tensors`."""
ANALYZERS = analyzers
"""The module through which TFT calls `_get_vocabulary_analyzer_inputs`."""
FREQUENCY = analyzers._VocabOrderingType.FREQUENCY
filter_regex = analyzers.get_vocab_newline_characters_regex

STACKS = tf_stack
"""The module through which TensorFlow calls `extract_stack`."""
CONTROL_DEPENDENCIES, ControlDependencies = auto_control_deps, auto_control_deps.AutomaticControlDependencies
"""The module through which TensorFlow calls the class, and the class."""
GRAPHS = ops
"""The module through which TensorFlow calls `_create_graph_constant`."""
CONSTANT_MAKERS = [
    "tensorflow.python.framework.constant_op",
    "tensorflow.python.framework.constant_tensor_conversion",
    "tensorflow.python.framework.ops",
    "tensorflow.python.framework.tensor_conversion",
    "tensorflow.python.framework.tensor_conversion_registry",
    "tensorflow.python.ops.array_ops_stack",
    "tensorflow.python.ops.weak_tensor_ops",
    "tensorflow.python.profiler.trace",
    "tensorflow.python.util.dispatch",
    "tensorflow.python.util.nest",
    "tensorflow.python.util.nest_util",
    "tensorflow.python.util.traceback_utils",
]
"""The modules between `tf.constant`, `tf.convert_to_tensor` or `tf.stack` and `_create_graph_constant`."""

_numbers = itertools.count()


def sinks(graph: tf.Graph) -> list[Any]:
    """Returns the open sinks of a graph; each has `tensor`, `future` (a ValueNode) and `is_asset_filepath`."""
    return list(graph.get_collection(analyzer_nodes.TENSOR_REPLACEMENTS))


def sources(graph: FuncGraph) -> dict[str, list[tf.Tensor]]:
    """Returns the tensors that each analyzer's result is computed from, by the name of the result's tensor."""
    return {sink.tensor.name: _sources(sink.future) for sink in graph.get_collection(analyzer_nodes.ALL_REPLACEMENTS)}


def _sources(value: ValueNode) -> list[tf.Tensor]:
    operation = value.parent_operation
    if isinstance(operation.operation_def, analyzer_nodes.TensorSource):
        return list(operation.operation_def.tensors)
    return [tensor for before in operation.inputs for tensor in _sources(before)]


def is_ptransform(operation: nodes.OperationDef) -> bool:
    """Returns whether an analyzer is a user-defined Beam PTransform."""
    return isinstance(operation, analyzer_nodes.PTransform)


def reserved_tokens(graph: FuncGraph, name: str) -> tf.Tensor:
    """Returns the tensor of a vocabulary's reserved tokens, `[tokens]` strings."""
    names = graph.get_collection(tf_utils._VOCABULARY_RESERVED_TOKENS_IDS)
    return graph.get_collection(tf_utils._VOCABULARY_RESERVED_TOKENS)[names.index(name)]


def asset_map(graph: Any) -> dict[str, str]:
    """Returns the vocabularies' file names by their keys."""
    return annotators.get_asset_annotations(graph)


def asset_paths(graph: FuncGraph) -> list[tf.Tensor]:
    """Returns the mutable list of paths of the files that a graph needs."""
    return graph.get_collection_ref(tf.compat.v1.GraphKeys.ASSET_FILEPATHS)


def missing_inputs(inputs: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Returns one row of zeros and empty strings for inputs of a graph."""
    return dict(tf2_utils.supply_missing_inputs(inputs, 1, list(names))) if names else {}


def ancestors(fetches: Sequence[tf.Tensor], cut: Collection[str] = ()) -> list[tf.Operation]:
    """Returns the ops that tensors depend on, by data or control. Stops at the tensors named in `cut`."""
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


def is_stateful(op_type: str) -> bool:
    """Returns whether ops of a type have side effects, or are unknown to TensorFlow."""
    definition = op_def_registry.get(op_type)
    return definition is None or definition.is_stateful


def is_plain(graph: tf.Graph) -> bool:
    """Returns whether an op created now would have no control dependency, device, colocation or scope attribute."""
    return not (
        graph._current_control_dependencies()
        or graph._control_flow_context is not None
        or graph._device_function_stack
        or graph._colocation_stack
        or graph._attr_scope_map
    )


def rewire(old: tf.Tensor, new: tf.Tensor) -> None:
    """Replaces `old` by `new` as the input of every op that takes it."""
    for op in old.consumers():
        for index, tensor in enumerate(op.inputs):
            if tensor is old:
                op._update_input(index, new)


def function_graph(definition: Any, captured: Sequence[tf.Tensor]) -> FuncGraph:
    """Returns the graph of a function in a SavedModel.

    Args:
        definition: The `FunctionDef`.
        captured: Values of the function's last inputs, which it captured when it was traced.
    """
    graph: Any = function_def_to_graph.function_def_to_graph(definition)
    for outer, inner in zip(captured, graph.inputs[len(graph.inputs) - len(captured) :], strict=True):
        graph.replace_capture(outer, inner)
    return graph


def saved_structure(proto: Any) -> Any:
    """Returns a structure of specs from a SavedModel's `StructuredValue`."""
    return nested_structure_coder.decode_proto(proto)


def drop_waits(op: tf.Operation) -> None:
    """Removes an op's control inputs, so that it no longer waits for other ops."""
    op._remove_all_control_inputs()


def _context() -> Any:
    return eager_context.context()


def define(
    graph: FuncGraph, ops: Sequence[tf.Operation], inputs: Sequence[tf.Tensor], outputs: Sequence[tf.Tensor]
) -> str:
    """Registers a graph's ops with TensorFlow as a function, and returns the function's name."""
    name = f"tidemill_subgraph_{next(_numbers)}"
    sources, results = ([tensor._as_tf_output() for tensor in tensors] for tensors in (inputs, outputs))
    with graph._c_graph.get() as c_graph:
        function = pywrap_tf_session.TF_GraphToFunction_wrapper(
            c_graph, name, False, [op._c_op for op in ops], sources, results, [], [], [], None, ""
        )
    _context().add_c_function(function)
    pywrap_tf_session.TF_DeleteFunction(function)
    return name


def remove_function(name: str) -> None:
    """Unregisters a function that `define` registered."""
    _context().remove_function(name)


def call(name: str, num_outputs: int, given: Sequence[tf.Tensor], attributes: tuple[Any, ...]) -> list[tf.Tensor]:
    """Calls a function that `define` registered, with `call_attributes`, on eager tensors."""
    return execute.execute(name, num_outputs, given, attributes, _context())


def call_attributes(*, is_exact: bool) -> tuple[Any, ...]:
    """Returns TensorFlow's default call attributes. If `is_exact`, they disable Grappler, as nothing is rounded."""
    config = _context().config
    config.allow_soft_placement = True
    config.graph_options.rewrite_options.disable_meta_optimizer = is_exact
    # This optimizer infers shapes and moves ops into the only branch that uses them, in a fifth of Grappler's time.
    config.graph_options.rewrite_options.disable_tfg_optimizer = True
    return "executor_type", "", "config_proto", config.SerializeToString()
