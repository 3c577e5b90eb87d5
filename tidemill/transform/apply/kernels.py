"""Functions that compute the parts of a plan for one column of a record batch. Imports TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tidemill.transform.apply.plan import ColumnPlan
from tidemill.transform.apply.probes import PACKET
from tidemill.transform.apply.saved_transform import GraphFunction

_TF_DTYPES = {"int64": tf.int64, "float32": tf.float32, "string": tf.string}
_HARMLESS = {"int64": 0, "float32": 0.0, "string": b""}
_ROUND = 1 << 12
"""Larger numbers of values are rounded up to a multiple of this, so that few sizes occur."""
_WINDOW = 1 << 16
WINDOW_ROWS = 1 << 12
"""Smaller batches say too little about which integers are frequent."""
_WINDOW_SHARE = 0.8


class ColumnFunction:
    """A TensorFlow function of several columns. Each of its results depends on only one column.

    Args:
        function: The function.
        numbers: The numbers in `Plan.parts` of its results.
        plans: The columns' plans.
    """

    def __init__(self, function: GraphFunction, numbers: Sequence[int], plans: Sequence[ColumnPlan]):
        self._function, self._numbers = function, list(numbers)
        self.plans = {plan.column.name: plan for plan in plans}
        self._first: Future[object] | None = None

    def warm_up(self) -> None:
        """Calls the function on another thread, if no value makes it fail. The next call waits for this call.

        The first call takes as long as many others, because TensorFlow optimizes the function.
        """
        if all(plan.is_total for plan in self.plans.values()):
            thread = ThreadPoolExecutor(1, thread_name_prefix="tidemill-first-call")
            self._first = thread.submit(self._call, {}, {})
            thread.shutdown(wait=False)

    def __call__(self, values: Mapping[str, np.ndarray], has_missing: Mapping[str, bool]) -> dict[int, np.ndarray]:
        """Computes the parts of some columns.

        Args:
            values: Present values by column. Other columns may be left out if none of the functions can fail.
            has_missing: By column, whether to compute the part of a missing value. Defaults to parts that cannot fail.

        Returns:
            By part, at least one element per value and, last, the element of a missing value if there is one.
        """
        if self._first is not None:
            wait([self._first])
        return self._call(values, has_missing)

    def _call(self, values: Mapping[str, np.ndarray], has_missing: Mapping[str, bool]) -> dict[int, np.ndarray]:
        probes = {
            name: _probe(plan, values.get(name, np.empty(0)), has_missing.get(name, False))
            for name, plan in self.plans.items()
        }
        results = self._function(probes)
        wanted = {number for name in values for number in self.plans[name].by_value}
        return {
            number: result.numpy().reshape(-1)
            for number, result in zip(self._numbers, results, strict=True)
            if number in wanted
        }


def _probe(plan: ColumnPlan, values: np.ndarray, has_missing: bool) -> tf.SparseTensor:
    """Returns rows with the values, then rows without one. If no error is possible, there is at least one row of each
    kind."""
    dtype = plan.column.dtype
    if not len(values) and plan.is_total:
        values = np.full(PACKET, _HARMLESS[dtype], object if dtype == "string" else dtype)
    step = PACKET if len(values) <= _ROUND else _ROUND
    if rest := -len(values) % step:
        values = np.append(values, np.repeat(values[-1:], rest))
    rows = len(values) + (PACKET if plan.is_total or has_missing else 0)
    return tf.SparseTensor(_first_rows(len(values)), tf.constant(values, _TF_DTYPES[dtype]), _shape(rows))


@functools.lru_cache(maxsize=128)
def _first_rows(count: int) -> tf.Tensor:
    indices = np.zeros((count, 2), np.int64)
    indices[:, 0] = np.arange(count)
    return tf.constant(indices)


@functools.lru_cache(maxsize=128)
def _shape(rows: int) -> tf.Tensor:
    return tf.constant([rows, 1], tf.int64)


class Window:
    """A window of consecutive integers, with tables of an int64 column's function for them.

    Args:
        low: The first integer.
        tables: By part, the results for the integers, an unused result, and the result for a missing value.
    """

    def __init__(self, low: int, tables: dict[int, np.ndarray]):
        self.low, self.tables = low, tables
        self.outside = len(next(iter(tables.values()))) - 2


def make_windows(function: ColumnFunction, arrays: Mapping[str, pa.Array]) -> dict[str, Window]:
    """Returns windows for the int64 columns whose values are mostly close to each other.

    Args:
        function: A function that cannot fail.
        arrays: Sample rows: columns from `raw.typed`.
    """
    lows, ranges = {}, {}
    for name, plan in function.plans.items():
        values = arrays[name].drop_null().to_numpy() if plan.column.dtype == "int64" else np.empty(0)
        if not plan.is_total or len(values) < WINDOW_ROWS:
            continue
        low, high = int(values.min()), int(values.max())
        size = min(high - low + 1, _WINDOW)
        if np.mean(values.astype(np.float64) - low < size) >= _WINDOW_SHARE and low + size < 2**63:
            lows[name], ranges[name] = low, np.arange(low, low + size, dtype=np.int64)
    if not ranges:
        return {}
    results = function(ranges, {})
    return {
        name: Window(low, {n: _table(results[n], len(ranges[name])) for n in function.plans[name].by_value})
        for name, low in lows.items()
    }


def _table(result: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([result[:count], result[-1:], result[-1:]])


class ColumnValues:
    """One column of a record batch, and the parts computed from it.

    Args:
        plan: The parts to compute.
        array: The column from `raw.typed`.
        window: The window of the column's function; None if it has none.
    """

    def __init__(self, plan: ColumnPlan, array: pa.Array, window: Window | None):
        if pa.types.is_dictionary(array.type) and (not plan.is_total or len(array.dictionary) > 2 * len(array)):
            # A dictionary may hold values that do not occur. A function that can fail must not see them.
            array = array.dictionary_decode()
        self._plan, self._array, self._window, self._rows = plan, array, window, len(array)
        self._is_dictionary = pa.types.is_dictionary(array.type)
        self._valid = None
        if self._is_dictionary:
            # The position after the dictionary's end stands for a missing value.
            indices = array.indices.cast(pa.int32())
            self._positions = (indices.fill_null(len(array.dictionary)) if array.null_count else indices).to_numpy()
        elif array.null_count:
            self._valid = array.is_valid().to_numpy(zero_copy_only=False)

    def by_named_value(self) -> dict[int, np.ndarray]:
        """Returns the parts that are looked up in tables by named value."""
        if self._plan.index is None:
            return {}
        missing = len(self._plan.index)
        if self._is_dictionary:
            positions = np.append(self._plan.index.find(self._array.dictionary), np.int32(missing))
            # Values that are not found have -1, which selects the last entry: values without a name in the graph.
            return {number: table[positions].take(self._positions) for number, table in self._plan.tables.items()}
        positions = self._plan.index.find(self._array)
        if self._valid is not None:
            positions[~self._valid] = missing
        return {number: table[positions] for number, table in self._plan.tables.items()}

    def filled(self) -> dict[int, np.ndarray]:
        """Returns the parts that are the column itself."""
        return {number: self._filled(fill) for number, fill in self._plan.fills.items()}

    def _filled(self, fill: object) -> np.ndarray:
        array = self._array
        if self._is_dictionary:
            return _with_last(array.dictionary.to_numpy(zero_copy_only=False), fill).take(self._positions)
        if array.null_count:
            array = array.fill_null(pa.scalar(fill, array.type))
        return array.to_numpy(zero_copy_only=False)

    def needed(self) -> np.ndarray:
        """Returns the values for which the column's function must be called: all, or those outside the window."""
        if self._is_dictionary:
            return self._array.dictionary.to_numpy(zero_copy_only=False)
        if self._window is None:
            return (self._array.drop_null() if self._array.null_count else self._array).to_numpy(zero_copy_only=False)
        numbers = np.frombuffer(self._array.buffers()[1], np.int64, self._rows, self._array.offset * 8)
        # As unsigned integers, values below the window are far above it.
        self._positions = numbers - np.int64(self._window.low)
        unsigned = self._positions.view(np.uint64)
        np.minimum(unsigned, np.uint64(self._window.outside), out=unsigned)
        if self._valid is not None:
            self._positions[~self._valid] = self._window.outside + 1
        self._outside = np.flatnonzero(self._positions == self._window.outside)
        return numbers[self._outside]

    @property
    def has_missing(self) -> bool:
        """Whether a row has no value."""
        return self._array.null_count > 0

    def by_value(self, results: Mapping[int, np.ndarray], count: int) -> dict[int, np.ndarray]:
        """Returns the parts that the column's function computes.

        Args:
            results: The function's results for `needed`, by part. May be empty if nothing was needed.
            count: Number of values that were needed.
        """
        return {number: self._spread(number, results, count) for number in self._plan.by_value}

    def _spread(self, number: int, results: Mapping[int, np.ndarray], count: int) -> np.ndarray:
        if self._window is not None:
            spread = self._window.tables[number].take(self._positions)
            if count:
                spread[self._outside] = results[number][:count]
            return spread
        result = results[number]
        if self._is_dictionary:
            return np.append(result[:count], result[-1:]).take(self._positions)
        if self._valid is None:
            return result[:count]
        spread = np.empty(self._rows, result.dtype)
        spread[self._valid] = result[:count]
        spread[~self._valid] = result[-1]
        return spread


def _with_last(values: np.ndarray, last: object) -> np.ndarray:
    result = np.empty(len(values) + 1, object)
    result[:-1], result[-1] = values, last
    return result
