"""The canonical form of a transform graph, whose bytes depend only on its content. Imports TensorFlow.

Four things vary between equal graphs: TFT writes the name of a temporary folder into the shared names of lookup tables,
TensorFlow orders the nodes of a pruned function by their memory addresses, it numbers functions within a process, and
`fingerprint.pb` holds a random number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from tidemill import fingerprint

_SAVED_MODEL = "saved_model.pb"
_RANDOM = "fingerprint.pb"
_NUMBERED = re.compile(r"(?P<name>.*)_(?P<number>[0-9]+)")
_TABLE_PATH = re.compile(rb"hash_table_tf\.Tensor\(b'(?P<folder>[^']*/)(?P<file>[^'/]*)'")


def canonicalize(saved_model: Path) -> None:
    """Rewrites a SavedModel that TensorFlow Transform wrote, without changing what it computes.

    Functions are renumbered, and nodes and functions are sorted by name. This is safe, because they refer to each other
    by name. `fingerprint.pb` is removed. A table's shared name gets the fingerprint of its vocabulary, so that models
    in one process share a table only if its content is the same. Settings of the process that wrote the model are
    removed.

    Args:
        saved_model: The SavedModel's folder.
    """
    model = saved_model_pb2.SavedModel()
    model.ParseFromString((saved_model / _SAVED_MODEL).read_bytes())
    content = {path.name: fingerprint.of_file(path) for path in (saved_model / "assets").glob("*")}
    for meta_graph in model.meta_graphs:
        graph = meta_graph.graph_def
        _number_functions(meta_graph)
        _sort(graph.node)
        _sort(graph.library.function, key=lambda function: function.signature.name)
        for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
            for node in nodes:
                _rename_table(node, content)
                # The settings of the writing process, such as its number of threads.
                node.attr.pop("config_proto", None)
        for function in graph.library.function:
            _sort(function.node_def)
    (saved_model / _SAVED_MODEL).write_bytes(model.SerializeToString(deterministic=True))
    (saved_model / _RANDOM).unlink(missing_ok=True)


def _number_functions(meta_graph: meta_graph_pb2.MetaGraphDef) -> None:
    """Renumbers the functions from 0, in the order in which TensorFlow made them."""
    functions = meta_graph.graph_def.library.function
    numbered = [match for f in functions if (match := _NUMBERED.fullmatch(f.signature.name))]
    numbered.sort(key=lambda match: int(match["number"]))
    names = {match[0]: f"{match['name']}_{index}" for index, match in enumerate(numbered)}
    if not names:
        return
    longest_first = sorted(names, key=len, reverse=True)
    pattern = re.compile("(?:" + "|".join(map(re.escape, longest_first)) + ")(?![0-9])")

    def renamed(text: str) -> str:
        return pattern.sub(lambda match: names[match[0]], text)

    _rename_nodes(meta_graph.graph_def.node, renamed)
    for function in functions:
        signature = function.signature
        signature.name = renamed(signature.name)
        # A loop's body has arguments named after the loop.
        for argument in (*signature.input_arg, *signature.output_arg):
            argument.name = renamed(argument.name)
        _rename_nodes(function.node_def, renamed)
        results = {renamed(key): renamed(value) for key, value in function.ret.items()}
        function.ret.clear()
        function.ret.update(results)
    objects = meta_graph.object_graph_def
    for name in list(objects.concrete_functions):
        if (new := renamed(name)) != name:
            objects.concrete_functions[new].CopyFrom(objects.concrete_functions.pop(name))
    for node in objects.nodes:
        kind = node.WhichOneof("kind")
        if kind == "function":
            node.function.concrete_functions[:] = map(renamed, node.function.concrete_functions)
        elif kind == "bare_concrete_function":
            bare = node.bare_concrete_function
            bare.concrete_function_name = renamed(bare.concrete_function_name)


def _rename_nodes(nodes: Iterable[node_def_pb2.NodeDef], renamed: Callable[[str], str]) -> None:
    for node in nodes:
        node.name, node.op = renamed(node.name), renamed(node.op)
        node.input[:] = map(renamed, node.input)
        for value in node.attr.values():
            for function in (value.func, *value.list.func):
                if function.name:
                    function.name = renamed(function.name)


def _sort(items: Any, key: Callable[[Any], str] = lambda node: node.name) -> None:
    ordered = sorted(items, key=key)
    del items[:]
    items.extend(ordered)


def _rename_table(node: node_def_pb2.NodeDef, content: dict[str, str]) -> None:
    if "shared_name" not in node.attr:
        return

    def named_by_content(match: re.Match[bytes]) -> bytes:
        name = match["file"].decode()
        return f"hash_table_tf.Tensor(b'{content.get(name, '')}/{name}'".encode()

    node.attr["shared_name"].s = _TABLE_PATH.sub(named_by_content, node.attr["shared_name"].s)
