"""The rows and the preprocessing_fn that all versions share."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from tidemill.artifacts.examples import Dataset, DatasetWriter

if TYPE_CHECKING:
    import tensorflow as tf

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "criteo"))

LABEL = "label"
NUMBERS = [f"i{i}" for i in range(1, 14)]
SCALED, BUCKETED = NUMBERS[:7], NUMBERS[7:]
CATEGORIES = [f"c{i}" for i in range(1, 27)]
OUTPUTS = [*NUMBERS, *CATEGORIES, LABEL]
"""Columns of the result: float32 scaled numbers and label, int32 buckets and ids."""
BUCKETS = 10
MIN_COUNT = 10
TOP_K = 100_000


def write_rows(folder: Path, rows: int, files: int = 0, first: int = 0) -> None:
    """Writes synthetic Criteo rows as a dataset that has only the train split, unless it exists.

    Args:
        folder: The dataset's folder.
        rows: Number of rows.
        files: Number of files of equal size. Defaults to the dataset writer's choice.
        first: Number of rows of the generator to skip.
    """
    if folder.exists():
        return
    tables = _tables(first, rows)
    head = next(tables)
    shard_rows = {"shard_rows": -(-rows // files), "row_group_rows": min(1 << 16, -(-rows // files))} if files else {}
    with DatasetWriter(folder, head.schema, ("train",), **shard_rows) as writer:
        writer.write("train", head)
        for table in tables:
            writer.write("train", table)


def _tables(first: int, rows: int) -> Iterator[pa.Table]:
    from generate import chunks

    position = 0
    for table, _ in chunks(first + rows, seed=0):
        table = table.set_column(0, LABEL, table.column(LABEL).cast(pa.int64()))
        part = table.slice(max(0, first - position))
        position += table.num_rows
        if part.num_rows:
            yield part


def train_files(examples: Path) -> list[str]:
    """Returns the files of the rows, in order."""
    return [str(path) for path in Dataset(examples).files("train")]


def preprocessing_fn(inputs: Mapping[str, tf.SparseTensor]) -> dict[str, tf.Tensor]:
    """Does what the modules of TFX's examples do: returns `[batch]` float32 numbers, int64 buckets and ids, and the
    label."""
    import tensorflow as tf
    import tensorflow_transform as tft

    def fill_in_missing(x: tf.SparseTensor, default: int | str) -> tf.Tensor:
        dense = tf.sparse.to_dense(tf.SparseTensor(x.indices, x.values, [x.dense_shape[0], 1]), default)
        return tf.squeeze(dense, axis=1)

    outputs = {}
    for name in SCALED:
        x = tf.cast(fill_in_missing(inputs[name], 0), tf.float32)
        outputs[name] = tft.scale_to_z_score(tf.math.log1p(tf.maximum(x, 0.0)))
    for name in BUCKETED:
        outputs[name] = tft.bucketize(tf.cast(fill_in_missing(inputs[name], 0), tf.float32), BUCKETS)
    for name in CATEGORIES:
        outputs[name] = tft.compute_and_apply_vocabulary(
            fill_in_missing(inputs[name], ""),
            top_k=TOP_K,
            frequency_threshold=MIN_COUNT,
            num_oov_buckets=1,
            vocab_filename=name,
        )
    outputs[LABEL] = tf.cast(fill_in_missing(inputs[LABEL], 0), tf.float32)
    return outputs
