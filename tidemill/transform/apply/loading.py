"""Loads a transform graph's function without what only training and exporting need. Imports TensorFlow.

`tf.saved_model.load` restores each table as an object with three functions of its own, which takes a second for a few
dozen vocabularies. Where a SavedModel holds nothing but constants and tables of text files, as those of
`tft.compute_and_apply_vocabulary`, they are made directly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_transform import tf2_utils

from tidemill.transform.tft import private

_SAVED_MODEL = "saved_model.pb"
_FUNCTION = "transform_fn"
_TABLE, _FILL = "HashTableV2", "InitializeTableFromTextFileV2"
_IDLE = frozenset(["Const", "Identity", "NoOp"])


@dataclass(frozen=True)
class Loaded:
    """A function that was loaded.

    Attributes:
        graph: Its `FuncGraph`.
        inputs: Its inputs, placeholders or composite tensors of them, by name.
        outputs: Its outputs by name.
        owner: What the function's tables live as long as.
    """

    graph: tf.Graph
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    owner: object


def load(folder: Path) -> Loaded:
    """Loads `transform_fn` of a SavedModel.

    Args:
        folder: The SavedModel's folder.
    """
    return _Plain.load(folder) or _whole(folder)


def _whole(folder: Path) -> Loaded:
    model = tf.saved_model.load(str(folder))
    function = model.transform_fn
    inputs = tf2_utils.get_structured_inputs_from_func_graph(function.graph)
    outputs = _packed(function.structured_outputs, function.graph.outputs)
    return Loaded(function.graph, inputs, outputs, model)


def _packed(structure: Any, tensors: list[tf.Tensor]) -> Any:
    return tf.nest.pack_sequence_as(structure, tensors, expand_composites=True)


class _Unknown(Exception):
    """There is something in a SavedModel that is not known here."""


class _Plain:
    """A SavedModel of constants and tables of text files."""

    def __init__(self, folder: Path):
        model = saved_model_pb2.SavedModel()
        model.ParseFromString((folder / _SAVED_MODEL).read_bytes())
        if len(model.meta_graphs) != 1:
            raise _Unknown
        self._folder = folder
        self._meta = model.meta_graphs[0]
        self._objects = self._meta.object_graph_def
        self._functions = {function.signature.name: function for function in self._meta.graph_def.library.function}
        self._values = {node.name: node for node in self._meta.graph_def.node if node.op == "Const"}

    @classmethod
    def load(cls, folder: Path) -> Loaded | None:
        """The function; None where only TensorFlow's own loader may know what the SavedModel holds."""
        try:
            return cls(folder)._load()
        except _Unknown:
            return None

    def _load(self) -> Loaded:
        name = self._function(self._child(self._objects.nodes[0], _FUNCTION))
        concrete = self._objects.concrete_functions[name]
        # Functions that are called inside would have to be restored first.
        if any(a.HasField("func") or a.list.func for op in self._functions[name].node_def for a in op.attr.values()):
            raise _Unknown
        captured = [self._captured(index) for index in concrete.bound_inputs]
        graph = private.function_graph(self._functions[name], captured)
        (structure,), _ = private.saved_structure(concrete.canonicalized_input_signature)
        own = graph.inputs[: len(graph.inputs) - len(captured)]
        outputs = _packed(private.saved_structure(concrete.output_signature), graph.outputs)
        if not isinstance(structure, dict) or not isinstance(outputs, dict):
            raise _Unknown
        return Loaded(graph, _packed(structure, own), outputs, captured)

    def _captured(self, index: int) -> tf.Tensor:
        node = self._objects.nodes[index]
        if node.WhichOneof("kind") == "constant":
            return tf.constant(tf.make_ndarray(self._values[node.constant.operation].attr["value"].tensor))
        if node.WhichOneof("kind") == "resource":
            return self._table(node)
        raise _Unknown

    def _table(self, node: Any) -> tf.Tensor:
        """A new table with the content that the SavedModel's function would give it."""
        (create, _), (fill, inputs) = self._only_op(node, "_create_resource"), self._only_op(node, "_initialize")
        if (create.op, fill.op) != (_TABLE, _FILL):
            raise _Unknown
        assets = [part.asset for part in inputs if part.WhichOneof("kind") == "asset"]
        if len(assets) != 1 or len(inputs) != 2:
            raise _Unknown
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
        """The one op of a table's method that is not idle, and what the method captured."""
        name = self._function(self._child(node, method))
        ops = [op for op in self._functions[name].node_def if op.op not in _IDLE]
        if len(ops) != 1:
            raise _Unknown
        return ops[0], [self._objects.nodes[index] for index in self._objects.concrete_functions[name].bound_inputs]

    def _function(self, node: Any) -> str:
        if node.WhichOneof("kind") == "bare_concrete_function":
            return node.bare_concrete_function.concrete_function_name
        if node.WhichOneof("kind") == "function" and len(node.function.concrete_functions) == 1:
            return node.function.concrete_functions[0]
        raise _Unknown

    def _child(self, node: Any, name: str) -> Any:
        found: Mapping[str, int] = {child.local_name: child.node_id for child in node.children}
        if name not in found:
            raise _Unknown
        return self._objects.nodes[found[name]]
