"""Scoring raw rows with a published SavedModel. The only import of TensorFlow on this side of training."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tidemill import storage
from tidemill.artifacts import artifact
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.transform.raw import RawColumn, to_dense

RAW_COLUMNS = "assets.extra/raw_columns.json"
SCORES = "assets.extra/scores.json"
SIGNATURE = "serving_default"
BATCH_ROWS = 8192


class Scorer:
    """A published model that scores record batches. Use it as a context manager.

    Args:
        uri: Folder of a published version, `…/<name>/<version>`. A model in an object store is copied to a temporary
            folder, which is removed at the end.

    Attributes:
        fingerprint: Of the version's content.
        raw_columns: The raw columns that the model takes.
        outputs: The names of its scores: `score`, or of several labels `score_<label>`.
        labels: The labels in the same order; empty where a model of an earlier version does not say of which one it
            is.

    Raises:
        TidemillError: `no-model` where nothing is there, `incomplete-artifact` where files are missing.
    """

    def __init__(self, uri: str):
        if not storage.exists(storage.join(uri, artifact.MANIFEST)):
            raise TidemillError(Code.NO_MODEL, uri, "no published model", "name a folder of the model store")
        self._scratch = None
        path = storage.local_path(uri)
        if path is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="tidemill-model-")
            path = Path(self._scratch.name) / "model"
            storage.download_folder(uri, path)
        self.fingerprint: str = artifact.open_folder(path)["fingerprint"]
        listed = json.loads((path / RAW_COLUMNS).read_text(encoding="utf-8"))
        self.raw_columns = [RawColumn(c["name"], c["dtype"], c.get("is_list", False)) for c in listed]
        self._inputs = {c["name"]: c.get("input", c["name"]) for c in listed}
        scores = json.loads((path / SCORES).read_text(encoding="utf-8")) if (path / SCORES).is_file() else []
        self.labels: list[str] = [each["label"] for each in scores]
        self.outputs: list[str] = [each["output"] for each in scores] or ["score"]
        import tensorflow as tf

        self._tf = tf
        # The loaded object owns the variables and tables that the signature uses.
        self._loaded = tf.saved_model.load(str(path))
        self._score = self._loaded.signatures[SIGNATURE]

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._scratch is not None:
            self._scratch.cleanup()

    @property
    def names(self) -> list[str]:
        """Names of the raw columns that the model takes."""
        return [column.name for column in self.raw_columns]

    def check(self, columns: Sequence[str]) -> None:
        """Checks that the raw columns are there.

        Raises:
            TidemillError: `missing-column` naming all that are not.
        """
        if missing := [name for name in self.names if name not in columns]:
            have = ", ".join(columns)
            got = f"no {', '.join(map(repr, missing))} among {have}"
            want = "give all raw columns that the model's features need"
            raise TidemillError(Code.MISSING_COLUMN, "examples", got, want)

    def score(self, batch: pa.RecordBatch) -> np.ndarray:
        """Probabilities of class 1.

        Args:
            batch: Rows with at least the raw columns; missing values are nulls.

        Returns:
            [rows, outputs] float32, as the SavedModel gives them.

        Raises:
            TidemillError: `missing-column`, or `feature-type` for a column of another type than in training.
        """
        if not batch.num_rows:
            return np.empty((0, len(self.outputs)), np.float32)
        dense = to_dense(batch, self.raw_columns)
        tensors = {self._inputs[c.name]: self._tf.constant(dense[c.name], c.dtype) for c in self.raw_columns}
        scores = self._score(**tensors)
        return np.stack([scores[name].numpy().reshape(-1) for name in self.outputs], axis=1)

    def score_split(self, examples: Dataset, split: str, batch_rows: int = BATCH_ROWS) -> np.ndarray:
        """Probabilities of a split of raw examples, [rows, outputs] float32 in the rows' order.

        Raises:
            TidemillError: `missing-column` or `feature-type`.
        """
        parts = [scores for _, scores in self.batches(examples, split, batch_rows=batch_rows)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.outputs)), np.float32)

    def batches(
        self, examples: Dataset, split: str, further: Sequence[str] = (), batch_rows: int = BATCH_ROWS
    ) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        """Streams a split with its scores.

        Args:
            examples: Raw examples.
            split: The split's name.
            further: Columns to read beside those that the model takes.
            batch_rows: Most rows of a batch.

        Yields:
            Record batches, and their scores [rows, outputs] float32.

        Raises:
            TidemillError: `missing-column` or `feature-type`.
        """
        self.check(list(examples.columns))
        for batch in examples.batches(split, list(dict.fromkeys([*further, *self.names])), batch_rows):
            yield batch, self.score(batch)
