"""A SavedModel of TensorFlow Transform, opened so that parts of its graph can be run. Imports TensorFlow.

`tf.saved_model.load` restores each table as an object with three functions, which takes a second for a few dozen
vocabularies. A SavedModel that holds only constants and tables of text files, as `tft.compute_and_apply_vocabulary`
makes them, is loaded directly.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform import impl_helper, tf2_utils

from tidemill.transform.apply.ops import PYTHON, Effects
from tidemill.transform.rows.row_source import RowSource, Unit
from tidemill.transform.tft import private
from tidemill.transform.tft.subgraph import GraphFunction, Subgraph, parts

_FIND = "LookupTableFindV2"


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
        """Returns a function that computes tensors of the graph.

        Args:
            fetches: The tensors.
            feeds: Tensors at which the graph is cut, whose values the caller passes.
        """
        cut = {tensor.name for tensor in feeds}
        needed = {op.name for op in private.ancestors(fetches, cut)}
        names = [name for name, value in self.inputs.items() if any(p.op.name in needed for p in parts(value))]
        placeholders = [part for name in names for part in parts(self.inputs[name])]
        return GraphFunction(Subgraph(self.graph, [*placeholders, *feeds], fetches), names, feeds)

    def table_size(self, table: str) -> int:
        """Returns the number of keys of a lookup table, by the name of its tensor; 0 if the tensor is not a table."""
        handle = self._tables.get(table)
        return 0 if handle is None else int(tf.raw_ops.LookupTableSizeV2(table_handle=handle))

    def keys(self, table: str) -> pa.Array | None:
        """Returns the keys of a lookup table.

        Args:
            table: The name of the table's tensor in the graph.

        Returns:
            Large binaries or int64; None if the tensor is not a table of strings or int64 to int64.
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


def _drop_waits(graph: tf.Graph) -> None:
    """Removes control dependencies on ops that only compute.

    A tf.function makes stateful ops, including lookups, wait for each other, and its outputs for all of them. Each
    output would then depend on all columns. Control dependencies on assertions stay.
    """
    effects = Effects()
    waiting = [op for op in graph.get_operations() if op.control_inputs]
    idle = [op for op in waiting if frozenset().union(*(effects.of(other) for other in op.control_inputs)) <= PYTHON]
    for op in idle:
        private.drop_waits(op)


_SAVED_MODEL = "saved_model.pb"
_FUNCTION = "transform_fn"
_TABLE, _FILL = "HashTableV2", "InitializeTableFromTextFileV2"
_IDLE = frozenset(["Const", "Identity", "NoOp"])


@dataclass(frozen=True)
class LoadedFunction:
    """A function that was loaded.

    Attributes:
        graph: Its `FuncGraph`.
        inputs: Its inputs by name, placeholders or composite tensors of them.
        outputs: Its outputs by name.
        owner: Keeps the function's tables alive.
    """

    graph: private.FuncGraph
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    owner: object


def load(folder: Path) -> LoadedFunction:
    """Loads `transform_fn` of a SavedModel.

    Args:
        folder: The SavedModel's folder.
    """
    return _PlainSavedModel.load(folder) or _whole(folder)


def _whole(folder: Path) -> LoadedFunction:
    model = tf.saved_model.load(str(folder))
    function = model.transform_fn
    inputs = dict(tf2_utils.get_structured_inputs_from_func_graph(function.graph))
    outputs = _packed(function.structured_outputs, function.graph.outputs)
    return LoadedFunction(function.graph, inputs, outputs, model)


def _packed(structure: Any, tensors: list[tf.Tensor]) -> Any:
    return tf.nest.pack_sequence_as(structure, tensors, expand_composites=True)


class _NotPlain(Exception):
    """The error for a SavedModel that only TensorFlow's loader can load."""


class _PlainSavedModel:
    """A SavedModel of constants and tables of text files."""

    def __init__(self, folder: Path):
        model = saved_model_pb2.SavedModel()
        model.ParseFromString((folder / _SAVED_MODEL).read_bytes())
        if len(model.meta_graphs) != 1:
            raise _NotPlain
        self._folder = folder
        self._meta = model.meta_graphs[0]
        self._objects = self._meta.object_graph_def
        self._functions = {function.signature.name: function for function in self._meta.graph_def.library.function}
        self._values = {node.name: node for node in self._meta.graph_def.node if node.op == "Const"}

    @classmethod
    def load(cls, folder: Path) -> LoadedFunction | None:
        """Returns the function; None if only TensorFlow's loader may be able to load the SavedModel."""
        try:
            return cls(folder)._load()
        except _NotPlain:
            return None

    def _load(self) -> LoadedFunction:
        name = self._function(self._child(self._objects.nodes[0], _FUNCTION))
        concrete = self._objects.concrete_functions[name]
        # Functions called inside would have to be restored first.
        if any(a.HasField("func") or a.list.func for op in self._functions[name].node_def for a in op.attr.values()):
            raise _NotPlain
        captured = [self._captured(index) for index in concrete.bound_inputs]
        graph = private.function_graph(self._functions[name], captured)
        (structure,), _ = private.saved_structure(concrete.canonicalized_input_signature)
        own = graph.inputs[: len(graph.inputs) - len(captured)]
        outputs = _packed(private.saved_structure(concrete.output_signature), graph.outputs)
        if not isinstance(structure, dict) or not isinstance(outputs, dict):
            raise _NotPlain
        return LoadedFunction(graph, _packed(structure, own), outputs, captured)

    def _captured(self, index: int) -> tf.Tensor:
        node = self._objects.nodes[index]
        if node.WhichOneof("kind") == "constant":
            return tf.constant(tf.make_ndarray(self._values[node.constant.operation].attr["value"].tensor))
        if node.WhichOneof("kind") == "resource":
            return self._table(node)
        raise _NotPlain

    def _table(self, node: Any) -> tf.Tensor:
        """Returns a new table with the content that the SavedModel's function would give it."""
        (create, _), (fill, inputs) = self._only_op(node, "_create_resource"), self._only_op(node, "_initialize")
        if (create.op, fill.op) != (_TABLE, _FILL):
            raise _NotPlain
        assets = [part.asset for part in inputs if part.WhichOneof("kind") == "asset"]
        if len(assets) != 1 or len(inputs) != 2:
            raise _NotPlain
        path = self._folder / "assets" / self._meta.asset_file_def[assets[0].asset_file_def_index].filename
        handle = tf.raw_ops.AnonymousHashTable(
            key_dtype=create.attr["key_dtype"].type, value_dtype=create.attr["value_dtype"].type
        )
        tf.raw_ops.InitializeTableFromTextFileV2(
            table_handle=handle,
            filename=str(path),
            key_index=fill.attr["key_index"].i,
            value_index=fill.attr["value_index"].i,
            vocab_size=fill.attr["vocab_size"].i if "vocab_size" in fill.attr else -1,
            delimiter=fill.attr["delimiter"].s if "delimiter" in fill.attr else "\t",
            offset=fill.attr["offset"].i,
        )
        return handle

    def _only_op(self, node: Any, method: str) -> tuple[Any, list[Any]]:
        """Returns the only op of a table's method that is not idle, and what the method captured."""
        name = self._function(self._child(node, method))
        ops = [op for op in self._functions[name].node_def if op.op not in _IDLE]
        if len(ops) != 1:
            raise _NotPlain
        return ops[0], [self._objects.nodes[index] for index in self._objects.concrete_functions[name].bound_inputs]

    def _function(self, node: Any) -> str:
        if node.WhichOneof("kind") == "bare_concrete_function":
            return node.bare_concrete_function.concrete_function_name
        if node.WhichOneof("kind") == "function" and len(node.function.concrete_functions) == 1:
            return node.function.concrete_functions[0]
        raise _NotPlain

    def _child(self, node: Any, name: str) -> Any:
        children: Mapping[str, int] = {child.local_name: child.node_id for child in node.children}
        if name not in children:
            raise _NotPlain
        return self._objects.nodes[children[name]]


class BatchTransformer:
    """A transform graph that TensorFlow runs batch by batch, without a plan. Several threads may use it.

    Args:
        folder: Holds `transform_fn/` and `transformed_metadata/`. Outputs may be dense in any number of dimensions,
            sparse or ragged.

    Attributes:
        inputs: Names of the raw inputs that it needs.
        schema: The schema of the outputs.
    """

    def __init__(self, folder: Path):
        output = tft.TFTransformOutput(str(folder))
        self._saved = SavedTransform(output.transform_savedmodel_dir)
        self.schema: schema_pb2.Schema = output.transformed_metadata.schema
        self._converter = impl_helper.make_tensor_to_arrow_converter(self.schema)
        self._outputs = dict(self._saved.outputs)
        self._function = self._saved.function(tf.nest.flatten(list(self._outputs.values()), expand_composites=True))
        self.inputs = self._function.inputs

    def unit(self, rows: RowSource, unit: Unit) -> Iterator[pa.RecordBatch]:
        """Transforms a unit of rows.

        Args:
            rows: Rows with the inputs that the graph was made for.
            unit: One of their units.

        Yields:
            A record batch for each batch of the unit, equal to the result of `tft_beam.TransformDataset` for the batch.
        """
        for batch in unit.batches(self.inputs):
            flat = self._function(rows.feed(batch, self.inputs))
            tensors = tf.nest.pack_sequence_as(list(self._outputs.values()), flat, expand_composites=True)
            yield self._converter.convert(dict(zip(self._outputs, tensors, strict=True)))

    def empty(self) -> pa.RecordBatch:
        """Returns a batch without rows, with the columns of the outputs."""
        return pa.RecordBatch.from_pylist([], schema=self._converter.arrow_schema())
