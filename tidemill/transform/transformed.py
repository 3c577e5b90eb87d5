"""Transformed examples: their schema, their checks, and the transform of one shard after another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.artifacts.examples import ROW_GROUP_ROWS, numbers_writer
from tidemill.artifacts.labels import count_ones, label_error
from tidemill.errors import Code, TidemillError
from tidemill.transform.graph import TransformGraph
from tidemill.transform.raw import raw_dtype, to_dense

_CALL_ROWS = 1 << 14


def transformed_schema(graph: TransformGraph) -> pa.Schema:
    """Returns the columns of transformed examples: ids as int32, numbers as float32 and, last, the labels as float32.

    The columns are declared as not nullable, because files without null marks are read and written in a fifth less
    time.
    """
    columns = [(f["name"], pa.int32() if f["kind"] == "id" else pa.float32()) for f in graph.features]
    columns += [(label, pa.float32()) for label in graph.labels]
    return pa.schema([pa.field(name, dtype, nullable=False) for name, dtype in columns])


class ShardTransformer:
    """Transforms shards with TensorFlow only, row by row. Beam's workers use it.

    Args:
        graph: The graph, which is loaded once.
    """

    def __init__(self, graph: TransformGraph):
        self._graph = graph
        self._schema = transformed_schema(graph)
        self._columns = graph.row_columns()
        self._module = graph.row_function()
        self._function = self._module.concrete()
        self._num_ids = graph.num_ids

    def run(self, source: str | os.PathLike, target: str | os.PathLike, on_rows: Callable[[int], None]) -> None:
        """Transforms one Parquet file to another with the same rows in the same order, in bounded memory.

        Args:
            source: The shard of examples.
            target: The file to write.
            on_rows: Called with the number of rows of each finished batch.

        Raises:
            TidemillError: `label-null` or `label-type`; `transform-failed` if an id is outside its domain.
        """
        names = [column.name for column in self._columns]
        names += [label for label in self._graph.given_labels if label not in names]
        texts = [column.name for column in self._columns if column.dtype == "string" and not column.is_list]
        with (
            pq.ParquetFile(source, read_dictionary=texts) as file,
            numbers_writer(target, self._schema) as writer,
        ):
            for batch in file.iter_batches(batch_size=ROW_GROUP_ROWS, columns=names):
                table = pa.Table.from_batches([self._transform(piece) for piece in _pieces(batch)], self._schema)
                writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
                on_rows(batch.num_rows)

    def _transform(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        import tensorflow as tf

        dense = to_dense(batch, self._columns)
        outputs = self._function({name: tf.constant(values) for name, values in dense.items()})
        arrays = {name: value.numpy() for name, value in outputs.items()}
        for name, values in arrays.items():
            if len(values) != batch.num_rows:
                got = f"{len(values)} values for {batch.num_rows} rows"
                raise TidemillError(Code.TRANSFORM_FAILED, f"output {name!r}", got, "return one value per row")
        for name, num_ids in self._num_ids.items():
            check_ids(name, arrays[name], num_ids)
        arrays |= {label: given_label(batch, label) for label in self._graph.given_labels}
        for label in self._graph.labels:
            count_ones(label, arrays[label])
        return pa.RecordBatch.from_arrays([pa.array(arrays[name]) for name in self._schema.names], schema=self._schema)


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    for start in range(0, batch.num_rows, _CALL_ROWS):
        yield batch.slice(start, _CALL_ROWS)


def given_label(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """Returns a label that is a raw column: float32 `[rows]`, NaN for nulls.

    Raises:
        TidemillError: `label-type` for a column that holds neither numbers nor booleans.
    """
    column = batch.column(name)
    if raw_dtype(column.type) not in ("int64", "float32"):
        raise label_error(Code.LABEL_TYPE, name, f"a column of type {column.type}")
    return column.cast(pa.float32()).to_numpy(zero_copy_only=False)


def check_ids(name: str, ids: np.ndarray, num_ids: int) -> None:
    """Raises `transform-failed` for ids that are not in 0 to `num_ids - 1`."""
    if len(ids) and not (ids.min() >= 0 and ids.max() < num_ids):
        got = f"ids from {ids.min()} to {ids.max()}, outside the schema's 0 to {num_ids - 1}"
        raise TidemillError(Code.TRANSFORM_FAILED, f"output {name!r}", got, "keep the ids within the vocabulary")
