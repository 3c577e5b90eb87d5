"""Folds of the train split: the rows that a training run leaves out, and the model's scores of these rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.artifacts.examples import COMPRESSION, Dataset, DatasetWriter
from tidemill.errors import Code, TidemillError
from tidemill.steps.train import Fold

HELD_OUT = "held_out"
"""The split with the rows of the fold, which training leaves out."""
ROW, LABEL, SCORE = "row", "label", "score"
"""Columns of out-of-fold scores: the row's index in train (int64), its label (float32) and its score (float64)."""


def assignments(fold: Fold, raw: Dataset) -> Iterator[np.ndarray]:
    """Yields the fold of each row, [rows] int64, for each batch of train.

    The fold depends on `fold.seed` and on the row's index; or on its value of `fold.column`, so that rows of one value
    are in one fold.
    """
    columns = [fold.column] if fold.column else list(raw.columns)[:1]
    first = 0
    for batch in raw.batches("train", columns):
        if fold.column:
            encoded = batch.column(0).dictionary_encode()
            values = [*encoded.dictionary.to_pylist(), None]
            folds = np.array([_fold_of_value(value, fold) for value in values], np.int64)
            yield folds[encoded.indices.fill_null(len(folds) - 1).to_numpy(zero_copy_only=False)]
        else:
            yield _folds_of_rows(np.arange(first, first + batch.num_rows, dtype=np.uint64), fold)
        first += batch.num_rows


def write_fold(fold: Fold, raw: Dataset, data: Dataset, path: Path) -> Dataset:
    """Writes the transformed examples for training without a fold.

    Args:
        fold: The fold.
        raw: The raw examples, with the same rows as `data`.
        data: The transformed examples.
        path: The folder to write, with the splits train (without the fold), valid, and `held_out` (the fold).

    Raises:
        TidemillError: `empty-split` if the fold has no rows or all rows of train.
    """
    with DatasetWriter(path, data.schema(), ("train", "valid", HELD_OUT), data.metadata) as writer:
        for split, indices, batch in _split_batches(fold, raw, data):
            writer.write(split, pa.Table.from_batches([batch.take(pa.array(indices))]))
        for batch in data.batches("valid"):
            writer.write("valid", pa.Table.from_batches([batch]))
    written = Dataset(path)
    for split in ("train", HELD_OUT):
        if not written.rows(split):
            side = "outside" if split == "train" else "in"
            got = f"{data.rows('train')} rows of train, none of them {side} the fold"
            where = f"fold {fold.index + 1} of {fold.of}"
            raise TidemillError(Code.EMPTY_SPLIT, where, got, "use more rows for train, or fewer training.folds")
    return written


def write_out_of_fold(fold: Fold, raw: Dataset, labels: np.ndarray, scores: np.ndarray, path: Path) -> None:
    """Writes a model's scores of the rows of its fold, which it was not trained on.

    Args:
        fold: The fold.
        raw: The raw examples.
        labels: Labels of the held-out rows, in their order.
        scores: Scores of the same rows.
        path: The file.
    """
    folds = np.concatenate(list(assignments(fold, raw)))
    rows = np.flatnonzero(folds == fold.index)
    table = pa.table({ROW: rows, LABEL: labels.astype(np.float32), SCORE: scores.astype(np.float64)})
    pq.write_table(table, path, compression=COMPRESSION)


def _split_batches(fold: Fold, raw: Dataset, data: Dataset) -> Iterator[tuple[str, np.ndarray, pa.RecordBatch]]:
    """Yields batches of train, with the split to write and the indices of the rows that belong there."""
    folds = np.concatenate([*assignments(fold, raw), np.empty(0, np.int64)])
    first = 0
    for batch in data.batches("train"):
        is_held_out = folds[first : first + batch.num_rows] == fold.index
        for split, chosen in (("train", ~is_held_out), (HELD_OUT, is_held_out)):
            if chosen.any():
                yield split, np.flatnonzero(chosen), batch
        first += batch.num_rows


def _folds_of_rows(rows: np.ndarray, fold: Fold) -> np.ndarray:
    """Hashes row indices with SplitMix64 (Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        x = (rows + np.uint64(fold.seed + 1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((x ^ (x >> np.uint64(31))) % np.uint64(fold.of)).astype(np.int64)


def _fold_of_value(value: object, fold: Fold) -> int:
    digest = hashlib.md5(f"{fold.seed} {value!r}".encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big") % fold.of
