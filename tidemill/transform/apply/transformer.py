"""The transformer of raw rows: applies a transform graph to record batches and Parquet files. Imports TensorFlow."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tidemill.artifacts.labels import count_ones
from tidemill.cpus import available_cpus
from tidemill.errors import Code, TidemillError
from tidemill.transform.apply.kernels import WINDOW_ROWS, ColumnFunction, ColumnValues, Window, make_windows
from tidemill.transform.apply.plan import RowFunction, fill_tables, make_plan
from tidemill.transform.apply.probes import PACKET
from tidemill.transform.apply.saved_transform import SavedTransform
from tidemill.transform.apply.transform_files import transform_files
from tidemill.transform.graph import TRANSFORM_FN, TransformGraph
from tidemill.transform.raw import typed
from tidemill.transform.rows.tensors import sparse_lists
from tidemill.transform.tft.shortcuts import quick_ops
from tidemill.transform.transformed import check_ids, given_label, transformed_schema

_CALL_ROWS = 1 << 14


class Transformer:
    """A transform graph that is ready to be applied. Several threads may use it.

    The results do not depend on the number of threads, and a row's numbers do not depend on the rows around it:
    TensorFlow always computes them in packets.

    Args:
        graph: The graph, which is loaded once.
        threads: Number of threads that `files` uses. Defaults to the cores that this process may use.

    Attributes:
        schema: The columns of the results, see `transformed_schema`.
        summary: How many outputs are computed in which way, for a log.
    """

    @quick_ops()
    def __init__(self, graph: TransformGraph, threads: int | None = None):
        self.schema = transformed_schema(graph)
        self.threads = threads or available_cpus()
        self._labels, self._given_labels = graph.labels, graph.given_labels
        self._columns = {column.name: column for column in graph.row_columns()}
        self._offsets = graph.offsets
        self._num_ids = graph.num_ids
        # Keeps the tables alive.
        self._saved = saved = SavedTransform(graph.path / TRANSFORM_FN)
        names = [name for name in self.schema.names if name not in self._given_labels]
        self._plan = make_plan(saved, list(self._columns.values()), names)
        self._functions = [
            ColumnFunction(function, numbers, [plan for plan in self._plan.columns if plan.function == index])
            for index, (function, numbers) in enumerate(self._plan.functions)
        ]
        if self.threads > 1:
            for function in self._functions:
                function.warm_up()
        fill_tables(saved, self._plan)
        self._windows: dict[str, Window] | None = None
        self._making_windows = threading.Lock()
        self._missing = {name: value.dtype for name, value in saved.inputs.items() if name not in self._columns}
        self._finish_tables()
        self.summary = self._plan.summary()

    @property
    def columns(self) -> list[str]:
        """The raw columns that `batch` needs."""
        return [*self._columns, *(label for label in self._given_labels if label not in self._columns)]

    def batch(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Transforms rows.

        Args:
            batch: Rows with at least `columns`.

        Returns:
            The same rows, in the same order, with the columns of `schema`.

        Raises:
            TidemillError: `missing-column` or `feature-type`; `label-null` or `label-type`; `transform-failed` if an id
                is outside its domain, or an output does not have one value per row.
        """
        arrays = {name: typed(batch, column) for name, column in self._columns.items()}
        parts = self._parts(arrays, batch.num_rows)
        outputs = {}
        for name, number in self._plan.direct.items():
            is_done = number in self._finished
            outputs[name] = parts[number] if is_done else self._finish(name, parts[number], batch.num_rows)
        for function in self._plan.rows:
            for name, values in self._run(function, arrays, parts, batch.num_rows).items():
                outputs[name] = self._finish(name, values, batch.num_rows)
        outputs |= {label: given_label(batch, label) for label in self._given_labels}
        for label in self._labels:
            count_ones(label, outputs[label])
        return pa.RecordBatch.from_arrays([pa.array(outputs[name]) for name in self.schema.names], schema=self.schema)

    def files(
        self,
        pairs: Sequence[tuple[str | os.PathLike, str | os.PathLike]],
        on_rows: Callable[[int], None] = lambda rows: None,
    ) -> None:
        """Transforms Parquet files, each to one with the same rows in the same order.

        At most `threads + 2` row groups are in memory.

        Args:
            pairs: Source and target of each file. The targets' folders must exist.
            on_rows: Called with a number of rows that are written, on any thread but never on two at once.

        Raises:
            TidemillError: See `batch`.
        """
        texts = [column.name for column in self._columns.values() if column.dtype == "string" and not column.is_list]
        transform_files(pairs, self.columns, texts, self.schema, self.batch, self.threads, on_rows)

    def _parts(self, arrays: dict[str, pa.Array], rows: int) -> dict[int, np.ndarray]:
        """Returns the parts of the plan that are computed from one column, by number."""
        if self._windows is None and rows >= WINDOW_ROWS:
            self._make_windows(arrays)
        windows = self._windows or {}
        parts: dict[int, np.ndarray] = {}
        columns = {}
        for plan in self._plan.columns:
            name = plan.column.name
            columns[name] = column = ColumnValues(plan, arrays[name], windows.get(name))
            parts |= column.by_named_value() | column.filled()
        for function in self._functions:
            needed = {name: columns[name].needed() for name in function.plans}
            called = {name: values for name, values in needed.items() if len(values) or name not in windows}
            results = function(called, {name: columns[name].has_missing for name in called}) if called else {}
            for name, values in needed.items():
                parts |= columns[name].by_value(results, len(values))
        return parts

    def _make_windows(self, arrays: dict[str, pa.Array]) -> None:
        """Makes the windows from the first batch that is large enough. Windows change no result."""
        with self._making_windows:
            if self._windows is None:
                made = [make_windows(function, arrays) for function in self._functions]
                self._windows = {name: window for windows in made for name, window in windows.items()}

    def _run(
        self, function: RowFunction, arrays: dict[str, pa.Array], parts: dict[int, np.ndarray], rows: int
    ) -> dict[str, np.ndarray]:
        """Returns outputs that are computed for all rows, in several calls."""
        pieces: dict[str, list[np.ndarray]] = {name: [] for name in function.outputs}
        for start in range(0, max(rows, 1), _CALL_ROWS):
            count = min(_CALL_ROWS, rows - start)
            # If a result depends only on its row, added rows do not change the others.
            rest = -count % PACKET if function.is_rowwise and count and not function.function.inputs else 0
            feeds = []
            for tensor, (number, shape) in zip(function.function.feeds, function.feeds, strict=True):
                values = parts[number][start : start + count]
                feeds.append(tf.constant(np.append(values, values[-1:].repeat(rest)).reshape(shape), tensor.dtype))
            inputs = {name: self._sparse(name, arrays, start, count) for name in function.function.inputs}
            for name, result in zip(function.outputs, function.function(inputs, feeds), strict=True):
                values = result.numpy()
                _check_length(name, values, count + rest)
                pieces[name].append(values.reshape(-1)[:count])
        return {name: np.concatenate(piece) for name, piece in pieces.items()}

    def _sparse(self, name: str, arrays: dict[str, pa.Array], start: int, count: int) -> tf.SparseTensor:
        """Returns a raw input as a sparse tensor: `[rows, 1]`, or `[rows, longest]` for a list."""
        if name not in self._columns:
            empty = tf.constant([], self._missing[name], shape=[0])
            return tf.SparseTensor(np.empty((0, 2), np.int64), empty, np.array([count, 1]))
        array = arrays[name].slice(start, count)
        if self._columns[name].is_list:
            return sparse_lists(array)
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        where = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
        indices = np.stack([where, np.zeros_like(where)], axis=1)
        values = array.drop_null().to_numpy(zero_copy_only=False)
        return tf.SparseTensor(indices, tf.constant(values, _TF_DTYPES[self._columns[name].dtype]), [count, 1])

    def _finish_tables(self) -> None:
        """Converts the tables of outputs to their final type if all values are in their domain."""
        self._finished: set[int] = set()
        fed = {number for function in self._plan.rows for number, _ in function.feeds}
        names = {number: name for name, number in self._plan.direct.items()}
        shared = len(names) < len(self._plan.direct)
        for plan in self._plan.columns:
            for number, table in plan.tables.items():
                if number in fed or number not in names or shared:
                    continue
                finished = self._typed(names[number], table)
                if _is_inside(finished, self._num_ids.get(names[number])):
                    plan.tables[number] = finished
                    self._finished.add(number)

    def _finish(self, name: str, values: np.ndarray, rows: int) -> np.ndarray:
        _check_length(name, values, rows)
        values = self._typed(name, values.reshape(-1))
        if name in self._num_ids:
            check_ids(name, values, self._num_ids[name])
        return values

    def _typed(self, name: str, values: np.ndarray) -> np.ndarray:
        if offset := self._offsets.get(name):
            values = values + np.array(offset, values.dtype)
        return values.astype(self.schema.field(name).type.to_pandas_dtype(), copy=False)


_TF_DTYPES = {"int64": tf.int64, "float32": tf.float32, "string": tf.string}


def _check_length(name: str, values: np.ndarray, rows: int) -> None:
    if values.size != rows:
        got = f"{values.size} values for {rows} rows"
        raise TidemillError(Code.TRANSFORM_FAILED, f"output {name!r}", got, "return one value per row")


def _is_inside(ids: np.ndarray, num_ids: int | None) -> bool:
    return num_ids is None or (ids.min() >= 0 and ids.max() < num_ids)
