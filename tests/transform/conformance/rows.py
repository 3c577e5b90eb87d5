"""Rows with awkward values, in Parquet files for the local engine and in record batches for Beam."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

from tidemill.transform.raw import RawColumn, list_schema, raw_columns, to_lists

ROWS = 3000
WORDS = ["", "a", "b", "A", "größe", "日本", "a b", " a", "line\nbreak", "cr\rhere", "\n", "tab\t", "c" * 300]
WORDS += ["-1", "0"] + [f"word{i}" for i in range(80)]
_DENSE = 'dense_tensor {{ column_name: "{name}" shape {{ {shape} }} }}'
_VARLEN = 'varlen_sparse_tensor {{ column_name: "{name}" }}'
_RAGGED = 'ragged_tensor {{ feature_path {{ step: "{name}" }} row_partition_dtype: INT64 }}'
_SPARSE = 'sparse_tensor { index_column_names: "at" value_column_name: "at_value" dense_shape { dim { size: 20 } } }'
DENSE = {"row": "", "x_dense": "", "offset": "", "key": "", "label": "", "label3": "", "weight": "", "text": ""}
VECTORS = {"vector": "dim { size: 3 }"}
RAGGED = ("ragged_ints", "ragged_words", "ragged_floats")
SPARSE = ("at", "at_value")


def awkward_table(rows: int = ROWS, seed: int = 0) -> pa.Table:
    """Returns rows with scalars, nulls and lists. The column `row` numbers the rows."""
    rng = np.random.default_rng(seed)

    def with_nulls(values: list, type_: pa.DataType, share: float = 0.15) -> pa.Array:
        return pa.array(values, type_, mask=rng.random(rows) < share)

    def lists(draw, most: int = 5) -> list:
        return [None if n < 0 else [draw() for _ in range(n)] for n in rng.integers(-1, most, rows)]

    def word() -> str:
        return WORDS[min(int(rng.geometric(0.06)) - 1, len(WORDS) - 1)]

    def number() -> float:
        return float(rng.choice([rng.normal(3, 2), rng.normal(3, 2), rng.normal(3, 2), 0.0, -0.0]))

    def odd_number() -> float:
        return float(rng.choice([number(), np.nan, np.inf, -np.inf], p=[0.9, 0.06, 0.02, 0.02]))

    x = rng.normal(5, 3, rows)
    x[rng.random(rows) < 0.05] = np.nan
    x[rng.random(rows) < 0.02] = np.inf
    huge = rng.integers(-5, 5, rows)
    huge[rng.random(rows) < 0.1] = 2**63 - 1
    huge[rng.random(rows) < 0.1] = -(2**63) + 1
    near_unique = [f"{'long ' * (i % 7)}{rng.integers(0, rows * 4):08d}{'ß' * (i % 3)}" for i in range(rows)]
    wide = rng.lognormal(3, 3, rows)
    columns = {
        "row": pa.array(np.arange(rows), pa.int64()),
        "x": with_nulls(x.tolist(), pa.float32()),
        "x64": with_nulls(rng.lognormal(2, 1, rows).tolist(), pa.float64()),
        "wide": with_nulls(wide.tolist(), pa.float32()),
        "same": with_nulls([4.5] * rows, pa.float32()),
        "n": with_nulls(rng.integers(-20, 60, rows).tolist(), pa.int32()),
        "huge": with_nulls(huge.tolist(), pa.int64()),
        "flag": with_nulls((rng.random(rows) < 0.3).tolist(), pa.bool_()),
        "word": with_nulls([word() for _ in range(rows)], pa.string()),
        "near_unique": with_nulls(near_unique, pa.large_string()),
        "blob": with_nulls([bytes([int(b)]) * 3 for b in rng.integers(0, 256, rows)], pa.binary()),
        "nothing": pa.nulls(rows, pa.string()),
        "x_dense": pa.array(rng.normal(0, 10, rows), pa.float32()),
        "offset": pa.array(1e4 + rng.normal(0, 1, rows), pa.float32()),
        "key": pa.array([f"k{min(int(k), 6)}" for k in rng.geometric(0.4, rows)]),
        "label": pa.array(rng.integers(0, 2, rows), pa.int64()),
        "label3": pa.array(rng.integers(0, 3, rows), pa.int64()),
        "weight": pa.array(rng.integers(1, 9, rows) / 4, pa.float32()),
        "text": pa.array([" ".join(word() for _ in range(rng.integers(0, 6))) for _ in range(rows)]),
        "bag": pa.array(lists(word), pa.list_(pa.string())),
        "counts": pa.array(lists(lambda: int(rng.integers(-3, 30))), pa.list_(pa.int64())),
        "floats": pa.array(lists(number), pa.list_(pa.float32())),
        "odd": pa.array(lists(odd_number), pa.list_(pa.float32())),
        "vector": pa.array(rng.normal([0, 2, -5], [1, 3, 0.5], (rows, 3)).tolist(), pa.list_(pa.float32())),
        "ragged_ints": pa.array(lists(lambda: int(rng.integers(0, 12))), pa.list_(pa.int64())),
        "ragged_words": pa.array(lists(word), pa.list_(pa.string())),
        "ragged_floats": pa.array(lists(number), pa.list_(pa.float32())),
    }
    at = [sorted(rng.choice(20, rng.integers(0, 6), replace=False).tolist()) for _ in range(rows)]
    columns["at"] = pa.array(at, pa.list_(pa.int64()))
    columns["at_value"] = pa.array([[number() for _ in row] for row in at], pa.list_(pa.float32()))
    return pa.table(columns)


@dataclass(frozen=True)
class RowFiles:
    """The same rows as Parquet files and as record batches.

    Attributes:
        table: The rows.
        files: Parquet files with the rows, in order.
        columns: The columns with their dtypes; a list column has the dtype of its values.
        adapter_config: How tfx_bsl converts `batches` to tensors.
        batches: The rows for Beam, one batch for each row group. A missing value is a row without a value.
    """

    table: pa.Table
    files: list[Path]
    columns: list[RawColumn]
    adapter_config: TensorAdapterConfig
    batches: list[pa.RecordBatch]

    @property
    def representations(self) -> dict[str, schema_pb2.TensorRepresentation]:
        """The representations for the Parquet files.

        A column without one becomes a sparse tensor, in which NaN in a list counts as missing.
        """
        items = self.adapter_config.tensor_representations.items()
        return {n: r for n, r in items if n == "odd" or r.WhichOneof("kind") != "varlen_sparse_tensor"}


def write_rows(
    table: pa.Table, folder: Path, *, file_rows: list[int] | None = None, row_group_rows: int = 512
) -> RowFiles:
    """Writes rows to Parquet files and converts them to record batches for Beam.

    Args:
        table: The rows.
        folder: Folder to write to.
        file_rows: Number of rows of each file. Defaults to five files, one of them without rows.
        row_group_rows: Largest number of rows of a row group.
    """
    rows = table.num_rows
    if file_rows is None:
        file_rows = [rows // 3, 0, rows // 4, rows // 5]
        file_rows.append(rows - sum(file_rows))
    folder.mkdir(parents=True, exist_ok=True)
    files, start = [], 0
    for number, count in enumerate(file_rows):
        files.append(folder / f"part-{number:05d}.parquet")
        pq.write_table(table.slice(start, count), files[-1], row_group_size=row_group_rows)
        start += count
    columns = raw_columns(table.schema)
    lists = pa.table({column.name: _as_lists(table, column) for column in columns})
    config = TensorAdapterConfig(lists.schema, _representations(table.schema.names))
    return RowFiles(table, files, columns, config, list(_batches(lists, file_rows, row_group_rows)))


def _batches(table: pa.Table, file_rows: list[int], row_group_rows: int) -> Iterator[pa.RecordBatch]:
    """Yields one batch for each row group: TFT's float32 sums depend on the batches."""
    start = 0
    for count in file_rows:
        for first in range(start, start + count, row_group_rows):
            # `take`, because tfx_bsl does not accept slices for ragged tensors.
            positions = pa.array(np.arange(first, min(first + row_group_rows, start + count)))
            yield table.take(positions).combine_chunks().to_batches()[0]
        start += count


def _representations(names: list[str]) -> dict[str, schema_pb2.TensorRepresentation]:
    representations = {}
    for name in names:
        if name in SPARSE:
            continue
        shape = (DENSE | VECTORS).get(name)
        template = _RAGGED if name in RAGGED else _VARLEN if shape is None else _DENSE
        text = template.format(name=name, shape=shape)
        representations[name] = text_format.Parse(text, schema_pb2.TensorRepresentation())
    if "at" in names:
        representations["sparse"] = text_format.Parse(_SPARSE, schema_pb2.TensorRepresentation())
    return representations


def _as_lists(table: pa.Table, column: RawColumn) -> pa.Array:
    """Converts a column to lists for tfx_bsl. NaN and infinities in `odd` are values: it has a representation."""
    array = table[column.name].combine_chunks()
    if column.name == "odd":
        return array.cast(list_schema([column]).field(0).type)
    return to_lists(pa.RecordBatch.from_arrays([array], [column.name]), [column]).column(0)
