"""One pass over the rows: threads over units, results in row order. Imports TensorFlow."""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    """Lets TensorFlow run each op on one thread, and as many ops at a time as there are threads here.

    The setting is the process's and is made before TensorFlow's first op; where that has run, nothing changes.
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
    """Reads files once and gives their batches to reductions.

    Args:
        trace: Where the reductions' tensors are from.
        rows: The files' rows.
        work: The files to read, in order, with the reductions that want each. These are closed for the file.
        threads: How many units are read at a time.
        progress: Told the number of rows that are through since it was last told.

    Raises:
        Exception: What the first unit that fails raises. No thread goes on then.
    """
    batches: dict[tuple[int, ...], _Batches] = {}
    tasks: list[tuple[RowFile, Unit, Sequence[FedReduction], _Batches]] = []
    for file, wanting in work:
        key = tuple(map(id, wanting))
        if key not in batches:
            batches[key] = _Batches(trace, rows, wanting)
        tasks.extend((file, unit, wanting, batches[key]) for unit in file.units)

    results = _in_order(lambda task: task[3].reduce(task[1]), tasks, threads)
    with contextlib.closing(results):
        for file, wanting in work:
            for unit, partials in zip(file.units, itertools.islice(results, len(file.units)), strict=True):
                for reduction, partial in zip(wanting, partials, strict=True):
                    reduction.collect(file.index, partial)
                progress(unit.rows)
            for reduction in wanting:
                reduction.close(file.index)


class _Batches:
    """Runs the graph on a unit's batches, for some reductions: first for those that take large batches."""

    def __init__(self, trace: Trace, rows: RowSource, reductions: Sequence[FedReduction]):
        self._reductions = reductions
        large = [r for r in reductions if is_exact(r.tensors, trace, rows)]
        small = [r for r in reductions if r not in large]
        self._groups = [_Group(trace, rows, group) for group in (large, small) if group]
        self._columns = list(dict.fromkeys(name for group in self._groups for name in group.feeder.columns))

    def reduce(self, unit: Unit) -> list[Any]:
        """Each reduction's partial result of the unit."""
        partials = {id(reduction): reduction.start() for reduction in self._reductions}
        most = max(group.feeder.batch_rows for group in self._groups)
        for batch in unit.batches(self._columns, most):
            for group in self._groups:
                # A batch without rows is one too.
                for start in range(0, max(batch.num_rows, 1), group.feeder.batch_rows):
                    group.add(batch.slice(start, group.feeder.batch_rows), partials)
        return [reduction.finish(partials[id(reduction)]) for reduction in self._reductions]


class _Group:
    """Reductions that are given the same batches."""

    def __init__(self, trace: Trace, rows: RowSource, reductions: Sequence[FedReduction]):
        fetches = {tensor.name: tensor for reduction in reductions for tensor in reduction.tensors}
        places = {name: place for place, name in enumerate(fetches)}
        self._takes = [(r, [places[tensor.name] for tensor in r.tensors]) for r in reductions]
        self.feeder = Feeder(trace, rows, list(fetches.values()))

    def add(self, batch: pa.RecordBatch, partials: dict[int, Any]) -> None:
        """Gives a batch to the reductions."""
        values = self.feeder(batch)
        for reduction, places in self._takes:
            partials[id(reduction)] = reduction.add(partials[id(reduction)], tuple(values[place] for place in places))


def _in_order(do: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Results in the order of the items, of which a few are worked on ahead. Waits for its threads when closed."""
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
"""How many batches make a large one."""
_PLAIN = ops.BROADCASTING | {
    *("All", "Any", "Const", "ExpandDims", "Fill", "GatherV2", "Identity", "IdentityN", "Max", "Min", "Pack"),
    *("Placeholder", "PlaceholderWithDefault", "Range", "RegexFullMatch", "Reshape", "Shape", "Size", "SparseToDense"),
    *("Squeeze", "StopGradient", "StridedSlice", "Unique", "UniqueV2", "UniqueWithCounts", "UniqueWithCountsV2"),
    "Where",
}
"""Ops that are as exact over many rows as over few, and whose result is no larger than their input."""


class _Part(NamedTuple):
    """A tensor of the graph that is computed from a flat column."""

    tensor: tf.Tensor
    column: str
    make: Callable[[pa.Array], tf.Tensor]


class Feeder:
    """Computes tensors of a trace's graph for batches of rows. May be called from several threads.

    Args:
        trace: The trace.
        rows: Where the batches are from.
        fetches: The tensors, each ready.

    Attributes:
        columns: The inputs whose columns a batch must have.
        batch_rows: The most rows that a batch should have. Sums of float32 lose digits where a batch is large, so it
            is larger than the rows' own only where the graph has no other sums than those of vectors, which
            TensorFlow adds up pairwise.
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
        """The tensors' values."""
        typed = functools.cache(lambda column: self._rows.typed(batch, column))
        parts = [part.make(typed(part.column)) for part in self._parts]
        inputs = self._rows.feed(batch, self._function.inputs)
        return [value.numpy() for value in self._function(inputs, parts)]


def is_exact(fetches: Sequence[tf.Tensor], trace: Trace, rows: RowSource) -> bool:
    """Whether tensors can be computed for many rows at a time without a loss of digits, and without much memory."""
    before = private.ancestors([trace.current(tensor) for tensor in fetches])
    names = {op.name for op in before}
    lists = [value for name, value in trace.inputs.items() if not rows.is_flat(name)]
    if any(part.op.name in names for part in tf.nest.flatten(lists, expand_composites=True)):
        return False
    return all(op.type in _PLAIN or _is_exact_sum(op) for op in before)


def _is_exact_sum(op: tf.Operation) -> bool:
    return op.type == "Sum" and (op.inputs[0].shape.rank in (0, 1) or op.inputs[0].dtype.is_integer)


def _parts(trace: Trace, rows: RowSource, fetches: Sequence[tf.Tensor]) -> list[_Part]:
    flat = {name: value for name, value in trace.inputs.items() if rows.is_flat(name)}
    facts = Facts(trace.graph, flat, is_width_one=False)
    dense = [part for op in private.ancestors(fetches) if (part := _dense_part(op, flat, facts))]
    needed = {op.name for op in private.ancestors(fetches, {part.tensor.name for part in dense})}
    parts = dense
    for name, value in flat.items():
        makes = [(value.values, tensors.values), (value.indices, tensors.indices), (value.dense_shape, tensors.shape)]
        parts += [_Part(tensor, name, make) for tensor, make in makes if tensor.op.name in needed]
    return parts


def _dense_part(op: tf.Operation, flat: Mapping[str, tf.SparseTensor], facts: Facts) -> _Part | None:
    """The dense tensor of a flat column, where an op makes one with a constant for missing values."""
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
            return _Part(op.outputs[0], name, make)
    return None


def _origin(tensor: tf.Tensor) -> tf.Tensor:
    """What a tensor is a copy of."""
    while tensor.op.type == "Identity":
        (tensor,) = tensor.op.inputs
    return tensor
