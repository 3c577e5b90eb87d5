"""The files of TFT's WriteTransformFn, written from a trace: the SavedModel and the transformed schema. Imports
TensorFlow."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io

from tidemill.transform.graph import TRANSFORM_FN, TRANSFORMED_METADATA
from tidemill.transform.tft import private
from tidemill.transform.tft.shortcuts import quick_ops
from tidemill.transform.tft.subgraph import TensorType, prune
from tidemill.transform.tft.trace import Trace
from tidemill.transform.tft.traced_function import TracedFunction

_ASSET_MAP = "asset_map"


@quick_ops()
def save(trace: Trace, folder: Path) -> None:
    """Writes `transform_fn/` and `transformed_metadata/`, which `tft.TFTransformOutput(folder)` opens.

    Args:
        trace: A trace whose sinks are all bound.
        folder: An existing folder.

    Raises:
        ValueError: An output has a dtype or shape that a feature cannot have.
    """
    if trace.sinks:
        raise ValueError(f"sinks are not bound: {[sink.name for sink in trace.sinks]}")
    function = _transform_fn(trace.traced)
    if _has_unknown_width(function.structured_outputs):
        # A branch or a loop keeps the shapes with which it was traced.
        trace.retrace()
        function = _transform_fn(trace.traced)
    schema = output_schema(trace.traced, function.structured_outputs, trace.evaluate)
    # Nobody trains through a transform graph, and looking for gradients visits every op. TensorFlow's default signature
    # would name the inputs only by number.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(_module(trace, function), str(folder / TRANSFORM_FN), signatures={}, options=options)
    metadata = folder / TRANSFORMED_METADATA
    metadata_io.write_metadata(dataset_metadata.DatasetMetadata(schema), str(metadata))
    if assets := private.asset_map(trace.graph):
        (metadata / _ASSET_MAP).write_text(json.dumps(assets), encoding="utf-8")


def _transform_fn(traced: TracedFunction) -> private.WrappedFunction:
    graph = traced.graph
    captured = {inner.name for _, inner in graph.captures}
    inputs = [tensor for tensor in graph.inputs if tensor.name not in captured]
    return prune(graph, inputs, traced.outputs, graph.structured_input_signature)


def _has_unknown_width(outputs: Mapping[str, TensorType]) -> bool:
    return any(isinstance(o, tf.Tensor) and None in o.shape.as_list()[1:] for o in outputs.values())


def _module(trace: Trace, function: private.WrappedFunction) -> tf.Module:
    """Returns the module that TFT saves: the function as `transform_fn`, and what it needs, under TFT's names."""
    traced = trace.traced
    module: Any = traced.module
    module.transform_fn = function
    module.pruned_variables = function.variables
    module.created_variables = traced.variables
    module.resources = saved_resources(traced.resources)
    module.trackable_objects = traced.objects
    module.assets = assets(private.asset_paths(traced.graph), traced.resources)
    return module


def output_schema(
    traced: TracedFunction, outputs: Mapping[str, Any], evaluate: Callable[[Sequence[tf.Tensor]], list[Any]]
) -> schema_pb2.Schema:
    """Returns the schema of the transformed features, with ranges, annotations and the shapes of sparse outputs.

    TFT traces the function again for this. Here the annotations come from the first trace, whose graph holds them for
    the tensors that the function returned.

    Args:
        traced: The traced function, with all results bound.
        outputs: Its outputs with their current shapes.
        evaluate: Computes tensors of the graph.
    """
    graph = traced.graph
    names = private.keys_by_tensor(traced.returned)
    ranges = private.schema_overrides(graph, names, private.OVERRIDDEN, [private.OVERRIDE_MIN, private.OVERRIDE_MAX])
    notes = private.schema_overrides(
        graph,
        names,
        private.ANNOTATED,
        [private.ANNOTATION_URL, private.ANNOTATION_PROTO],
        private.ANNOTATED_SCHEMA,
    )
    with graph.as_default():
        sparse = private.sparse_annotations(graph, names)
    groups = [
        ranges[private.OVERRIDE_MIN],
        ranges[private.OVERRIDE_MAX],
        notes[private.ANNOTATION_URL],
        notes[private.ANNOTATION_PROTO],
        list(sparse.values()),
    ]
    values = iter(evaluate([tensor for group in groups for tensor in group]))
    lows, highs, urls, protos, sizes = ([next(values) for _ in group] for group in groups)
    of_features, of_schema = private.schema_annotations(notes[private.ANNOTATED], urls, protos)
    return private.infer_schema(
        outputs,
        dict(zip(ranges[private.OVERRIDDEN], zip(lows, highs, strict=True), strict=True)),
        of_features,
        of_schema,
        {name: list(size) for name, size in zip(sparse, sizes, strict=True)},
        is_evaluation_complete=True,
    )


def saved_resources(resources: Sequence[Any]) -> list[Any]:
    """Returns the resources that a SavedModel must hold, made cheap to save.

    A table with buckets for unknown words is a shell around the table that the graph uses. To save a table, TensorFlow
    traces three functions, of which the third does nothing. Here two functions are made by hand.
    """
    kept = [r for r in resources if not (isinstance(r, private.StaticVocabularyTable) and r._table is not None)]
    for resource in kept:
        if isinstance(resource, private.InitializableTable):
            resource._trackable_children = functools.partial(_table_children, resource)
    return kept


def assets(paths: Sequence[tf.Tensor], resources: Sequence[Any]) -> list[tf.saved_model.Asset]:
    """Returns the assets of files. Reuses the asset that a table of the file has, because saving another takes as long.

    Args:
        paths: The files' paths; some may be tensors of a graph.
        resources: Resources, among them the tables.
    """
    initializers = [r._initializer for r in resources if isinstance(r, private.InitializableTable)]
    owned = [
        initializer._filename for initializer in initializers if isinstance(initializer, private.TextFileInitializer)
    ]
    known = {a.asset_path.numpy(): a for a in owned if not tf.is_symbolic_tensor(a.asset_path)}
    existing = [None if tf.is_symbolic_tensor(path) else known.get(path.numpy()) for path in paths]
    return [asset or tf.saved_model.Asset(path) for asset, path in zip(existing, paths, strict=True)]


class _SavedMethod(private.WrappedFunction):
    """A function without inputs, which `tf.saved_model.save` accepts as a tf.function."""

    def __init__(self, name: str, body: Callable[[], tf.Tensor]):
        graph = private.FuncGraph(name)
        with graph.as_default():
            output = body()
        graph.outputs.append(output)
        # Otherwise a model that embeds this one, and calls this function, would drop ops without a result.
        graph.control_outputs.extend(op for op in graph.get_operations() if not op.outputs)
        graph.structured_outputs, graph.structured_input_signature = output, ((), {})
        super().__init__(graph, private.VariableHolder())
        self._num_positional_args, self._arg_keywords = 0, []

    def get_concrete_function(self) -> _SavedMethod:
        return self


def _table_children(table: Any, save_type: str = "checkpoint", **arguments: Any) -> dict[str, Any]:
    children = dict(private.Trackable._trackable_children(table, save_type, **arguments))
    if save_type == "savedmodel":

        def initialize() -> tf.Tensor:
            with tf.control_dependencies([table._initialize()]):
                return tf.constant(1)

        children["_create_resource"] = _SavedMethod("create_table", table._create_resource)
        children["_initialize"] = _SavedMethod("initialize_table", initialize)
    return children
