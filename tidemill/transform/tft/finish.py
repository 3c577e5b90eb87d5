"""Writes what TFT's WriteTransformFn writes: the SavedModel and the transformed schema. Imports TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf
from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io

from tidemill.transform.graph import TRANSFORM_FN, TRANSFORMED_METADATA
from tidemill.transform.tft import private, schemas, tables
from tidemill.transform.tft.pruning import prune
from tidemill.transform.tft.shortcuts import quick_ops
from tidemill.transform.tft.trace import TensorType, Trace
from tidemill.transform.tft.tracing import Traced

_ASSET_MAP = "asset_map"


@quick_ops()
def save(trace: Trace, folder: Path) -> None:
    """Writes `transform_fn/` and `transformed_metadata/`, which `tft.TFTransformOutput(folder)` opens.

    Args:
        trace: A trace of which all sinks are bound.
        folder: An existing folder.

    Raises:
        ValueError: An output has a dtype or shape that a feature cannot have.
    """
    if trace.sinks:
        raise ValueError(f"sinks are not bound: {[sink.name for sink in trace.sinks]}")
    function = _transform_fn(trace.traced)
    if _has_unknown_width(function.structured_outputs):
        # A branch or a loop keeps the shapes that it was traced with.
        trace.retrace()
        function = _transform_fn(trace.traced)
    schema = schemas.schema(trace.traced, function.structured_outputs, trace.evaluate)
    # Nobody trains through a transform graph, and looking for gradients visits every op. The signature that
    # TensorFlow makes by default knows the inputs by their number alone.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(_module(trace, function), str(folder / TRANSFORM_FN), signatures={}, options=options)
    metadata = folder / TRANSFORMED_METADATA
    metadata_io.write_metadata(dataset_metadata.DatasetMetadata(schema), str(metadata))
    if assets := private.asset_map(trace.graph):
        (metadata / _ASSET_MAP).write_text(json.dumps(assets), encoding="utf-8")


def _transform_fn(traced: Traced) -> tf.types.experimental.ConcreteFunction:
    graph = traced.graph
    captured = {inner.name for _, inner in graph.captures}
    inputs = [tensor for tensor in graph.inputs if tensor.name not in captured]
    return prune(graph, inputs, traced.outputs, graph.structured_input_signature)


def _has_unknown_width(outputs: Mapping[str, TensorType]) -> bool:
    return any(isinstance(o, tf.Tensor) and None in o.shape.as_list()[1:] for o in outputs.values())


def _module(trace: Trace, function: tf.types.experimental.ConcreteFunction) -> tf.Module:
    """What TFT saves: the function as `transform_fn`, and everything that it needs under the names TFT gives it."""
    traced = trace.traced
    module = traced.module
    module.transform_fn = function
    module.pruned_variables = function.variables
    module.created_variables = traced.variables
    module.resources = tables.saved_resources(traced.resources)
    module.trackable_objects = traced.objects
    module.assets = tables.assets(private.asset_paths(traced.graph), traced.resources)
    return module
