"""The plan that says how a transform graph's outputs are computed from record batches. Imports TensorFlow.

A tensor with one element per row that depends on one column is computed from that column only. There are three ways:

1. By named value: if the tensor only distinguishes the values that the graph names, it is a lookup in a table.
2. By value: other functions of one column run in TensorFlow, once per distinct value of a dictionary-encoded column,
   otherwise once per present value.
3. By row: everything else, such as functions of several columns, runs in TensorFlow for all rows. Its inputs are
   tensors of 1 and 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tidemill.transform.apply.facts import ROWS, Elements, Facts, Level
from tidemill.transform.apply.probes import PACKET, named_values, other_values, run_on, sparse_probe
from tidemill.transform.apply.saved_transform import GraphFunction, SavedTransform
from tidemill.transform.apply.value_index import ValueIndex
from tidemill.transform.raw import RawColumn

_MAX_NAMED = 1 << 22
"""A column with more named values gets no index, as TensorFlow's table has one already."""


@dataclass
class ColumnPlan:
    """The plan of one column: the tensors computed from it only, each by its number in `Plan.parts`.

    Attributes:
        column: The column.
        index: The named values; None if nothing is computed by named value.
        tables: Values by named value: one per named value, then a missing value, then any other value.
        fills: The fill for missing values of tensors that are the column itself.
        by_value: The tensors of the column's function.
        function: Position of that function in `Plan.functions`; None if `by_value` is empty.
        is_total: Whether the function may be called with values that do not occur.
    """

    column: RawColumn
    index: ValueIndex | None = None
    tables: dict[int, np.ndarray] = field(default_factory=dict)
    fills: dict[int, object] = field(default_factory=dict)
    by_value: list[int] = field(default_factory=list)
    function: int | None = None
    is_total: bool = True


@dataclass(frozen=True)
class RowFunction:
    """A function for the outputs that TensorFlow computes for all rows.

    Attributes:
        outputs: Their names.
        feeds: The parts that the function takes, by their numbers in `Plan.parts`, with their shapes; -1 stands for the
            rows.
        function: Takes the raw inputs that it names, and the parts.
        is_rowwise: Whether a row's result depends only on the row.
    """

    outputs: list[str]
    feeds: list[tuple[int, tuple[int, ...]]]
    function: GraphFunction
    is_rowwise: bool


@dataclass
class Plan:
    """A plan: which outputs are computed by class, by value and by row, as the module describes.

    Attributes:
        parts: The tensors that are computed from one column.
        direct: For each output that is a part, its number.
        columns: The parts by column.
        functions: TensorFlow functions of columns, and the numbers of the parts that they compute.
        rows: The functions that run for all rows.
    """

    parts: list[tf.Tensor]
    direct: dict[str, int]
    columns: list[ColumnPlan]
    functions: list[tuple[GraphFunction, list[int]]]
    rows: list[RowFunction]

    def summary(self) -> str:
        """Returns how many outputs are computed in which way."""
        by_value = {number for plan in self.columns for number in plan.by_value}
        slow = sum(number in by_value for number in self.direct.values())
        rows = sum(len(function.outputs) for function in self.rows)
        return f"{len(self.direct) - slow} outputs by named value, {slow} by value, {rows} by row"


def make_plan(saved: SavedTransform, columns: Sequence[RawColumn], names: Sequence[str]) -> Plan:
    """Plans outputs from what the graph's structure proves. `fill_tables` then fills the tables.

    Args:
        saved: The graph.
        columns: The raw columns that callers will pass.
        names: The outputs.
    """
    return _Planner(saved, columns).plan(names)


class _Planner:
    """The state of `make_plan`: the graph, what is known about it, and the plan so far."""

    def __init__(self, saved: SavedTransform, columns: Sequence[RawColumn]):
        self._saved = saved
        self._columns = {column.name: column for column in columns if not column.is_list}
        flat = {name: value for name, value in saved.inputs.items() if name in self._columns}
        self._facts = Facts(saved.graph, flat, is_width_one=True)
        self._parts: list[tf.Tensor] = []
        self._numbers: dict[str, int] = {}

    def plan(self, names: Sequence[str]) -> Plan:
        direct, slow = {}, {True: [], False: []}
        for name in names:
            tensor = self._saved.outputs[name]
            if self._is_part(tensor):
                direct[name] = self._part(tensor)
            else:
                fact = self._facts.of(tensor) if isinstance(tensor, tf.Tensor) else None
                slow[isinstance(fact, Elements) and fact.stream == ROWS].append(name)
        rows = [self._row_function(names, is_rowwise) for is_rowwise, names in slow.items() if names]
        columns = self._column_plans()
        functions = self._functions(columns)
        return Plan(self._parts, direct, columns, functions, rows)

    def _is_part(self, tensor: tf.Tensor) -> bool:
        fact = self._facts.of(tensor) if isinstance(tensor, tf.Tensor) else None
        return isinstance(fact, Elements) and fact.stream == ROWS and len(fact.columns) == 1

    def _part(self, tensor: tf.Tensor) -> int:
        if tensor.name not in self._numbers:
            self._numbers[tensor.name] = len(self._parts)
            self._parts.append(tensor)
        return self._numbers[tensor.name]

    def _fact(self, number: int) -> Elements:
        fact = self._facts.of(self._parts[number])
        assert isinstance(fact, Elements)
        return fact

    def _row_function(self, names: list[str], is_rowwise: bool) -> RowFunction:
        outputs = [self._saved.outputs[name] for name in names]
        feeds = self._frontier(outputs)
        numbers = [self._part(tensor) for tensor in feeds]
        shapes = [tuple(1 if size == 1 else -1 for size in self._fact(number).shape) for number in numbers]
        return RowFunction(
            names, list(zip(numbers, shapes, strict=True)), self._saved.function(outputs, feeds), is_rowwise
        )

    def _frontier(self, outputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the last tensors before the outputs that are computed from one column."""
        frontier: dict[str, tf.Tensor] = {}
        seen: set[str] = set()
        stack = [part for output in outputs for part in tf.nest.flatten(output, expand_composites=True)]
        while stack:
            tensor = stack.pop()
            if tensor.name in seen:
                continue
            seen.add(tensor.name)
            if self._is_part(tensor):
                frontier[tensor.name] = tensor
            else:
                stack.extend(tensor.op.inputs)
        return list(frontier.values())

    def _column_plans(self) -> list[ColumnPlan]:
        plans: dict[str, ColumnPlan] = {}
        for number in range(len(self._parts)):
            (name,) = self._fact(number).columns
            plan = plans.setdefault(name, ColumnPlan(self._columns[name]))
            plan.by_value.append(number)
        for plan in plans.values():
            self._take_fills(plan)
            self._take_named_values(plan)
            plan.is_total = all(self._fact(number).is_total for number in plan.by_value)
        return list(plans.values())

    def _take_fills(self, plan: ColumnPlan) -> None:
        for number in list(plan.by_value):
            fact, tensor = self._fact(number), self._parts[number]
            dtype = self._saved.inputs[plan.column.name].dtype
            if fact.level is not Level.RAW or fact.sources or not fact.is_total or tensor.dtype != dtype:
                continue
            raw: list[bytes | int] = [b"a", b"b"] if dtype == tf.string else [2, 3]
            present, missing = run_on(self._saved.graph, self._saved.inputs[plan.column.name], tensor, raw, True)
            if present == raw:
                plan.fills[number] = missing
                plan.by_value.remove(number)

    def _take_named_values(self, plan: ColumnPlan) -> None:
        if plan.column.dtype == "float32":
            return
        finite = [n for n in plan.by_value if self._fact(n).level is Level.FINITE and self._fact(n).is_total]
        sources = frozenset().union(*(self._fact(number).sources for number in finite))
        if not finite or sum(self._saved.table_size(source) for source in sources) > _MAX_NAMED:
            return
        named = named_values(self._facts, sources, plan.column.dtype, self._saved.keys)
        if named is not None:
            plan.index = ValueIndex(named)
            plan.tables = dict.fromkeys(finite, np.empty(0))
            plan.by_value = [number for number in plan.by_value if number not in finite]

    def _functions(self, columns: list[ColumnPlan]) -> list[tuple[GraphFunction, list[int]]]:
        """Returns one function for all columns that accept any value, and one for each other column."""
        groups = [[plan for plan in columns if plan.by_value and plan.is_total]]
        groups += [[plan] for plan in columns if plan.by_value and not plan.is_total]
        functions = []
        for group in filter(None, groups):
            for plan in group:
                plan.function = len(functions)
            numbers = [number for plan in group for number in plan.by_value]
            functions.append((self._saved.function([self._parts[number] for number in numbers]), numbers))
        return functions


def fill_tables(saved: SavedTransform, plan: Plan) -> None:
    """Fills the plan's tables: runs the graph on the columns' named values, an unnamed value and a missing value.

    Args:
        saved: The graph.
        plan: A plan for it.
    """
    columns = [(column, column.index) for column in plan.columns if column.index is not None]
    if not columns:
        return
    numbers = [number for column, _ in columns for number in column.tables]
    function = saved.function([plan.parts[number] for number in numbers])
    probes = {}
    for column, index in columns:
        values = index.values
        others = pa.array(other_values(values) * (PACKET - len(values) % PACKET), values.type)
        name = column.column.name
        probes[name] = sparse_probe(pa.concat_arrays([values, others]), PACKET, saved.inputs[name].dtype)
    results = dict(zip(numbers, function(probes), strict=True))
    for column, index in columns:
        count = len(index)
        for number in column.tables:
            flat = results[number].numpy().reshape(-1)
            column.tables[number] = flat[[*range(count), -1, count]]
