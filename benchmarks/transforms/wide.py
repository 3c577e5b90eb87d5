"""A column of tens of millions of distinct strings, all of them in the vocabulary."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.artifacts.examples import Dataset, DatasetWriter

if TYPE_CHECKING:
    import tensorflow as tf

_CHUNK = 1 << 20
_COLUMN = "token"


def write(folder: Path, rows: int, values: int) -> int:
    """Writes rows with one of `values` strings of 9 bytes each, and returns the number of distinct ones."""
    seen = np.zeros(values, bool)
    for chunk in _values(rows, values):
        seen[chunk] = True
    if not folder.exists():
        schema = pa.schema([(_COLUMN, pa.string()), ("label", pa.int64())])
        with DatasetWriter(folder, schema, ("train",)) as writer:
            for chunk in _values(rows, values):
                writer.write("train", pa.table([_text(chunk), chunk % 2], schema.names))
    return int(seen.sum())


def analyze(examples: Path, out: Path, threads: int) -> float:
    """Returns the seconds of the analysis."""
    from transforms import by_local

    started = time.perf_counter()
    by_local.analyze(preprocessing_fn, examples, out / "graph", threads)
    return time.perf_counter() - started


def transform(examples: Path, out: Path, threads: int) -> float:
    """Returns the seconds of the transform."""
    from tidemill.transform.graph import TransformGraph
    from tidemill.transform.local_engine import LocalEngine
    from transforms.by_local import Quiet

    started = time.perf_counter()
    graph = TransformGraph(out / "graph")
    LocalEngine(threads=threads).transform(graph, Dataset(examples), out / "rows", Quiet("transform"))
    return time.perf_counter() - started


def preprocessing_fn(inputs: Mapping[str, tf.SparseTensor]) -> dict[str, tf.Tensor]:
    """Returns ids of all strings, and the label."""
    import tensorflow as tf
    import tensorflow_transform as tft

    tokens = tf.squeeze(tf.sparse.to_dense(inputs[_COLUMN]), 1)
    label = tf.cast(tf.squeeze(tf.sparse.to_dense(inputs["label"]), 1), tf.float32)
    return {"id": tft.compute_and_apply_vocabulary(tokens, num_oov_buckets=1, vocab_filename=_COLUMN), "label": label}


def check(out: Path, rows: int, values: int) -> None:
    """Compares the vocabulary and the ids with those computed from the values' counts.

    Raises:
        SystemExit: They differ.
    """
    counts = np.zeros(values, np.int64)
    for chunk in _values(rows, values):
        np.add.at(counts, chunk, 1)
    # Strings of equal length sort like their numbers: by count, then by string, both descending.
    order = np.lexsort((np.arange(values), counts))[::-1]
    order = order[: np.count_nonzero(counts)]
    digest = hashlib.sha256()
    for start in range(0, len(order), _CHUNK):
        digest.update(
            b"".join(text + b"\n" for text in _text(order[start : start + _CHUNK]).cast(pa.binary()).to_pylist())
        )
    with open(out / "graph" / "transform_fn" / "assets" / _COLUMN, "rb") as file:
        if hashlib.file_digest(file, "sha256").digest() != digest.digest():
            raise SystemExit("the vocabulary differs")
    ids = np.empty(values, np.int32)
    ids[order] = np.arange(len(order), dtype=np.int32)
    parts = (
        batch.column(0).to_numpy()
        for path in sorted((out / "rows" / "train").glob("*.parquet"))
        for batch in pq.ParquetFile(path).iter_batches(_CHUNK, columns=["id"])
    )
    row, expected = 0, np.concatenate([ids[chunk] for chunk in _values(rows, values)])
    for part in parts:
        if not np.array_equal(part, expected[row : row + len(part)]):
            raise SystemExit(f"different ids from row {row} on")
        row += len(part)
    if row != rows:
        raise SystemExit(f"{row} rows, not {rows}")


def _values(rows: int, values: int) -> Iterator[np.ndarray]:
    for start in range(0, rows, _CHUNK):
        rng = np.random.default_rng([7, start])
        yield rng.integers(0, values, min(_CHUNK, rows - start))


def _text(numbers: np.ndarray) -> pa.Array:
    """Returns the numbers as 9 digits each."""
    digits = (numbers[:, None] // 10 ** np.arange(8, -1, -1) % 10 + ord("0")).astype(np.uint8).reshape(-1)
    offsets = np.arange(0, 9 * len(numbers) + 1, 9, dtype=np.int32)
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(digits))
