"""A SavedModel of TensorFlow Transform, opened so that parts of its graph can be run. Imports TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import tensorflow as tf

from tidemill.transform.apply.effects import Effects
from tidemill.transform.apply.loading import load
from tidemill.transform.apply.ops import PYTHON
from tidemill.transform.tft import private
from tidemill.transform.tft.sections import Section

_FIND = "LookupTableFindV2"
TensorType = tf.Tensor | tf.SparseTensor | tf.RaggedTensor


class GraphFunction:
    """A part of a graph as a function. May be called from several threads.

    Attributes:
        inputs: The names of the raw inputs that it takes.
        feeds: The tensors inside the graph that it takes after them.
    """

    def __init__(self, section: Section, inputs: Sequence[str], feeds: Sequence[tf.Tensor]):
        self._section = section
        self.inputs = list(inputs)
        self.feeds = list(feeds)

    def __call__(self, inputs: Mapping[str, TensorType], feeds: Sequence[tf.Tensor] = ()) -> list[tf.Tensor]:
        """The fetched tensors, from raw inputs by name and the values of `feeds`."""
        flat = [part for name in self.inputs for part in parts(inputs[name])]
        return self._section([*flat, *feeds])


class SavedTransform:
    """The function of a transform graph.

    Args:
        folder: The SavedModel's folder.

    Attributes:
        graph: Its `FuncGraph`.
        inputs: The raw inputs' placeholders by name.
        outputs: The outputs by name.
    """

    def __init__(self, folder: str | os.PathLike):
        self._loaded = load(Path(folder))
        self.graph, self.inputs, self.outputs = self._loaded.graph, self._loaded.inputs, self._loaded.outputs
        _drop_waits(self.graph)
        self._tables = {inner.name: outer for outer, inner in self.graph.captures if inner.dtype == tf.resource}

    def function(self, fetches: Sequence[tf.Tensor], feeds: Sequence[tf.Tensor] = ()) -> GraphFunction:
        """A function that computes tensors of the graph.

        Args:
            fetches: The tensors.
            feeds: Tensors at which the graph is cut, to be given by the caller.
        """
        cut = {tensor.name for tensor in feeds}
        needed = {op.name for op in private.ancestors(fetches, cut)}
        names = [name for name, value in self.inputs.items() if any(p.op.name in needed for p in parts(value))]
        placeholders = [part for name in names for part in parts(self.inputs[name])]
        return GraphFunction(Section(self.graph, [*placeholders, *feeds], fetches), names, feeds)

    def table_size(self, table: str) -> int:
        """The number of a lookup table's keys; 0 where a tensor of the graph, given by its name, is no table."""
        handle = self._tables.get(table)
        return 0 if handle is None else int(tf.raw_ops.LookupTableSizeV2(table_handle=handle))

    def keys(self, table: str) -> pa.Array | None:
        """The keys of a lookup table.

        Args:
            table: The name of the graph's tensor of the table.

        Returns:
            Large binaries or int64; None where the tensor is no table of strings or int64 to int64.
        """
        handle = self._tables.get(table)
        finds = [op for op in self.graph.get_tensor_by_name(table).consumers() if op.type == _FIND]
        dtypes = {(op.inputs[1].dtype, op.outputs[0].dtype) for op in finds}
        if handle is None or len(dtypes) != 1:
            return None
        ((key, value),) = dtypes
        if key not in (tf.string, tf.int64) or value != tf.int64:
            return None
        keys, _ = tf.raw_ops.LookupTableExportV2(table_handle=handle, Tkeys=key, Tvalues=value)
        return pa.array(keys.numpy(), pa.large_binary() if key == tf.string else pa.int64())


def parts(value: TensorType) -> list[tf.Tensor]:
    """The tensors of a composite tensor."""
    return tf.nest.flatten(value, expand_composites=True)


def _drop_waits(graph: tf.Graph) -> None:
    """Lets no op wait for others that only compute.

    A tf.function lets what is stateful wait for each other, and its outputs for all of it: lookups too, and then each
    output would depend on all columns. What waits for an assertion still does.
    """
    effects = Effects()
    waiting = [op for op in graph.get_operations() if op.control_inputs]
    idle = [op for op in waiting if frozenset().union(*(effects.of(other) for other in op.control_inputs)) <= PYTHON]
    for op in idle:
        private.drop_waits(op)
