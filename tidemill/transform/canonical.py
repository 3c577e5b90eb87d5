"""Makes the bytes of a transform graph a function of its content. Imports TensorFlow.

TFT writes the temporary folder's name into the shared names of the lookup tables, TensorFlow orders the nodes of a
pruned function by their addresses in memory, and `fingerprint.pb` holds a random number. What remains are numbers that
TensorFlow counts within a process: the bytes are equal where each graph is made by a process of its own, as steps are.
"""

from __future__ import annotations

import re
from pathlib import Path

from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2

from tidemill import fingerprint

_SAVED_MODEL = "saved_model.pb"
_RANDOM = "fingerprint.pb"
_TABLE_PATH = re.compile(rb"hash_table_tf\.Tensor\(b'(?P<folder>[^']*/)(?P<file>[^'/]*)'")


def canonicalise(saved_model: Path) -> None:
    """Rewrites a SavedModel written by TensorFlow Transform, without a change of what it computes.

    Nodes and functions are sorted by name, which their references do not depend on. A table's shared name gets the
    fingerprint of its vocabulary, so that models loaded in one process share a table only where its content is the
    same.

    Args:
        saved_model: The SavedModel's folder.
    """
    model = saved_model_pb2.SavedModel()
    model.ParseFromString((saved_model / _SAVED_MODEL).read_bytes())
    content = {path.name: fingerprint.of_file(path) for path in (saved_model / "assets").glob("*")}
    for meta_graph in model.meta_graphs:
        graph = meta_graph.graph_def
        _sort(graph.node)
        _sort(graph.library.function, key=lambda function: function.signature.name)
        for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
            for node in nodes:
                _rename_table(node, content)
        for function in graph.library.function:
            _sort(function.node_def)
    (saved_model / _SAVED_MODEL).write_bytes(model.SerializeToString(deterministic=True))
    (saved_model / _RANDOM).unlink(missing_ok=True)


def _sort(items, key=lambda node: node.name) -> None:
    ordered = sorted(items, key=key)
    del items[:]
    items.extend(ordered)


def _rename_table(node: node_def_pb2.NodeDef, content: dict[str, str]) -> None:
    if "shared_name" not in node.attr:
        return

    def named_by_content(match: re.Match) -> bytes:
        name = match["file"].decode()
        return f"hash_table_tf.Tensor(b'{content.get(name, '')}/{name}'".encode()

    node.attr["shared_name"].s = _TABLE_PATH.sub(named_by_content, node.attr["shared_name"].s)
