"""One pass over the rows: threads feed batches to parts of the graph, and results come in row order. Imports
TensorFlow.

Of a flat column, only what the graph uses is fed: its values, its indices, its shape, or the dense tensor that the
graph would make from them. An op takes as long for a few rows as for some thousands, so batches are as large as
precision allows.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tidemill.transform.analysis.reduction import FedReduction
from tidemill.transform.apply import ops
from tidemill.transform.apply.facts import ROWS, Facts, Shape
from tidemill.transform.rows import tensors
from tidemill.transform.rows.row_source import RowFile, RowSource, Unit
from tidemill.transform.tft import private
from tidemill.transform.tft.trace import Trace

Item = TypeVar("Item")
Result = TypeVar("Result")


def use_threads(threads: int) -> None:
    """Makes TensorFlow run each op on one thread, and as many ops at the same time as `threads`.

    The setting applies to the process. It has no effect after TensorFlow has run its first op.
    """
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(threads)


def run_pass(
    trace: Trace,
    rows: RowSource,
    work: Sequence[tuple[RowFile, Sequence[FedReduction]]],
    *,
    threads: int,
    progress: Callable[[int], None],
) -> None:
    """Reads files once and feeds their batches to reductions.

    Args:
        trace: The trace of the reductions' tensors.
        rows: The files' rows.
        work: The files to read, in order, each with the reductions that need it. The reductions are closed for the
            file.
        threads: Number of units that are read at the same time.
        progress: Called with the number of rows finished since the last call.

    Raises:
        Exception: The error of the first unit that fails. All threads have stopped by then.
    """
    batches: dict[tuple[int, ...], _Batches] = {}
    tasks: list[tuple[RowFile, Unit, Sequence[FedReduction], _Batches]] = []
    for file, reductions in work:
        key = tuple(map(id, reductions))
        if key not in batches:
            batches[key] = _Batches(trace, rows, reductions)
        tasks.extend((file, unit, reductions, batches[key]) for unit in file.units)

    results = map_in_order(lambda task: task[3].reduce(task[1]), tasks, threads)
    with contextlib.closing(results):
        for file, reductions in work:
            for unit, partials in zip(file.units, itertools.islice(results, len(file.units)), strict=True):
                for reduction, partial in zip(reductions, partials, strict=True):
                    reduction.collect(file.index, partial)
                progress(unit.rows)
            for reduction in reductions:
                reduction.close(file.index)


class _Batches:
    """The batches of a unit, on which the graph runs for some reductions: first those that take large batches."""

    def __init__(self, trace: Trace, rows: RowSource, reductions: Sequence[FedReduction]):
        self._reductions = reductions
        large = [r for r in reductions if is_exact(r.tensors, trace, rows)]
        small = [r for r in reductions if r not in large]
        self._groups = [_Group(trace, rows, group) for group in (large, small) if group]
        self._columns = list(dict.fromkeys(name for group in self._groups for name in group.feeder.columns))

    def reduce(self, unit: Unit) -> list[Any]:
        """Returns the partial result of each reduction for a unit."""
        partials = {id(reduction): reduction.start() for reduction in self._reductions}
        most = max(group.feeder.batch_rows for group in self._groups)
        for batch in unit.batches(self._columns, most):
            for group in self._groups:
                # A batch without rows counts too.
                for start in range(0, max(batch.num_rows, 1), group.feeder.batch_rows):
                    group.add(batch.slice(start, group.feeder.batch_rows), partials)
        return [reduction.finish(partials[id(reduction)]) for reduction in self._reductions]


class _Group:
    """A group of reductions that take the same batches."""

    def __init__(self, trace: Trace, rows: RowSource, reductions: Sequence[FedReduction]):
        fetches = {tensor.name: tensor for reduction in reductions for tensor in reduction.tensors}
        positions = {name: position for position, name in enumerate(fetches)}
        self._takes = [(r, [positions[tensor.name] for tensor in r.tensors]) for r in reductions]
        self.feeder = Feeder(trace, rows, list(fetches.values()))

    def add(self, batch: pa.RecordBatch, partials: dict[int, Any]) -> None:
        """Feeds a batch to the reductions."""
        values = self.feeder(batch)
        for reduction, positions in self._takes:
            partials[id(reduction)] = reduction.add(
                partials[id(reduction)], tuple(values[position] for position in positions)
            )


def map_in_order(do: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Generator[Result, None, None]:
    """Yields the results of a function in the order of its items, and computes a few items in advance on threads.

    Waits for its threads when closed.
    """
    remaining = iter(items)
    waiting: collections.deque[Future[Result]] = collections.deque()
    executor = ThreadPoolExecutor(threads, thread_name_prefix="tidemill-pass")
    try:
        for item in itertools.islice(remaining, threads + 2):
            waiting.append(executor.submit(do, item))
        while waiting:
            result = waiting.popleft().result()
            for item in itertools.islice(remaining, 1):
                waiting.append(executor.submit(do, item))
            yield result
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


_LARGE = 8
"""Number of batches in a large batch."""
_PLAIN = ops.BROADCASTING | {
    *("All", "Any", "Const", "ExpandDims", "Fill", "GatherV2", "Identity", "IdentityN", "Max", "Min", "Pack"),
    *("Placeholder", "PlaceholderWithDefault", "Range", "RegexFullMatch", "Reshape", "Shape", "Size", "SparseToDense"),
    *("Squeeze", "StopGradient", "StridedSlice", "Unique", "UniqueV2", "UniqueWithCounts", "UniqueWithCountsV2"),
    "Where",
}
"""Ops that are as exact over many rows as over few, and whose result is not larger than their input."""


class _FedTensor(NamedTuple):
    """A tensor of the graph that is computed from a flat column."""

    tensor: tf.Tensor
    column: str
    make: Callable[[pa.Array], tf.Tensor]


class Feeder:
    """A function that computes tensors of a trace's graph for batches of rows. Several threads may call it.

    Args:
        trace: The trace.
        rows: The source of the batches.
        fetches: The tensors, each ready.

    Attributes:
        columns: The inputs whose columns a batch must have.
        batch_rows: Maximum rows of a batch. Sums of float32 lose precision in large batches, so it exceeds the row
            source's maximum only if the graph sums nothing but vectors, which TensorFlow adds pairwise.
    """

    def __init__(self, trace: Trace, rows: RowSource, fetches: Sequence[tf.Tensor]):
        self._rows = rows
        fetches = [trace.current(tensor) for tensor in fetches]
        self._parts = _parts(trace, rows, fetches)
        self._function = trace.function(list(fetches), [part.tensor for part in self._parts])
        flat = dict.fromkeys(part.column for part in self._parts)
        self.columns = [*self._function.inputs, *flat]
        self.batch_rows = rows.batch_rows * (_LARGE if is_exact(fetches, trace, rows) else 1)

    def __call__(self, batch: pa.RecordBatch) -> list[np.ndarray]:
        """Returns the tensors' values."""
        typed = functools.cache(lambda column: self._rows.typed(batch, column))
        parts = [part.make(typed(part.column)) for part in self._parts]
        inputs = self._rows.feed(batch, self._function.inputs)
        return [value.numpy() for value in self._function(inputs, parts)]


def is_exact(fetches: Sequence[tf.Tensor], trace: Trace, rows: RowSource) -> bool:
    """Returns whether tensors can be computed for many rows at once without losing precision or taking much memory."""
    before = private.ancestors([trace.current(tensor) for tensor in fetches])
    names = {op.name for op in before}
    lists = [value for name, value in trace.inputs.items() if not rows.is_flat(name)]
    if any(part.op.name in names for part in tf.nest.flatten(lists, expand_composites=True)):
        return False
    return all(op.type in _PLAIN or _is_exact_sum(op) for op in before)


def _is_exact_sum(op: tf.Operation) -> bool:
    return op.type == "Sum" and (op.inputs[0].shape.rank in (0, 1) or op.inputs[0].dtype.is_integer)


def _parts(trace: Trace, rows: RowSource, fetches: Sequence[tf.Tensor]) -> list[_FedTensor]:
    flat: dict[str, Any] = {name: value for name, value in trace.inputs.items() if rows.is_flat(name)}
    facts = Facts(trace.graph, flat, is_width_one=False)
    dense = [part for op in private.ancestors(fetches) if (part := _dense_part(op, flat, facts))]
    needed = {op.name for op in private.ancestors(fetches, {part.tensor.name for part in dense})}
    parts = dense
    for name, value in flat.items():
        makes = [(value.values, tensors.values), (value.indices, tensors.indices), (value.dense_shape, tensors.shape)]
        parts += [_FedTensor(tensor, name, make) for tensor, make in makes if tensor.op.name in needed]
    return parts


def _dense_part(op: tf.Operation, flat: Mapping[str, tf.SparseTensor], facts: Facts) -> _FedTensor | None:
    """Returns the dense tensor that an op makes from a flat column with a constant for missing values.

    Returns None for other ops.
    """
    if op.type != "SparseToDense":
        return None
    indices, shape, values = (_origin(tensor) for tensor in list(op.inputs)[:3])
    for name, value in flat.items():
        if (indices.name, values.name) == (value.indices.name, value.values.name):
            is_width_one = facts.of(shape) == Shape((ROWS, 1))
            fill = facts.value(op.inputs[3])
            if fill is None or not (is_width_one or shape.name == value.dense_shape.name):
                return None
            make = functools.partial(tensors.dense, default=fill.item(), is_width_one=is_width_one)
            return _FedTensor(op.outputs[0], name, make)
    return None


def _origin(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the tensor that a tensor is a copy of."""
    while tensor.op.type == "Identity":
        (tensor,) = tensor.op.inputs
    return tensor
