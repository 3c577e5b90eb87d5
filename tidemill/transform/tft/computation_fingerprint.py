"""Fingerprints of how tensors are computed from the raw inputs. Imports TensorFlow."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2, function_pb2

from tidemill.transform.tft import private
from tidemill.transform.tft.trace import Trace
from tidemill.transform.tft.traced_function import TracedFunction, fill

_NOT_COMPUTED = frozenset(["_output_shapes", "_class", "_user_specified_name"])
_LOOP = "NextIteration"
"""The op that closes a cycle in the graph: TF1 while loops."""
_PYTHON = frozenset(["PyFunc", "PyFuncStateless", "EagerPyFunc"])


def fingerprint(tensors: Sequence[tf.Tensor], trace: Trace) -> str:
    """Returns the fingerprint of how tensors are computed from the raw inputs: 64 hexadecimal digits.

    Equal computations have equal fingerprints, also in other processes. Names of ops do not count; bound values and the
    content of tables do. A computation with the user's Python code, or with a resource that cannot be read, never
    equals another.

    Args:
        tensors: Ready tensors of the trace's graph. Their order counts.
        trace: The trace.
    """
    digests = _ComputationDigests(trace)
    return _digest(part for tensor in tensors for part in digests.of(tensor))


def _digest(parts: Iterable[object]) -> str:
    result = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else str(part).encode()
        result.update(len(content).to_bytes(8, "little") + content)
    return result.hexdigest()


class _ComputationDigests:
    """The digests of the tensors of one graph, each computed from the digests of its inputs."""

    def __init__(self, trace: Trace):
        self._trace = trace
        self._digests = trace.digests
        self._sources = {
            part.op.name: f"input {name} {index} {trace.specs[name]}"
            for name, value in trace.inputs.items()
            for index, part in enumerate(tf.nest.flatten(value, expand_composites=True))
        }
        self._captures = {inner.op.name: outer for outer, inner in trace.graph.captures}
        self._functions: dict[str, function_pb2.FunctionDef] | None = None

    def of(self, tensor: tf.Tensor) -> tuple[str, int]:
        tensor = self._trace.current(tensor)
        # Inputs come before the ops that take them.
        stack = [tensor.op]
        while stack:
            op = stack[-1]
            missing = [before for before in _before(op) if before.name not in self._digests]
            if missing and op.name not in self._sources:
                stack.extend(missing)
                continue
            stack.pop()
            if op.name not in self._digests:
                self._digests[op.name] = self._op(op)
        return self._digests[tensor.op.name], tensor.value_index

    def _op(self, op: tf.Operation) -> str:
        if op.name in self._sources:
            return _digest([self._sources[op.name]])
        if op.name in self._captures:
            return _digest(self._capture(self._captures[op.name]))
        definition = op.node_def
        attributes = [
            part
            for name in sorted(definition.attr)
            if name not in _NOT_COMPUTED
            for part in (name, self._attribute(definition.attr[name]))
        ]
        inputs = [part for t in op.inputs for part in (self._digests.get(t.op.name, _LOOP), t.value_index)]
        controls = sorted(self._digests[before.name] for before in op.control_inputs)
        never = [uuid.uuid4()] if op.type in _PYTHON else []
        return _digest([op.type, *attributes, "inputs", *inputs, "controls", *controls, *never])

    def _attribute(self, value: attr_value_pb2.AttrValue) -> bytes:
        names = {value.func.name} | {function.name for function in value.list.func}
        if names == {""}:
            return value.SerializeToString(deterministic=True)
        return "".join(self._function(name) for name in sorted(names - {""})).encode()

    def _function(self, name: str) -> str:
        if self._functions is None:
            self._functions = {f.signature.name: f for f in self._trace.graph.as_graph_def().library.function}
        if name not in self._digests:
            definition = function_pb2.FunctionDef()
            definition.CopyFrom(self._functions[name])
            definition.signature.ClearField("name")
            never = [uuid.uuid4() for node in definition.node_def if node.op in _PYTHON]
            inner = []
            for node in definition.node_def:
                for attribute in sorted(node.attr):
                    value = node.attr[attribute]
                    if value.func.name or value.list.func:
                        inner.append(self._attribute(value))
                        value.Clear()
                    elif attribute in _NOT_COMPUTED:
                        value.Clear()
            self._digests[name] = _digest([definition.SerializeToString(deterministic=True), *inner, *never])
        return self._digests[name]

    def _capture(self, tensor: tf.Tensor) -> list[object]:
        if tensor.dtype != tf.resource:
            value = np.asarray(tensor.numpy())
            content = value.tolist() if value.dtype == object else value.tobytes()
            return [tensor.dtype.name, tensor.shape, content]
        content = _content(tensor, self._trace.traced)
        return [uuid.uuid4()] if content is None else content


def _before(op: tf.Operation) -> list[tf.Operation]:
    return [*(tensor.op for tensor in op.inputs if tensor.op.type != _LOOP), *op.control_inputs]


def _content(handle: tf.Tensor, traced: TracedFunction) -> list[Any] | None:
    """Returns what a table or variable holds, for a fingerprint; None if it cannot be read.

    Args:
        handle: The resource.
        traced: The traced function that made it.
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
        return None  # An op of the graph fills it at each call.
    pairs = sorted(zip(keys.numpy().tolist(), values.numpy().tolist(), strict=True))
    return [dtypes[0].name, dtypes[1].name, table.default_value.numpy(), pairs]
