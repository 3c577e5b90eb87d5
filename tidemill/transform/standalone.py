"""The transform engine by itself, for notebooks and other pipelines. Imports TensorFlow.

It replaces `tft_beam.AnalyzeAndTransformDataset` on one machine: the same preprocessing_fn, the same artifact.
"""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io, schema_utils
from tfx_bsl.tfxio import tensor_representation_util

from tidemill import fingerprint
from tidemill.artifacts import artifact
from tidemill.artifacts.examples import ROW_GROUP_ROWS
from tidemill.cpus import available_cpus
from tidemill.errors import Code, TidemillError
from tidemill.frames import as_table
from tidemill.transform.analysis.passes import map_in_order
from tidemill.transform.apply.saved_transform import BatchTransformer
from tidemill.transform.canonical import canonicalize
from tidemill.transform.graph import RAW_METADATA, TRANSFORM_FN
from tidemill.transform.local_engine import analyze_rows
from tidemill.transform.raw import PreprocessingFn, RawColumn, is_list, raw_column
from tidemill.transform.rows.parquet_rows import ParquetRows
from tidemill.transform.rows.tensors import columns_of

_DTYPES = {schema_pb2.INT: "int64", schema_pb2.FLOAT: "float32", schema_pb2.BYTES: "string"}
_TF_DTYPES = {"int64": tf.int64, "float32": tf.float32, "string": tf.string}

Tabular = Any
"""Parquet files (a path, a glob or a sequence of them), a `pa.Table`, a `pa.RecordBatch`, an iterable of record
batches, or a data frame of pandas or Polars."""
SchemaLike = schema_pb2.Schema | dataset_metadata.DatasetMetadata | Mapping[str, Any]
"""A `Schema`, a `DatasetMetadata`, or a feature spec such as `{"x": tf.io.FixedLenFeature([], tf.float32)}`."""


def analyze(
    data: Tabular,
    preprocessing_fn: PreprocessingFn,
    *,
    schema: SchemaLike | None = None,
    output: str | os.PathLike[str] | None = None,
    analyzer_cache: str | os.PathLike[str] | None = None,
    threads: int | None = None,
) -> Transform:
    """Runs the analyzers of a TensorFlow Transform preprocessing_fn over data, without Beam.

    The function receives the tensors that `tft_beam.AnalyzeAndTransformDataset` would pass to it for the same schema: a
    `FixedLenFeature([])` is a dense tensor `[batch]`, a `FixedLenFeature([n])` is `[batch, n]`, and a `VarLenFeature`
    is a sparse tensor `[batch, longest]`. The result is the artifact that Beam writes, with byte-equal vocabularies.

    Args:
        data: Parquet files (a path, a glob or a sequence of them), a `pa.Table`, a `pa.RecordBatch`, an iterable of
            record batches, or a data frame of pandas or Polars.
        preprocessing_fn: Takes tensors by name and returns tensors (dense, sparse or ragged) by name.
        schema: A `schema_pb2.Schema`, a `DatasetMetadata`, or a feature spec. Defaults to the columns of the data. A
            column without nulls becomes `FixedLenFeature([])`, a fixed-size list without nulls `FixedLenFeature([n])`,
            and other columns `VarLenFeature`. Integers and booleans become int64, floats and decimals float32, strings
            and binaries string. Columns of other types (times, structs) are not passed to the function.
        output: Folder to write the artifact to. It must not exist, be empty, or hold an earlier artifact, which is
            replaced. Defaults to a temporary folder that exists as long as the returned object.
        analyzer_cache: Folder with the accumulators of each file, so that an analysis over more Parquet files reads
            only the new ones. Created if it does not exist. Defaults to none.
        threads: Number of threads. Defaults to the cores that this process may use.

    Returns:
        The transform, to be applied to the same or to other data.

    Raises:
        TidemillError: `missing-file` if no file matches; `missing-column` or `feature-type` if a column of the schema
            is missing or has another type; `unreadable-file` for a file that is not Parquet; `invalid-value` if
            `preprocessing_fn` is no function; `unsupported` for an analyzer that is a Beam PTransform; `unusable-path`
            if `output` holds something else.

    Example:
        >>> import pyarrow as pa
        >>> import tensorflow_transform as tft
        >>> from tidemill.transform import analyze
        >>> def preprocessing_fn(inputs):
        ...     return {
        ...         "x_centered": inputs["x"] - tft.mean(inputs["x"]),
        ...         "s_integerized": tft.compute_and_apply_vocabulary(inputs["s"]),
        ...     }
        >>> table = pa.table({"x": [1.0, 2.0, 3.0], "s": ["hello", "world", "hello"]})
        >>> transform = analyze(table, preprocessing_fn)
        >>> transform.apply(table).to_pydict()
        {'s_integerized': [0, 1, 0], 'x_centered': [-1.0, 0.0, 1.0]}
    """
    if not callable(preprocessing_fn):
        got, want = f"a {type(preprocessing_fn).__name__}", "give a function that takes and returns tensors by name"
        raise TidemillError(Code.INVALID_VALUE, "preprocessing_fn", got, want)
    threads = threads or available_cpus()
    temporary = None
    if output is None:
        temporary = tempfile.TemporaryDirectory(prefix="tidemill-transform-")
        folder = Path(temporary.name)
    else:
        folder = Path(output)
        _refuse_other_content(folder)
    with _parquet_files(data) as paths:
        raw_schema = _infer_schema(paths) if schema is None else _as_schema(schema)
        keys = None if analyzer_cache is None else [fingerprint.of_file(path) for path in paths]
        rows = _open_rows(paths, raw_schema, keys)
        with artifact.write_folder(folder) as partial:
            cache = None if analyzer_cache is None else Path(analyzer_cache)
            analyze_rows(preprocessing_fn, rows, partial, threads=threads, analyzer_cache=cache)
            canonicalize(partial / TRANSFORM_FN)
            metadata = dataset_metadata.DatasetMetadata(raw_schema)
            metadata_io.write_metadata(metadata, str(partial / RAW_METADATA))
    transform = Transform(folder, threads=threads)
    transform._temporary = temporary
    return transform


class Transform:
    """A transform on disk, to be applied to data.

    Args:
        path: A folder that `analyze` wrote.
        threads: Number of threads. Defaults to the cores that this process may use.

    Raises:
        TidemillError: `incomplete-artifact` if there is no transform.

    Attributes:
        path: The folder, which `tft.TFTransformOutput(path)` opens.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None):
        self.path = Path(path)
        if not (self.path / RAW_METADATA).is_dir():
            want = "name a folder that tidemill.transform.analyze wrote"
            raise TidemillError(Code.INCOMPLETE_ARTIFACT, str(path), "no transform", want)
        self._threads = threads or available_cpus()
        self._raw_schema = metadata_io.read_metadata(str(self.path / RAW_METADATA)).schema
        self._transformer = BatchTransformer(self.path)
        self._scalars = _scalar_outputs(self._transformer.schema)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        """Removes the folder together with this object."""

    @property
    def transformed_schema(self) -> schema_pb2.Schema:
        """The schema of the outputs, as TensorFlow Transform writes it."""
        return self._transformer.schema

    @property
    def raw_schema(self) -> schema_pb2.Schema:
        """The schema of the inputs."""
        return self._raw_schema

    @property
    def tft_output(self) -> tft.TFTransformOutput:
        """The artifact, opened by TensorFlow Transform, for serving functions and training input."""
        return tft.TFTransformOutput(str(self.path))

    def apply(self, data: Tabular) -> pa.Table:
        """Transforms data in memory.

        Args:
            data: See `analyze`. The columns of the inputs that the outputs depend on are required.

        Returns:
            The rows in order, as an Arrow table whatever `data` is, with the outputs sorted by name.
            A dense output `[batch]` is a column of numbers or binaries, others are lists.

        Raises:
            TidemillError: `missing-file`, `missing-column` or `feature-type`.
        """
        batches = list(self.apply_batches(data))
        return pa.Table.from_batches(batches or [_flattened(self._transformer.empty(), self._scalars)])

    def apply_batches(self, data: Tabular) -> Iterator[pa.RecordBatch]:
        """Transforms data of any size, a few row groups at a time.

        Args:
            data: See `apply`.

        Yields:
            Record batches of up to 8192 rows, in order, with the columns of `apply`.

        Raises:
            TidemillError: See `apply`.
        """
        with _parquet_files(data) as paths:
            rows = _open_rows(paths, self._raw_schema, names=self._transformer.inputs)
            units = [unit for file in rows.files for unit in file.units]
            results = map_in_order(lambda unit: list(self._transformer.unit(rows, unit)), units, self._threads)
            with contextlib.closing(results):
                for batches in results:
                    for batch in batches:
                        yield _flattened(batch, self._scalars)


@contextlib.contextmanager
def _parquet_files(data: Tabular) -> Iterator[list[str]]:
    """Yields the paths of Parquet files with the data. Data in memory is written to a temporary file."""
    patterns = [data] if isinstance(data, str | os.PathLike) else data
    if isinstance(patterns, Sequence) and patterns and all(isinstance(item, str | os.PathLike) for item in patterns):
        paths = [path for item in patterns for path in _matching(item)]
        for path in paths:
            _check_parquet(path)
        yield paths
        return
    with tempfile.TemporaryDirectory(prefix="tidemill-rows-") as folder:
        path = os.path.join(folder, "rows.parquet")
        pq.write_table(as_table(data, "Parquet paths, "), path, row_group_size=ROW_GROUP_ROWS)
        yield [path]


def _check_parquet(path: str) -> None:
    try:
        pq.read_metadata(path)
    except pa.ArrowInvalid as error:
        want = "name Parquet files, or read the file into a table first"
        raise TidemillError(Code.UNREADABLE_FILE, path, "a file that is not Parquet", want) from error


def _matching(pattern: str | os.PathLike[str]) -> list[str]:
    text = os.fspath(pattern)
    paths = [text] if os.path.isfile(text) else sorted(glob.glob(text, recursive=True))
    if not paths:
        raise TidemillError(Code.MISSING_FILE, "data", f"no file {text!r}", "use a Parquet file or a glob of them")
    return paths


def _infer_schema(paths: Sequence[str]) -> schema_pb2.Schema:
    """Returns the schema of Parquet files, see `analyze`."""
    metadata = [pq.read_metadata(path) for path in paths]
    spec: dict[str, Any] = {}
    for field in pq.read_schema(paths[0]):
        column = raw_column(field)
        if column is None:
            continue
        dtype = _TF_DTYPES[column.dtype]
        shape = [field.type.list_size] if pa.types.is_fixed_size_list(field.type) else []
        is_fixed = not is_list(field.type) or pa.types.is_fixed_size_list(field.type)
        if is_fixed and not (field.nullable and _may_have_nulls(field, paths, metadata)):
            spec[field.name] = tf.io.FixedLenFeature(shape, dtype)
        else:
            spec[field.name] = tf.io.VarLenFeature(dtype)
    return schema_utils.schema_from_feature_spec(spec)


def _may_have_nulls(field: pa.Field, paths: Sequence[str], metadata: Sequence[pq.FileMetaData]) -> bool:
    """Returns whether a column of Parquet files has nulls, from the row groups' statistics or else from the values."""
    if is_list(field.type):
        return any(_has_nulls(path, field.name) for path in paths)
    for path, file in zip(paths, metadata, strict=True):
        index = next(i for i in range(len(file.schema)) if file.schema.column(i).path == field.name)
        statistics = [file.row_group(group).column(index).statistics for group in range(file.num_row_groups)]
        if any(part is None or not part.has_null_count for part in statistics):
            if _has_nulls(path, field.name):
                return True
        elif any(part.null_count for part in statistics):
            return True
    return False


def _has_nulls(path: str, name: str) -> bool:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROW_GROUP_ROWS, columns=[name]):
            column = batch.column(0)
            values = column.flatten() if is_list(column.type) else column
            if column.null_count or values.null_count:
                return True
    return False


def _as_schema(schema: SchemaLike) -> schema_pb2.Schema:
    if isinstance(schema, schema_pb2.Schema):
        return schema
    if isinstance(schema, dataset_metadata.DatasetMetadata):
        return schema.schema
    return schema_utils.schema_from_feature_spec(dict(schema))


def _open_rows(
    paths: Sequence[str],
    schema: schema_pb2.Schema,
    keys: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> ParquetRows:
    """Opens Parquet files as the tensors of a schema.

    Args:
        paths: The files.
        schema: The schema.
        keys: Identifies the content of each file. Defaults to None: unknown.
        names: The tensors to make. Defaults to all.
    """
    representations = tensor_representation_util.InferTensorRepresentationsFromSchema(schema)
    if names is not None:
        representations = {name: representations[name] for name in names}
    dtypes = {feature.name: _DTYPES[feature.type] for feature in schema.feature}
    arrow = pq.read_schema(paths[0])
    columns: dict[str, RawColumn] = {}
    for representation in representations.values():
        for name in columns_of(representation):
            columns[name] = _column(arrow, name, dtypes[name])
    required = [
        r.dense_tensor.column_name
        for r in representations.values()
        if r.WhichOneof("kind") == "dense_tensor" and not r.dense_tensor.HasField("default_value")
    ]
    _refuse_nulls(paths, [arrow.field(name) for name in required])
    return ParquetRows(paths, list(columns.values()), representations=representations, keys=keys)


def _column(schema: pa.Schema, name: str, dtype: str) -> RawColumn:
    if name not in schema.names:
        got = f"no such column among {', '.join(schema.names)}"
        raise TidemillError(Code.MISSING_COLUMN, name, got, "add the column, or leave it out of the schema")
    column = raw_column(schema.field(name))
    if column is None or (column.dtype == "string") != (dtype == "string"):
        got = f"a column of type {schema.field(name).type} for a feature of {dtype}"
        raise TidemillError(Code.FEATURE_TYPE, name, got, "cast the column, or change the schema")
    return RawColumn(name, dtype, column.is_list)


def _refuse_nulls(paths: Sequence[str], fields: Sequence[pa.Field]) -> None:
    metadata = [pq.read_metadata(path) for path in paths]
    for field in fields:
        if field.nullable and not is_list(field.type) and _may_have_nulls(field, paths, metadata):
            want = "use a VarLenFeature, or a FixedLenFeature with a default value"
            raise TidemillError(Code.FEATURE_TYPE, field.name, "nulls in a FixedLenFeature without a default", want)


def _scalar_outputs(schema: schema_pb2.Schema) -> set[str]:
    """Returns the outputs that are dense tensors `[batch]`."""
    return {f.name for f in schema.feature if f.HasField("shape") and not f.shape.dim}


def _flattened(batch: pa.RecordBatch, scalars: set[str]) -> pa.RecordBatch:
    """Returns a batch in which scalar outputs are columns of values instead of lists of one value, sorted by name."""
    names = sorted(batch.schema.names)
    arrays = [pc.list_flatten(batch.column(name)) if name in scalars else batch.column(name) for name in names]
    return pa.RecordBatch.from_arrays(arrays, names)


def _refuse_other_content(folder: Path) -> None:
    """Rejects a path that holds something other than an artifact of `analyze`."""
    if folder.is_dir() and (not any(folder.iterdir()) or (folder / TRANSFORM_FN).is_dir()):
        return
    if folder.exists() or folder.is_symlink():
        want = "choose a new folder, or remove what is there"
        raise TidemillError(Code.UNUSABLE_PATH, str(folder), "something other than a transform", want)
