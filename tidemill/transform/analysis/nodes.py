"""Interpreter of TFT's analyzer graph: computes analyzer results from the results of the reductions.

Matches `tensorflow_transform/beam/analyzer_impls.py`, which cannot be imported without Beam.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_transform import analyzer_nodes, nodes

from tidemill.errors import Code, TidemillError
from tidemill.transform.analysis import vocabulary
from tidemill.transform.analysis.combine import combine_reduction
from tidemill.transform.analysis.count_store import CountStore
from tidemill.transform.analysis.per_key import KeyedOutputs, per_key_reduction
from tidemill.transform.analysis.reduction import Reduction
from tidemill.transform.analysis.vocabulary_table import VocabularyPairs
from tidemill.transform.rows.row_source import RowSource
from tidemill.transform.tft.trace import Sink, Trace

_ACCUMULATE = (
    analyzer_nodes.CacheableCombineAccumulate,
    analyzer_nodes.CacheableCombinePerKeyAccumulate,
    analyzer_nodes.VocabularyAccumulate,
)
_KNOWN = (
    *_ACCUMULATE,
    analyzer_nodes.TensorSource,
    analyzer_nodes.CacheableCombineMerge,
    analyzer_nodes.ExtractCombineMergeOutputs,
    analyzer_nodes.FlattenLists,
    analyzer_nodes.CacheableCombinePerKeyMerge,
    analyzer_nodes.CacheableCombinePerKeyFormatKeys,
    analyzer_nodes.CacheableCombinePerKeyFormatLarge,
    analyzer_nodes.ScaleAndFlattenPerKeyBucketBouandaries,
    analyzer_nodes.VocabularyMerge,
    analyzer_nodes.VocabularyPrune,
    analyzer_nodes.VocabularyCount,
    analyzer_nodes.VocabularyOrderAndWrite,
    analyzer_nodes.ExtractVocabularyReservedTokens,
)

Operation = nodes.OperationNode


def operations(sinks: Sequence[Sink]) -> Iterator[Operation]:
    """Yields each operation that sinks depend on once, after its inputs."""
    seen: set[int] = set()

    def visit(operation: Operation) -> Iterator[Operation]:
        if id(operation) in seen:
            return
        seen.add(id(operation))
        for value in operation.inputs:
            yield from visit(value.parent_operation)
        yield operation

    for sink in sinks:
        yield from visit(sink.node.parent_operation)


def refuse_unknown(sinks: Sequence[Sink]) -> None:
    """Rejects nodes that this module does not know.

    Raises:
        TidemillError: `unsupported`.
    """
    for operation in operations(sinks):
        definition = operation.operation_def
        if type(definition) not in _KNOWN:
            got = f"an analyzer of the kind {type(definition).__name__} ({definition.label})"
            raise TidemillError(Code.UNSUPPORTED, "preprocessing_fn", got, "use the beam engine")


def source_tensors(operation: Operation) -> tuple[tf.Tensor, ...]:
    """Returns the tensors that an accumulate operation takes from each batch."""
    (value,) = operation.inputs
    return tuple(value.parent_operation.operation_def.tensors)


def is_ready(sink: Sink, trace: Trace) -> bool:
    """Returns whether all tensors that a sink depends on can be computed."""
    sources = [o.operation_def for o in operations([sink]) if isinstance(o.operation_def, analyzer_nodes.TensorSource)]
    return all(trace.ready(tensor) for source in sources for tensor in source.tensors)


def is_accumulate(operation: Operation) -> bool:
    """Returns whether an operation reduces rows."""
    return isinstance(operation.operation_def, _ACCUMULATE)


def reduction(operation: Operation, trace: Trace, rows: RowSource, counts: CountStore) -> Reduction:
    """Returns the reduction of an accumulate operation.

    Raises:
        TidemillError: `unsupported`.
    """
    definition = operation.operation_def
    if isinstance(definition, analyzer_nodes.VocabularyAccumulate):
        return vocabulary.vocabulary_reduction(operation, trace, rows, counts)
    if isinstance(definition, analyzer_nodes.CacheableCombineAccumulate):
        return combine_reduction(definition.combiner, source_tensors(operation))
    return per_key_reduction(definition.combiner, source_tensors(operation))


class Interpreter:
    """An interpreter that computes the values of nodes. It reads the trace's graph only in the constructor.

    Args:
        trace: The trace of the nodes.
        reduced: The result of each accumulate operation's reduction.
        sinks: The sinks that `value` will compute.
    """

    def __init__(self, trace: Trace, reduced: Mapping[Operation, Any], sinks: Sequence[Sink]):
        self._trace = trace
        self._values: dict[nodes.ValueNode, Any] = {
            operation.outputs[0]: result for operation, result in reduced.items()
        }
        for operation in operations(sinks):
            if isinstance(operation.operation_def, analyzer_nodes.ExtractVocabularyReservedTokens):
                self._values[operation.outputs[0]] = trace.reserved_tokens(operation.operation_def.name)

    def value(self, sink: Sink) -> np.ndarray | Path:
        """Returns a sink's value: an array, or the path of the vocabulary file that was written."""
        value = self._value(sink.node)
        return value if sink.is_asset else np.asarray(value)

    def _value(self, node: nodes.ValueNode) -> Any:
        if node not in self._values:
            operation = node.parent_operation
            inputs = [self._value(value) for value in operation.inputs]
            self._values.update(zip(operation.outputs, self._run(operation.operation_def, inputs), strict=True))
        return self._values[node]

    def _run(self, definition: nodes.OperationDef, inputs: Sequence[Any]) -> Sequence[Any]:
        """Computes a node and returns its outputs."""
        match definition:
            case analyzer_nodes.CacheableCombineMerge() | analyzer_nodes.CacheableCombinePerKeyMerge():
                # The reduction has already merged and extracted.
                return inputs
            case analyzer_nodes.ExtractCombineMergeOutputs():
                return _checked(inputs[0], definition.num_outputs)
            case analyzer_nodes.FlattenLists():
                return [[item for output in inputs for item in output]]
            case analyzer_nodes.CacheableCombinePerKeyFormatKeys():
                return _format_keys(inputs[0], definition)
            case analyzer_nodes.CacheableCombinePerKeyFormatLarge():
                return [VocabularyPairs.of(_format_large(inputs[0]))]
            case analyzer_nodes.ScaleAndFlattenPerKeyBucketBouandaries():
                return _join_boundary_rows(inputs[0])
            case analyzer_nodes.VocabularyMerge():
                return [vocabulary.merge(definition, inputs[0])]
            case analyzer_nodes.VocabularyPrune():
                return [vocabulary.prune(definition, inputs[0])]
            case analyzer_nodes.VocabularyCount():
                return [vocabulary.vocabulary_size(inputs[0])]
            case analyzer_nodes.VocabularyOrderAndWrite():
                path = self._trace.vocabulary_path(definition.vocab_filename, definition.file_format)
                tokens = inputs[0]
                if isinstance(tokens, list):
                    tokens = VocabularyPairs.of(tokens)
                vocabulary.order_and_write(definition, tokens, path, inputs[1] if len(inputs) > 1 else None)
                return [path]
        raise ValueError(f"unknown node: {type(definition).__name__}")


def _checked(outputs: Sequence[Any], count: int) -> Sequence[Any]:
    if len(outputs) != count:
        raise ValueError(f"Analyzer has {count} outputs but its implementation produced {len(outputs)} values")
    return outputs


def _format_keys(keyed: KeyedOutputs, definition: analyzer_nodes.CacheableCombinePerKeyFormatKeys) -> list[np.ndarray]:
    """Returns the keys, then each output as an array by key, like `_merge_outputs_by_key` in TFT."""
    infos = definition.combiner.output_tensor_infos()
    outputs = _checked(keyed.outputs, len(infos))
    return [keyed.keys, *(o.astype(info.dtype.as_numpy_dtype) for o, info in zip(outputs, infos, strict=True))]


def _format_large(keyed: KeyedOutputs) -> list[tuple[str, bytes]]:
    """Returns pairs of a key's outputs, as text, and the key, like `_CombinePerKeyFormatLargeImpl` in TFT."""
    to_text = tf.compat.as_str_any
    return [(",".join(map(to_text, row)), key) for key, *row in zip(keyed.keys, *keyed.outputs, strict=True)]


def _join_boundary_rows(boundaries: np.ndarray) -> list[np.ndarray]:
    """Returns the quantile boundaries of all keys as one list, see `_join_boundary_rows` in TFT.

    Args:
        boundaries: `[keys, boundaries]`, each row increasing.

    Returns:
        The scaled and shifted boundaries, `[keys * (boundaries - 1) + 1]`; the scale and the shift of each key,
        `[keys]`; the number of buckets, a scalar int64.
    """
    boundaries = _strictly_increasing(boundaries)
    num_buckets = np.array(boundaries.shape[1] + 1, np.int64)
    lowest = np.min(boundaries, axis=1)
    extent = np.max(boundaries, axis=1) - lowest
    scale = np.divide(1.0, extent, out=np.ones_like(extent), where=extent != 0)
    shift = np.arange(scale.size, dtype=np.float32) - lowest * scale
    scaled = boundaries[:, 1:] * np.expand_dims(scale, axis=1) + np.expand_dims(shift, axis=1)
    return [np.insert(scaled.flatten(), 0, 0.0), scale, shift, num_buckets]


def _strictly_increasing(boundaries: np.ndarray) -> np.ndarray:
    """Returns rows without equal neighbours, like `_make_strictly_increasing_boundaries_rows` in TFT."""
    epsilon = 1e-6 * np.expand_dims(boundaries[:, -1] - boundaries[:, 0], 1)
    epsilon[epsilon <= 0] = 1e-6
    deltas = np.maximum(np.diff(boundaries, axis=1), epsilon)
    rest = np.cumsum(deltas, axis=1) + np.expand_dims(boundaries[:, 0], 1)
    return np.insert(rest, 0, boundaries[:, 0], axis=1)
