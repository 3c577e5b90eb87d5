"""One pass over the rows: threads over units, results in row order. Imports TensorFlow."""

from __future__ import annotations

import collections
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import pyarrow as pa
import tensorflow as tf

from tidemill.transform.analysis.feeding import Feeder, is_exact
from tidemill.transform.analysis.reduction import Fed
from tidemill.transform.rows.rows import RowFile, Rows, Unit
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
    rows: Rows,
    work: Sequence[tuple[RowFile, Sequence[Fed]]],
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
    tasks: list[tuple[RowFile, Unit, Sequence[Fed], _Batches]] = []
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

    def __init__(self, trace: Trace, rows: Rows, reductions: Sequence[Fed]):
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

    def __init__(self, trace: Trace, rows: Rows, reductions: Sequence[Fed]):
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
