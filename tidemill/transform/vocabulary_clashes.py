"""Vocabularies of a preprocessing_fn that would overwrite each other's files. Imports TensorFlow."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import tensorflow as tf
from tensorflow_transform import analyzer_nodes, analyzers, nodes

_BY_FREQUENCY = (analyzers._VocabOrderingType.FREQUENCY, analyzers._VocabOrderingType.WEIGHTED_FREQUENCY)


def clash(graph: tf.Graph) -> tuple[str, str] | None:
    """Returns two different vocabularies with the same file, of which Beam's engine silently lets one overwrite the
    other.

    The same vocabulary twice, with equal tokens and equal arguments, is not a clash.

    Args:
        graph: The graph of a preprocessing_fn in which no analyzer has a result yet.

    Returns:
        The `vocab_filename` and the name of the second vocabulary's op. None if there is no clash.
    """
    made: dict[tuple[str, str], nodes.ValueNode] = {}
    for sink in graph.get_collection(analyzer_nodes.TENSOR_REPLACEMENTS):
        definition = sink.future.parent_operation.operation_def
        if not isinstance(definition, analyzer_nodes.VocabularyOrderAndWrite):
            continue
        first = made.setdefault((definition.vocab_filename, definition.file_format), sink.future)
        if first is not sink.future:
            same = _same_ops(graph)
            if _described(first, same) != _described(sink.future, same):
                return definition.vocab_filename, sink.tensor.op.name
    return None


def _described(value: nodes.ValueNode, same: dict[str, int]) -> tuple[Any, ...]:
    """Returns what an analyzer computes, without names."""
    operation = value.parent_operation
    definition = operation.operation_def
    if isinstance(definition, analyzer_nodes.TensorSource):
        return tuple((same[tensor.op.name], tensor.value_index) for tensor in definition.tensors)
    if isinstance(definition, analyzer_nodes.VocabularyMerge) and definition.vocab_ordering_type in _BY_FREQUENCY:
        # Only used with labels. TFT's functions have different defaults.
        definition = definition._replace(min_diff_from_avg=None)
    inputs = tuple(_described(each, same) for each in operation.inputs)
    return type(definition), definition._replace(label=""), value.value_index, inputs


def _same_ops(graph: tf.Graph) -> dict[str, int]:
    """Returns a number for each op, by its name. Ops that compute the same from the same inputs share a number."""
    numbers: dict[Hashable, int] = {}
    ids: dict[str, int] = {}
    for op in graph.get_operations():
        # A loop's inputs may be made after the ops that take them. Such an op is equal only to itself.
        known = all(tensor.op.name in ids for tensor in op.inputs)
        is_source = not op.inputs and op.type != "Const"
        attributes = tuple((key, str(value)) for key, value in sorted(op.node_def.attr.items()) if key[0] != "_")
        inputs = tuple((ids[tensor.op.name], tensor.value_index) for tensor in op.inputs) if known else None
        name = op.name if is_source or not known or op.op_def.is_stateful else None
        ids[op.name] = numbers.setdefault((op.type, attributes, inputs, name), len(numbers))
    return ids
