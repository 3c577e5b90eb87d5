"""Facts about the tensors of a preprocessing_fn's graph, proven from its structure. Imports TensorFlow.

The graph's inputs are flat columns as TFX represents them: sparse tensors `[rows, 1]` with at most one value per row.
`Facts` follows them through the ops that it knows. A tensor without a fact may depend on a whole batch.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from tidemill.transform.apply import ops
from tidemill.transform.apply.ops import LOOP, Effects

ROWS = ""
"""The stream with one element per row. Other streams are named after a column and have one element per present value.
"""
_LENGTH = "length"
_UNKNOWN = frozenset(["Placeholder", "PlaceholderV2", "PlaceholderWithDefault", LOOP])
_PASSING = frozenset(["Identity", "IdentityN", "Snapshot", "StopGradient", "PreventGradient"])


class Level(enum.IntEnum):
    """How an element depends on its column's value, strongest first.

    `RAW`: it equals the value (an int64 possibly as decimal digits). The values in `Elements.sources` and missing
    values may differ. A Select may also replace all unnamed values at once, so callers test one unnamed value.
    `FINITE`: it is the same for all values that the sources do not name. `ANY`: it is some function of the value.
    """

    RAW = 0
    FINITE = 1
    ANY = 2


@dataclass(frozen=True)
class Elements:
    """A tensor whose elements are functions of their rows' values, with one element per row or per present value.

    Attributes:
        stream: `ROWS`, or the column whose present values the elements belong to.
        shape: Its dimensions: `_LENGTH` once, and 1 elsewhere.
        columns: The columns that an element depends on.
        level: How it depends on them; only meaningful for one column.
        sources: Names of the tensors with which values are compared: constants and tables.
        is_total: Whether it can be computed for every value of the columns without an error, also for values that do
            not occur.
    """

    stream: str
    shape: tuple[str | int, ...]
    columns: frozenset[str] = frozenset()
    level: Level = Level.FINITE
    sources: frozenset[str] = frozenset()
    is_total: bool = True


@dataclass(frozen=True)
class Constant:
    """A tensor that is the same for every batch."""

    tensor: tf.Tensor


@dataclass(frozen=True)
class Length:
    """A scalar that is the number of elements of a stream."""

    stream: str


@dataclass(frozen=True)
class Shape:
    """A shape: a vector of dimensions, each a number or a stream's length (by the stream's name)."""

    dims: tuple[str | int | None, ...]


@dataclass(frozen=True)
class Indices:
    """The indices of a column's values: `[values, 2]`."""

    column: str


Fact = Elements | Constant | Length | Shape | Indices | None


class Facts:
    """Facts about the tensors of one graph, the attribute `graph`.

    Args:
        graph: A `FuncGraph`.
        inputs: Its raw inputs by name. Sparse tensors are flat columns; nothing is known about other inputs.
        is_width_one: Whether the inputs always have shape `[rows, 1]`. Otherwise a batch without any value may have
            shape `[rows, 0]`, as TFX reads it.
    """

    def __init__(self, graph: tf.Graph, inputs: Mapping[str, object], is_width_one: bool):
        self.graph = graph
        self._known: dict[str, Fact] = {}
        self._captured = {inner.name: outer for outer, inner in getattr(graph, "captures", [])}
        self._effects = Effects()
        for name, value in inputs.items():
            if isinstance(value, tf.SparseTensor):
                columns = frozenset([name])
                self._known[value.values.name] = Elements(name, (_LENGTH,), columns, Level.RAW)
                self._known[value.indices.name] = Indices(name)
                # No proof may use the second dimension if it may differ from 1.
                self._known[value.dense_shape.name] = Shape((ROWS, 1)) if is_width_one else Shape((ROWS, None))

    def of(self, tensor: tf.Tensor) -> Fact:
        """Returns the fact about a tensor; None if nothing is known."""
        stack = [tensor]
        while stack:
            top = stack[-1]
            if top.name in self._known:
                stack.pop()
                continue
            missing = [part for part in top.op.inputs if part.name not in self._known]
            if missing and top.op.type != LOOP:
                stack.extend(missing)
                continue
            self._known[top.name] = self._derive(top)
            stack.pop()
        return self._known[tensor.name]

    def value(self, tensor: tf.Tensor) -> np.ndarray | None:
        """Returns the value of a constant; None if it is not a constant or would have to be computed."""
        while tensor.op.type in _PASSING and tensor.name not in self._captured:
            tensor = tensor.op.inputs[tensor.value_index]
        if tensor.name in self._captured:
            outer = self._captured[tensor.name]
            return outer.numpy() if _has_value(outer) else None
        return tf.get_static_value(tensor) if isinstance(self.of(tensor), Constant) else None

    def _derive(self, tensor: tf.Tensor) -> Fact:
        op = tensor.op
        if tensor.name in self._captured or op.type == "Const":
            return Constant(tensor)
        if op.type in _UNKNOWN or any(self._effects.of(other) for other in op.control_inputs):
            return None
        facts = [self._known[part.name] for part in op.inputs]
        if op.type in _PASSING:
            return facts[tensor.value_index]
        if facts and all(isinstance(fact, Constant) for fact in facts):
            is_table = op.type in ops.TABLE_READS and self._is_unchanged(op.inputs[0])
            return Constant(tensor) if is_table or not op.op_def.is_stateful else None
        if tensor.value_index != 0:
            return None
        if op.type in ops.BROADCASTING or op.type in ops.FIRST_ONLY:
            return self._elementwise(op, facts)
        rule = getattr(self, f"_{op.type}", None)
        return rule(op, facts) if rule else None

    def _elementwise(self, op: tf.Operation, facts: list[Fact]) -> Fact:
        if op.type == "Cast" and isinstance(facts[0], Length | Shape):
            return facts[0]
        elements = [fact for fact in facts if isinstance(fact, Elements)]
        if not elements or not all(isinstance(fact, Elements | Constant) for fact in facts):
            return None
        first = elements[0]
        if any((other.stream, other.shape) != (first.stream, first.shape) for other in elements):
            return None
        if op.type in ops.FIRST_ONLY and (facts[0] is not first or len(elements) > 1):
            return None
        only_scalars = op.type in ops.SCALARS_ONLY or op.type in ops.FIRST_ONLY
        if not all(
            _broadcasts(f.tensor, 0 if only_scalars else len(first.shape)) for f in facts if isinstance(f, Constant)
        ):
            return None
        divisor = self.value(op.inputs[1]) if len(op.inputs) > 1 else None
        level, sources = self._level(op, facts)
        return Elements(
            first.stream,
            first.shape,
            frozenset().union(*(fact.columns for fact in elements)),
            level,
            frozenset().union(sources, *(fact.sources for fact in elements)),
            ops.cannot_fail(op, divisor) and all(fact.is_total for fact in elements),
        )

    def _level(self, op: tf.Operation, facts: list[Fact]) -> tuple[Level, set[str]]:
        levels = [fact.level for fact in facts if isinstance(fact, Elements)]
        if ops.is_constant_hash(op) or op.type in ("ZerosLike", "OnesLike"):
            return Level.FINITE, set()
        if Level.ANY in levels:
            return Level.ANY, set()
        if Level.RAW not in levels:
            return Level.FINITE, set()
        if op.type in ("Equal", "NotEqual"):
            raw, other = facts if isinstance(facts[0], Elements) else reversed(facts)
            if isinstance(raw, Elements) and isinstance(other, Constant) and self.value(other.tensor) is not None:
                return Level.FINITE, {other.tensor.name}
        if op.type in ("Select", "SelectV2"):
            condition = facts[0]
            is_known = isinstance(condition, Constant) or (
                isinstance(condition, Elements) and condition.level is Level.FINITE
            )
            return (Level.RAW if is_known else Level.ANY), set()
        if (op.type == "AsString" and ops.prints_integers(op)) or (op.type == "Cast" and ops.keeps_values(op)):
            return Level.RAW, set()
        return Level.ANY, set()

    @functools.cached_property
    def _written(self) -> set[str]:
        """Returns the tables that ops of the graph change."""
        return {_origin(op.inputs[0]) for op in self.graph.get_operations() if op.type in ops.TABLE_WRITES}

    def _is_unchanged(self, table: tf.Tensor) -> bool:
        """Returns whether a table is made outside the graph and no op of the graph changes it."""
        return _origin(table) in self._captured and self._written.isdisjoint([_origin(table)])

    def _LookupTableFindV2(self, op: tf.Operation, facts: list[Fact]) -> Fact:
        table, keys, default = facts
        if not (isinstance(table, Constant) and isinstance(keys, Elements) and isinstance(default, Constant)):
            return None
        if not self._is_unchanged(op.inputs[0]) or default.tensor.shape.rank != 0:
            return None
        level = Level.FINITE if keys.level is not Level.ANY else Level.ANY
        return replace(keys, level=level, sources=keys.sources | {_origin(op.inputs[0])})

    def _LowerBound(self, op: tf.Operation, facts: list[Fact]) -> Fact:
        sorted_, values = facts
        if not isinstance(sorted_, Constant) or not isinstance(values, Elements) or values.shape != (1, _LENGTH):
            return None
        if sorted_.tensor.shape.rank not in (2, None):
            return None
        return replace(values, level=Level.FINITE if values.level is Level.FINITE else Level.ANY)

    _UpperBound = _LowerBound

    def _GatherV2(self, op: tf.Operation, facts: list[Fact]) -> Fact:
        params, indices, axis = facts
        if not isinstance(params, Constant) or not isinstance(indices, Elements) or not isinstance(axis, Constant):
            return None
        if params.tensor.shape.rank != 1 or op.get_attr("batch_dims") != 0 or self.value(axis.tensor) != 0:
            return None
        return replace(indices, level=Level.FINITE if indices.level is Level.FINITE else Level.ANY, is_total=False)

    def _SparseToDense(self, op: tf.Operation, facts: list[Fact]) -> Fact:
        indices, shape, values, default = facts
        if not isinstance(indices, Indices) or shape != Shape((ROWS, 1)) or not isinstance(default, Constant):
            return None
        if not isinstance(values, Elements) or (values.stream, values.shape) != (indices.column, (_LENGTH,)):
            return None
        return replace(values, stream=ROWS, shape=(_LENGTH, 1), columns=values.columns | {indices.column})

    def _Squeeze(self, op: tf.Operation, facts: list[Fact]) -> Fact:
        (x,) = facts
        dims = op.get_attr("squeeze_dims")
        # Without dims, a batch of one row would lose its row dimension too.
        if not isinstance(x, Elements) or not dims:
            return None
        drop = {dim % len(x.shape) for dim in dims}
        if any(x.shape[dim] != 1 for dim in drop):
            return None
        return replace(x, shape=tuple(size for dim, size in enumerate(x.shape) if dim not in drop))

    def _ExpandDims(self, op: tf.Operation, facts: list[Fact]) -> Fact:
        x, axis = facts
        axis = self.value(axis.tensor) if isinstance(axis, Constant) else None
        if not isinstance(x, Elements) or axis is None or axis.size != 1 or len(x.shape) > 1:
            return None
        return replace(x, shape=(_LENGTH, 1) if int(axis.reshape(())) in (1, -1) else (1, _LENGTH))

    def _Reshape(self, op: tf.Operation, facts: list[Fact]) -> Fact:
        x, shape = facts
        dims = self._dims(shape)
        if not isinstance(x, Elements) or dims is None or not 1 <= len(dims) <= 2:
            return None
        stands_for_length = [dim == -1 or dim == x.stream for dim in dims]
        if sum(stands_for_length) == 2 and dims in ((-1, x.stream), (x.stream, -1)):
            # The inferred dimension (-1) is the one that is 1.
            return replace(x, shape=tuple(1 if dim == -1 else _LENGTH for dim in dims))
        shape = tuple(_LENGTH if is_ else dim for is_, dim in zip(stands_for_length, dims, strict=True))
        return replace(x, shape=shape) if shape in ((_LENGTH,), (_LENGTH, 1), (1, _LENGTH)) else None

    def _Shape(self, op: tf.Operation, facts: list[Fact]) -> Fact:
        (x,) = facts
        return Shape(tuple(x.stream if dim == _LENGTH else dim for dim in x.shape)) if isinstance(x, Elements) else None

    def _Size(self, op: tf.Operation, facts: list[Fact]) -> Fact:
        (x,) = facts
        return Length(x.stream) if isinstance(x, Elements) else None

    def _Pack(self, op: tf.Operation, facts: list[Fact]) -> Fact:
        dims: list[str | int] = []
        for fact, part in zip(facts, op.inputs, strict=True):
            value = self.value(part) if isinstance(fact, Constant) else None
            if isinstance(fact, Length):
                dims.append(fact.stream)
            elif value is not None and value.ndim == 0 and part.dtype.is_integer:
                dims.append(int(value))
            else:
                return None
        return Shape(tuple(dims))

    def _StridedSlice(self, op: tf.Operation, facts: list[Fact]) -> Fact:
        begin, end, strides = (self.value(part) for part in op.inputs[1:])
        if begin is None or end is None or strides is None or np.any(strides != 1):
            return None
        masks = {name: op.get_attr(f"{name}_mask") for name in _MASKS}
        if isinstance(facts[0], Shape) and len(begin) == 1 and masks == dict.fromkeys(_MASKS, 0) | {"shrink_axis": 1}:
            dims = facts[0].dims
            dim = dims[begin[0]] if -len(dims) <= begin[0] < len(dims) else None
            return Length(dim) if isinstance(dim, str) else None
        is_new_axis = masks == {"begin": 1, "end": 1, "ellipsis": 0, "new_axis": 2, "shrink_axis": 0}
        is_first_column = masks == {"begin": 1, "end": 1, "ellipsis": 0, "new_axis": 0, "shrink_axis": 2}
        x = facts[0]
        if isinstance(x, Elements) and x.shape == (_LENGTH,) and is_new_axis:
            return replace(x, shape=(_LENGTH, 1))
        if isinstance(x, Elements) and x.shape == (_LENGTH, 1) and is_first_column and begin[1] in (0, -1):
            return replace(x, shape=(_LENGTH,))
        return None

    def _Fill(self, op: tf.Operation, facts: list[Fact]) -> Fact:
        shape, value = facts
        dims = self._dims(shape)
        streams = {dim for dim in dims or () if isinstance(dim, str)}
        if not isinstance(value, Constant) or dims is None or len(streams) != 1 or len(dims) > 2:
            return None
        if sum(isinstance(dim, str) for dim in dims) != 1 or any(dim != 1 for dim in dims if not isinstance(dim, str)):
            return None
        (stream,) = streams
        return Elements(stream, tuple(_LENGTH if isinstance(dim, str) else 1 for dim in dims))

    def _dims(self, fact: Fact) -> tuple[Any, ...] | None:
        if isinstance(fact, Shape):
            return fact.dims
        value = self.value(fact.tensor) if isinstance(fact, Constant) else None
        return None if value is None or value.ndim != 1 else tuple(int(dim) for dim in value)


_MASKS = ("begin", "end", "ellipsis", "new_axis", "shrink_axis")


def _has_value(captured: tf.Tensor) -> bool:
    return hasattr(captured, "numpy") and captured.dtype not in (tf.resource, tf.variant)


def _origin(tensor: tf.Tensor) -> str:
    """Returns the name of the tensor that a tensor is a copy of."""
    while tensor.op.type == "Identity":
        (tensor,) = tensor.op.inputs
    return tensor.name


def _broadcasts(constant: tf.Tensor, rank: int) -> bool:
    """Returns whether a constant has at most `rank` dimensions, all 1, so that it applies the same value to each
    element."""
    shape = constant.shape
    return shape.rank is not None and shape.rank <= rank and all(dim == 1 for dim in shape.as_list())
