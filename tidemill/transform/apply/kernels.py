"""What a plan computes from one column of a record batch, and TensorFlow functions of columns. Imports TensorFlow."""

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
"""A batch of fewer rows says too little about which integers are frequent."""
_WINDOW_SHARE = 0.8


class ColumnFunction:
    """A function of several columns, each of whose results depends on one of them.

    Args:
        function: The function.
        numbers: The plan's parts that it gives.
        plans: The columns.
    """

    def __init__(self, function: GraphFunction, numbers: Sequence[int], plans: Sequence[ColumnPlan]):
        self._function, self._numbers = function, list(numbers)
        self.plans = {plan.column.name: plan for plan in plans}
        self._first: Future[object] | None = None

    def begin(self) -> None:
        """Lets a thread call the function with harmless values, if none makes it fail; the next call waits for that.

        The first call takes as long as many others, because TensorFlow works on the function.
        """
        if all(plan.is_total for plan in self.plans.values()):
            thread = ThreadPoolExecutor(1, thread_name_prefix="tidemill-first-call")
            self._first = thread.submit(self._call, {}, {})
            thread.shutdown(wait=False)

    def __call__(self, values: Mapping[str, np.ndarray], has_missing: Mapping[str, bool]) -> dict[int, np.ndarray]:
        """The parts of the columns that are given.

        Args:
            values: Present values by column. Others may be left out if no column's functions may fail.
            has_missing: Whether to compute what a missing value gives, by column. Defaults to what cannot fail.

        Returns:
            By part at least one element for each value, and last, where there is one, that of a missing value.
        """
        if self._first is not None:
            wait([self._first])
        return self._call(values, has_missing)

    def _call(self, values: Mapping[str, np.ndarray], has_missing: Mapping[str, bool]) -> dict[int, np.ndarray]:
        probes = {
            name: _probe(plan, values.get(name, ()), has_missing.get(name, False)) for name, plan in self.plans.items()
        }
        results = self._function(probes)
        wanted = {number for name in values for number in self.plans[name].by_value}
        return {
            number: result.numpy().reshape(-1)
            for number, result in zip(self._numbers, results, strict=True)
            if number in wanted
        }


def _probe(plan: ColumnPlan, values: np.ndarray, has_missing: bool) -> tf.SparseTensor:
    """RowSource with the values, then rows without one. Where no error can come of it, there are some of each."""
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
    """What a function of an int64 column gives for integers that follow one another, as tables.

    Args:
        low: The first of them.
        tables: By part the results for the integers, for a place outside (of no use), and for a missing value.
    """

    def __init__(self, low: int, tables: dict[int, np.ndarray]):
        self.low, self.tables = low, tables
        self.outside = len(next(iter(tables.values()))) - 2


def make_windows(function: ColumnFunction, arrays: Mapping[str, pa.Array]) -> dict[str, Window]:
    """Windows for the int64 columns of which most values lie near one another.

    Args:
        function: A function that cannot fail.
        arrays: RowSource to judge by: columns as `raw.typed` gives them.
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
    found = function(ranges, {})
    return {
        name: Window(low, {n: _table(found[n], len(ranges[name])) for n in function.plans[name].by_value})
        for name, low in lows.items()
    }


def _table(result: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([result[:count], result[-1:], result[-1:]])


class ColumnValues:
    """One column of a record batch, and what is computed from it.

    Args:
        plan: What to compute.
        array: The column as `raw.typed` gives it.
        window: Of the column's function; None where it has none.
    """

    def __init__(self, plan: ColumnPlan, array: pa.Array, window: Window | None):
        if pa.types.is_dictionary(array.type) and (not plan.is_total or len(array.dictionary) > 2 * len(array)):
            # A dictionary may hold values that do not occur, which a function that may fail must not see.
            array = array.dictionary_decode()
        self._plan, self._array, self._window, self._rows = plan, array, window, len(array)
        self._is_dictionary = pa.types.is_dictionary(array.type)
        self._valid = None
        if self._is_dictionary:
            # One past the dictionary's end stands for a missing value.
            indices = array.indices.cast(pa.int32())
            self._places = (indices.fill_null(len(array.dictionary)) if array.null_count else indices).to_numpy()
        elif array.null_count:
            self._valid = array.is_valid().to_numpy(zero_copy_only=False)

    def by_class(self) -> dict[int, np.ndarray]:
        """The parts that are computed by class."""
        if self._plan.index is None:
            return {}
        missing = len(self._plan.index)
        if self._is_dictionary:
            classes = np.append(self._plan.index.find(self._array.dictionary), np.int32(missing))
            # What is not found is -1: the class of the values that are not named is the last.
            return {number: table[classes].take(self._places) for number, table in self._plan.tables.items()}
        classes = self._plan.index.find(self._array)
        if self._valid is not None:
            classes[~self._valid] = missing
        return {number: table[classes] for number, table in self._plan.tables.items()}

    def filled(self) -> dict[int, np.ndarray]:
        """The parts that are the column itself."""
        return {number: self._filled(fill) for number, fill in self._plan.fills.items()}

    def _filled(self, fill: object) -> np.ndarray:
        array = self._array
        if self._is_dictionary:
            return _with_last(array.dictionary.to_numpy(zero_copy_only=False), fill).take(self._places)
        if array.null_count:
            array = array.fill_null(pa.scalar(fill, array.type))
        return array.to_numpy(zero_copy_only=False)

    def needed(self) -> np.ndarray:
        """The values for which the column's function has to be called: each that there is, or that no window has."""
        if self._is_dictionary:
            return self._array.dictionary.to_numpy(zero_copy_only=False)
        if self._window is None:
            return (self._array.drop_null() if self._array.null_count else self._array).to_numpy(zero_copy_only=False)
        numbers = np.frombuffer(self._array.buffers()[1], np.int64, self._rows, self._array.offset * 8)
        # As unsigned integers, those below the window are far above it.
        self._places = numbers - np.int64(self._window.low)
        unsigned = self._places.view(np.uint64)
        np.minimum(unsigned, np.uint64(self._window.outside), out=unsigned)
        if self._valid is not None:
            self._places[~self._valid] = self._window.outside + 1
        self._outside = np.flatnonzero(self._places == self._window.outside)
        return numbers[self._outside]

    @property
    def has_missing(self) -> bool:
        """Whether a row has no value."""
        return self._array.null_count > 0

    def by_value(self, results: Mapping[int, np.ndarray], count: int) -> dict[int, np.ndarray]:
        """The parts that the column's function gives.

        Args:
            results: What it gave for `needed`, by part. May be empty where nothing was needed.
            count: How many values were needed.
        """
        return {number: self._spread(number, results, count) for number in self._plan.by_value}

    def _spread(self, number: int, results: Mapping[int, np.ndarray], count: int) -> np.ndarray:
        if self._window is not None:
            spread = self._window.tables[number].take(self._places)
            if count:
                spread[self._outside] = results[number][:count]
            return spread
        result = results[number]
        if self._is_dictionary:
            return np.append(result[:count], result[-1:]).take(self._places)
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
