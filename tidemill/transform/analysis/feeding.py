"""How batches of rows are given to a part of a graph. Imports TensorFlow.

A flat column goes in as what the graph wants of it: its values, its indices, its shape, or the dense tensor that the
graph would make of these. An op costs the same for few rows as for some thousands, so batches are large where they may.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tidemill.transform.apply import ops
from tidemill.transform.apply.facts import ROWS, Facts, Shape
from tidemill.transform.rows import feeds
from tidemill.transform.rows.rows import Rows
from tidemill.transform.tft import private
from tidemill.transform.tft.trace import Trace

_LARGE = 8
"""How many batches make a large one."""
_PLAIN = ops.BROADCASTING | {
    *("All", "Any", "Const", "ExpandDims", "Fill", "GatherV2", "Identity", "IdentityN", "Max", "Min", "Pack"),
    *("Placeholder", "PlaceholderWithDefault", "Range", "RegexFullMatch", "Reshape", "Shape", "Size", "SparseToDense"),
    *("Squeeze", "StopGradient", "StridedSlice", "Unique", "UniqueV2", "UniqueWithCounts", "UniqueWithCountsV2"),
    "Where",
}
"""Ops that are as exact over many rows as over few, and whose result is no larger than their input."""


class _Part(NamedTuple):
    """A tensor of the graph that is computed from a flat column."""

    tensor: tf.Tensor
    column: str
    make: Callable[[pa.Array], tf.Tensor]


class Feeder:
    """Computes tensors of a trace's graph for batches of rows. May be called from several threads.

    Args:
        trace: The trace.
        rows: Where the batches are from.
        fetches: The tensors, each ready.

    Attributes:
        columns: The inputs whose columns a batch must have.
        batch_rows: The most rows that a batch should have. Sums of float32 lose digits where a batch is large, so it
            is larger than the rows' own only where the graph has no other sums than those of vectors, which
            TensorFlow adds up pairwise.
    """

    def __init__(self, trace: Trace, rows: Rows, fetches: Sequence[tf.Tensor]):
        self._rows = rows
        fetches = [trace.current(tensor) for tensor in fetches]
        self._parts = _parts(trace, rows, fetches)
        self._function = trace.function(list(fetches), [part.tensor for part in self._parts])
        flat = dict.fromkeys(part.column for part in self._parts)
        self.columns = [*self._function.inputs, *flat]
        self.batch_rows = rows.batch_rows * (_LARGE if is_exact(fetches, trace, rows) else 1)

    def __call__(self, batch: pa.RecordBatch) -> list[np.ndarray]:
        """The tensors' values."""
        typed = functools.cache(lambda column: self._rows.typed(batch, column))
        parts = [part.make(typed(part.column)) for part in self._parts]
        inputs = self._rows.feed(batch, self._function.inputs)
        return [value.numpy() for value in self._function(inputs, parts)]


def is_exact(fetches: Sequence[tf.Tensor], trace: Trace, rows: Rows) -> bool:
    """Whether tensors can be computed for many rows at a time without a loss of digits, and without much memory."""
    before = private.ancestors([trace.current(tensor) for tensor in fetches])
    names = {op.name for op in before}
    lists = [value for name, value in trace.inputs.items() if not rows.is_flat(name)]
    if any(part.op.name in names for part in tf.nest.flatten(lists, expand_composites=True)):
        return False
    return all(op.type in _PLAIN or _is_exact_sum(op) for op in before)


def _is_exact_sum(op: tf.Operation) -> bool:
    return op.type == "Sum" and (op.inputs[0].shape.rank in (0, 1) or op.inputs[0].dtype.is_integer)


def _parts(trace: Trace, rows: Rows, fetches: Sequence[tf.Tensor]) -> list[_Part]:
    flat = {name: value for name, value in trace.inputs.items() if rows.is_flat(name)}
    facts = Facts(trace.graph, flat, is_width_one=False)
    dense = [part for op in private.ancestors(fetches) if (part := _dense_part(op, flat, facts))]
    needed = {op.name for op in private.ancestors(fetches, {part.tensor.name for part in dense})}
    parts = dense
    for name, value in flat.items():
        makes = [(value.values, feeds.values), (value.indices, feeds.indices), (value.dense_shape, feeds.shape)]
        parts += [_Part(tensor, name, make) for tensor, make in makes if tensor.op.name in needed]
    return parts


def _dense_part(op: tf.Operation, flat: Mapping[str, tf.SparseTensor], facts: Facts) -> _Part | None:
    """The dense tensor of a flat column, where an op makes one with a constant for missing values."""
    if op.type != "SparseToDense":
        return None
    indices, shape, values = (_origin(tensor) for tensor in list(op.inputs)[:3])
    for name, value in flat.items():
        if (indices.name, values.name) == (value.indices.name, value.values.name):
            is_width_one = facts.of(shape) == Shape((ROWS, 1))
            fill = facts.value(op.inputs[3])
            if fill is None or not (is_width_one or shape.name == value.dense_shape.name):
                return None
            make = functools.partial(feeds.dense, default=fill.item(), is_width_one=is_width_one)
            return _Part(op.outputs[0], name, make)
    return None


def _origin(tensor: tf.Tensor) -> tf.Tensor:
    """What a tensor is a copy of."""
    while tensor.op.type == "Identity":
        (tensor,) = tensor.op.inputs
    return tensor
