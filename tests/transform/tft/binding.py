"""Binds the sinks of a trace phase by phase, and returns rows to transform."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_transform import analyzer_nodes, impl_helper

from tests.transform.tft import functions
from tidemill.transform.tft.trace import Sink, Trace

SPECS = impl_helper.get_type_specs_from_feature_specs(functions.FEATURE_SPEC)
WORDS = ["a", "dd", "größe", "x y"]


def sources(node: Any) -> list[tf.Tensor]:
    """Returns the tensors that an analyzer reads."""
    operation = node.parent_operation
    if isinstance(operation.operation_def, analyzer_nodes.TensorSource):
        return list(operation.operation_def.tensors)
    return [tensor for value in operation.inputs for tensor in sources(value)]


def bind_phases(trace: Trace, value: Callable[[Sink], np.ndarray | Path]) -> list[list[str]]:
    """Binds all sinks; a phase binds those whose inputs depend on no other sink.

    Returns:
        The names of the sinks for each phase.
    """
    phases = []
    while trace.sinks:
        ready = [sink for sink in trace.sinks if all(trace.ready(tensor) for tensor in sources(sink.node))]
        assert ready, "no sink is ready"
        tensors = [tensor for sink in ready for tensor in sources(sink.node)]
        if tensors:
            function = trace.function(tensors)
            function({name: batch()[name] for name in function.inputs})
        trace.bind({sink.name: value(sink) for sink in ready})
        phases.append([sink.name for sink in ready])
    return phases


def invented_values(trace: Trace) -> Callable[[Sink], np.ndarray | Path]:
    """Returns a function that invents analyzer results: constants, and vocabularies of `WORDS` or of 1 to 4."""

    def value(sink: Sink) -> np.ndarray | Path:
        if sink.is_asset:
            return _vocabulary(trace, sink)
        shape = [] if sink.tensor.shape.rank is None else [n or len(WORDS) for n in sink.tensor.shape.as_list()]
        if sink.tensor.dtype == tf.string:
            return np.array(WORDS, object)[: shape[0]]
        return (np.arange(np.prod(shape, dtype=int)) + 4).reshape(shape).astype(sink.tensor.dtype.as_numpy_dtype)

    return value


def _vocabulary(trace: Trace, sink: Sink) -> Path:
    definition = sink.node.parent_operation.operation_def
    path = trace.vocabulary_path(definition.vocab_filename, definition.file_format)
    lines = WORDS if definition.input_dtype == "string" else ["1", "2", "3", "4"]
    if definition.store_frequency:
        # Statistics per key are two numbers, in place of the frequency.
        lines = [f"{9 - n},2 {line}" for n, line in enumerate(lines)]
    if definition.file_format == "text":
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    else:
        with tf.io.TFRecordWriter(str(path), "GZIP") as file:
            for line in lines:
                file.write(line.encode())
    return path


def batch(count: int = 12) -> dict[str, Any]:
    """Returns rows as the tensors that the functions read."""
    rows = functions.rows(count)
    lists = {name: [row[name] for row in rows] for name in rows[0]}
    dense = {n: tf.constant(lists[n], SPECS[n].dtype) for n in ("x", "i", "m", "key", "s")}
    ragged = {n: tf.ragged.constant(lists[n], SPECS[n].dtype).to_sparse() for n in ("words", "ints")}
    at = [[n, index] for n, row in enumerate(rows) for index in row["sparse_index"]]
    values = [value for row in rows for value in row["sparse_value"]]
    indices = tf.reshape(tf.constant(at, tf.int64), [-1, 2])
    sparse = tf.SparseTensor(indices, tf.constant(values, tf.float32), [count, 10])
    texts = tf.ragged.constant(lists["ragged_values"], tf.string, row_splits_dtype=tf.int64)
    return {**dense, **ragged, "sparse": sparse, "ragged": texts}
