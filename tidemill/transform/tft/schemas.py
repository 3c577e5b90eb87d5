"""The schema of what a preprocessing_fn returns, from the one trace of it. Imports TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2

from tidemill.transform.tft import private
from tidemill.transform.tft.tracing import Traced


def check_outputs(traced: Traced) -> None:
    """Refuses what a preprocessing_fn must not return, as TFT does on Beam.

    Raises:
        ValueError: no dict, an empty one, a dtype or shape that no feature can have, or trainable variables.
        TypeError: an output that is no tensor.
    """
    outputs = traced.outputs
    if not isinstance(outputs, dict):
        want = "Dict[str, Union[tf.Tensor, tf.SparseTensor, tf.RaggedTensor]]"
        raise ValueError(f"A `preprocessing_fn` must return a {want}. Got: {outputs}")
    if not outputs:
        raise ValueError("The preprocessing function returned an empty dict")
    if traced.trainable:
        raise ValueError(f"The preprocessing function contained trainable variables {traced.trainable}")
    private.infer_schema(outputs, {}, {}, [], None, is_evaluation_complete=False)


def schema(
    traced: Traced, outputs: Mapping[str, Any], evaluate: Callable[[Sequence[tf.Tensor]], list[Any]]
) -> schema_pb2.Schema:
    """The schema of the transformed features, with ranges, annotations and the shapes of sparse outputs.

    TFT traces the function anew for this. The notes that it leaves in the graph are about the tensors that the function
    returned, and those are known from the first trace.

    Args:
        traced: The traced function, with all results bound.
        outputs: Its outputs with the shapes that they have now.
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
