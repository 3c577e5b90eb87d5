"""Folds of the train split: which rows a training leaves out, and what it says about them."""

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
"""The split with the rows that a fold's training leaves out."""
OUT_OF_FOLD = "out_of_fold.parquet"
"""In a model's folder: `row` (int64, its place in train), `label` (float32) and `score` (float64) of these rows."""
ROW, LABEL, SCORE = "row", "label", "score"


def assignments(fold: Fold, raw: Dataset) -> Iterator[np.ndarray]:
    """For each batch of train the fold of each of its rows, [rows] int64. It depends on `fold.seed` and on the row's
    place, or on its value of `fold.column`, so that rows of one value are in one fold."""
    columns = [fold.column] if fold.column else list(raw.columns)[:1]
    first = 0
    for batch in raw.batches("train", columns):
        if fold.column:
            encoded = batch.column(0).dictionary_encode()
            folds = np.array([_of_value(value, fold) for value in [*encoded.dictionary.to_pylist(), None]], np.int64)
            yield folds[encoded.indices.fill_null(len(folds) - 1).to_numpy(zero_copy_only=False)]
        else:
            yield _of_places(np.arange(first, first + batch.num_rows, dtype=np.uint64), fold)
        first += batch.num_rows


def write_fold(fold: Fold, raw: Dataset, data: Dataset, path: Path) -> Dataset:
    """Writes the transformed examples as a fold's training takes them.

    Args:
        fold: Which one of how many.
        raw: The raw examples, whose rows are those of `data`.
        data: The transformed examples.
        path: The folder to write: train without the fold, valid, and the fold as `held_out`.

    Raises:
        TidemillError: `empty-split` where the fold has no row, or all.
    """
    with DatasetWriter(path, data.schema(), ("train", "valid", HELD_OUT), data.metadata) as writer:
        for split, index, batch in _parts(fold, raw, data):
            writer.write(split, pa.Table.from_batches([batch.take(pa.array(index))]))
        for batch in data.batches("valid"):
            writer.write("valid", pa.Table.from_batches([batch]))
    written = Dataset(path)
    for split in ("train", HELD_OUT):
        if not written.rows(split):
            got = f"{data.rows('train')} rows of train, none of which is {'out of' if split == 'train' else 'in'} it"
            where = f"fold {fold.index + 1} of {fold.of}"
            raise TidemillError(Code.EMPTY_SPLIT, where, got, "give train more rows or take fewer training.folds")
    return written


def write_out_of_fold(fold: Fold, raw: Dataset, labels: np.ndarray, scores: np.ndarray, path: Path) -> None:
    """Writes what a model says about the rows that it has not seen.

    Args:
        fold: The fold.
        raw: The raw examples.
        labels: Of the held-out rows, in their order.
        scores: Of the same rows.
        path: The file.
    """
    folds = np.concatenate(list(assignments(fold, raw)))
    rows = np.flatnonzero(folds == fold.index)
    table = pa.table({ROW: rows, LABEL: labels.astype(np.float32), SCORE: scores.astype(np.float64)})
    pq.write_table(table, path, compression=COMPRESSION)


def _parts(fold: Fold, raw: Dataset, data: Dataset) -> Iterator[tuple[str, np.ndarray, pa.RecordBatch]]:
    """Places in batches of train, by the split that they go to."""
    folds = np.concatenate([*assignments(fold, raw), np.empty(0, np.int64)])
    first = 0
    for batch in data.batches("train"):
        is_held_out = folds[first : first + batch.num_rows] == fold.index
        for split, chosen in (("train", ~is_held_out), (HELD_OUT, is_held_out)):
            if chosen.any():
                yield split, np.flatnonzero(chosen), batch
        first += batch.num_rows


def _of_places(places: np.ndarray, fold: Fold) -> np.ndarray:
    """SplitMix64 (Steele et al., OOPSLA 2014) of the places."""
    with np.errstate(over="ignore"):
        x = (places + np.uint64(fold.seed + 1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((x ^ (x >> np.uint64(31))) % np.uint64(fold.of)).astype(np.int64)


def _of_value(value: object, fold: Fold) -> int:
    digest = hashlib.md5(f"{fold.seed} {value!r}".encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big") % fold.of
