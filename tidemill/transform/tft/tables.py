"""Tables and variables of a traced graph: what to save of them, and what they hold. Imports TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tidemill.transform.tft import private
from tidemill.transform.tft.tracing import Traced, fill


def saved_resources(resources: Sequence[Any]) -> list[Any]:
    """The resources that a SavedModel must hold, made cheap to save.

    A table with buckets for unknown words is a shell around the table that the graph uses. And to save a table,
    TensorFlow traces three functions for it, of which the third does nothing; here there are two, made by hand.
    """
    kept = [r for r in resources if not (isinstance(r, private.StaticVocabularyTable) and r._table is not None)]
    for resource in kept:
        if isinstance(resource, private.InitializableTable):
            resource._trackable_children = functools.partial(_table_children, resource)
    return kept


def assets(paths: Sequence[tf.Tensor], resources: Sequence[Any]) -> list[tf.saved_model.Asset]:
    """The assets of files: the one that a table of the file has already, because another one takes as long to save.

    Args:
        paths: The files' paths; some may be tensors of a graph.
        resources: Where the tables are among.
    """
    fillers = [r._initializer for r in resources if isinstance(r, private.InitializableTable)]
    owned = [filler._filename for filler in fillers if isinstance(filler, private.TextFileInitializer)]
    known = {a.asset_path.numpy(): a for a in owned if not tf.is_symbolic_tensor(a.asset_path)}
    found = [None if tf.is_symbolic_tensor(path) else known.get(path.numpy()) for path in paths]
    return [asset or tf.saved_model.Asset(path) for asset, path in zip(found, paths, strict=True)]


def content(handle: tf.Tensor, traced: Traced) -> list[Any] | None:
    """What a table or variable holds, for a fingerprint; None where that cannot be told.

    Args:
        handle: The resource.
        traced: What made it.
    """
    fill(traced, handle)
    for variable in [*traced.variables, *traced.graph.variables]:
        if variable.handle is handle:
            return [variable.dtype.name, variable.shape, variable.numpy().tobytes()]
    for table in traced.resources:
        if isinstance(table, private.InitializableTable) and table.resource_handle is handle:
            return _table_content(table)
    return None


def _table_content(table: Any) -> list[Any] | None:
    dtypes = table.key_dtype, table.value_dtype
    try:
        keys, values = tf.raw_ops.LookupTableExportV2(
            table_handle=table.resource_handle, Tkeys=dtypes[0], Tvalues=dtypes[1]
        )
    except tf.errors.AbortedError:
        return None  # It is filled by an op of the graph, at each call.
    pairs = sorted(zip(keys.numpy().tolist(), values.numpy().tolist(), strict=True))
    return [dtypes[0].name, dtypes[1].name, table.default_value.numpy(), pairs]


class _Method(private.WrappedFunction):
    """A function without inputs that `tf.saved_model.save` takes for a tf.function."""

    def __init__(self, name: str, body: Callable[[], tf.Tensor]):
        graph = private.FuncGraph(name)
        with graph.as_default():
            output = body()
        graph.outputs.append(output)
        # Or a model that takes this one in, and calls this, would drop what has no result.
        graph.control_outputs.extend(op for op in graph.get_operations() if not op.outputs)
        graph.structured_outputs, graph.structured_input_signature = output, ((), {})
        super().__init__(graph, private.VariableHolder())
        self._num_positional_args, self._arg_keywords = 0, []

    def get_concrete_function(self) -> _Method:
        return self


def _table_children(table: Any, save_type: str = "checkpoint", **arguments: Any) -> dict[str, Any]:
    children = dict(private.Trackable._trackable_children(table, save_type, **arguments))
    if save_type == "savedmodel":

        def initialize() -> tf.Tensor:
            with tf.control_dependencies([table._initialize()]):
                return tf.constant(1)

        children["_create_resource"] = _Method("create_table", table._create_resource)
        children["_initialize"] = _Method("initialize_table", initialize)
    return children
