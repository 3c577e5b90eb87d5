"""Rows of Parquet files. Imports TensorFlow."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2

from tidemill import fingerprint
from tidemill.duckdb_session import quote
from tidemill.transform.raw import SENTINELS, RawColumn, is_list, typed
from tidemill.transform.rows import tensors
from tidemill.transform.rows.row_source import BATCH_ROWS, RowFile, Scan
from tidemill.transform.rows.tensors import Adapter, columns_of

_ARROW = {"int64": pa.int64(), "float32": pa.float32(), "string": pa.large_binary()}
_SQL_TYPES = {"int64": "BIGINT", "float32": "FLOAT", "string": "VARCHAR"}


class ParquetRows:
    """Rows of Parquet files, with columns of scalars (nullable or not) and of lists.

    A column is a sparse tensor `[rows, longest list]`, as in TFX. A null has no value; `raw.typed` defines which other
    values are missing. A tensor with a representation is made by tfx_bsl from the file's values, and there only nulls
    are missing.

    Args:
        paths: The files, in row order. All have the columns.
        columns: The columns to read, with the dtypes of their tensors.
        representations: By tensor, how it is made from the columns. Defaults to one sparse tensor per column.
        batch_rows: Maximum rows of a batch. Defaults to 8192.
        keys: Identifies the content of each file. Defaults to None: unknown.

    Attributes:
        specs, files, batch_rows, fingerprint: See `RowSource`.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike],
        columns: Sequence[RawColumn],
        *,
        representations: Mapping[str, schema_pb2.TensorRepresentation] | None = None,
        batch_rows: int = BATCH_ROWS,
        keys: Sequence[str | None] | None = None,
    ):
        self._columns = {column.name: column for column in columns}
        self._paths = tuple(str(path) for path in paths)
        self.batch_rows = batch_rows
        representations = dict(representations or {})
        represented = {name for representation in representations.values() for name in columns_of(representation)}
        files, self._schema = [], pa.schema([])
        for index, (path, key) in enumerate(zip(self._paths, keys or [None] * len(self._paths), strict=True)):
            with pq.ParquetFile(path) as file:
                if index == 0:
                    self._schema = file.schema_arrow
                metadata = file.metadata
            units = tuple(_RowGroupUnit(self, path, metadata, group) for group in range(metadata.num_row_groups))
            files.append(RowFile(index, key, units, metadata.num_rows))
        self.files: tuple[RowFile, ...] = tuple(files)
        self._lower_case_names = collections.Counter(name.lower() for name in self._schema.names)
        self._adapter = Adapter(_adapted_schema(self._schema, columns, represented), representations)
        flat = {
            column.name: tf.SparseTensorSpec([None, None], tensors.TF_DTYPES[column.dtype])
            for column in columns
            if column.name not in represented
        }
        self.specs = flat | self._adapter.specs
        # A flat column's tensor depends only on its name, its dtype (both in the graph) and the file.
        self.fingerprint = fingerprint.of_json(["parquet", self._adapter.fingerprint, batch_rows])

    def feed(self, batch: pa.RecordBatch, names: Sequence[str]) -> dict:
        """See `RowSource.feed`."""
        fed = self._adapter.feed(self._adapted(batch), [name for name in names if name in self._adapter.specs])
        for name in names:
            if name not in fed:
                array = self.typed(batch, name)
                fed[name] = tensors.sparse_lists(array) if self._columns[name].is_list else tensors.sparse(array)
        return fed

    def is_flat(self, name: str) -> bool:
        """See `RowSource.is_flat`."""
        return name in self.specs and name not in self._adapter.specs and not self._columns[name].is_list

    def typed(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        """See `RowSource.typed`. For a column of lists, the lists without nulls."""
        return typed(batch, self._columns[name])

    def scan(self, name: str) -> Scan | None:
        """See `RowSource.scan`."""
        if not self.is_flat(name) or name not in self._schema.names:
            return None
        if self._lower_case_names[name.lower()] > 1:
            # DuckDB treats names that differ only in case as one.
            return None
        column = self._columns[name]
        type_ = self._schema.field(name).type
        sql = _sql(column, type_)
        return None if sql is None else Scan(self._paths, name, column.dtype, type_, sql)

    def _adapted(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        arrays = {
            f.name: _as_lists(batch.column(f.name), f.type)
            for f in self._adapter.schema
            if f.name in batch.schema.names
        }
        return pa.RecordBatch.from_pydict(arrays) if arrays else batch

    def _columns_for(self, names: Sequence[str]) -> list[str]:
        return self._adapter.columns([n for n in names if n in self._adapter.specs]) + [
            name for name in names if name not in self._adapter.specs
        ]


@dataclass(frozen=True, eq=False)
class _RowGroupUnit:
    """A row group. The file's metadata is read once and shared."""

    owner: ParquetRows
    path: str
    metadata: pq.FileMetaData
    index: int

    @property
    def rows(self) -> int:
        return self.metadata.row_group(self.index).num_rows

    def batches(self, names: Sequence[str], batch_rows: int | None = None) -> Iterator[pa.RecordBatch]:
        """See `Unit.batches`."""
        # `feed` reports a missing column.
        columns = [c for c in self.owner._columns_for(names) if c in self.owner._schema.names]
        with pq.ParquetFile(self.path, metadata=self.metadata) as file:
            most = batch_rows or self.owner.batch_rows
            yield from file.iter_batches(most, row_groups=[self.index], columns=columns, use_threads=False)


def _adapted_schema(schema: pa.Schema, columns: Sequence[RawColumn], represented: set[str]) -> pa.Schema:
    """Returns the schema of the columns that tfx_bsl turns into tensors, as lists, which tfx_bsl requires."""
    fields = []
    for column in columns:
        if column.name in represented and column.name in schema.names:
            fields.append(pa.field(column.name, _list_type(schema.field(column.name).type, _ARROW[column.dtype])))
    return pa.schema(fields)


def _list_type(type_: pa.DataType, value: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(type_):
        return type_
    return pa.large_list(_list_type(type_.value_type, value) if _nested(type_) else value)


def _nested(type_: pa.DataType) -> bool:
    return is_list(type_) and is_list(type_.value_type)


def _as_lists(array: pa.Array, type_: pa.DataType) -> pa.Array:
    """Returns a column as lists of the type. A null becomes a null list, which is TFX's missing value."""
    if is_list(array.type) or pa.types.is_struct(array.type):
        return array if array.type == type_ else array.cast(type_)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    values = array.cast(type_.value_type, safe=not pa.types.is_floating(type_.value_type))
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values.is_valid().to_numpy(zero_copy_only=False), out=offsets[1:])
    return pa.LargeListArray.from_arrays(pa.array(offsets), values.drop_null(), type=type_, mask=values.is_null())


def _sql(column: RawColumn, type_: pa.DataType) -> str | None:
    name = quote(column.name)
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_null(type_):
        return f"CAST(NULL AS {_SQL_TYPES[column.dtype]})"
    if column.dtype == "string":
        is_text = pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)
        missing = "chr(0)" if is_text else r"'\x00'::BLOB"
        return f"NULLIF({name}, {missing})"
    if column.dtype == "int64":
        # Arrow rejects fractions and names the column; DuckDB would round them.
        whole = (pa.types.is_integer(type_) and type_ != pa.uint64()) or pa.types.is_boolean(type_)
        return f"NULLIF(CAST({name} AS BIGINT), {SENTINELS['int64']})" if whole else None
    value = f"CAST({name} AS DOUBLE)" if pa.types.is_decimal(type_) else name
    # A number too large for a float is infinite in Arrow and an error in CAST. It is missing either way.
    value = f"TRY_CAST({value} AS FLOAT)"
    return f"CASE WHEN isfinite({value}) THEN {value} END"
