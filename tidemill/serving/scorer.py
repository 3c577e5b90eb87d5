"""The scorer of raw rows with a published model. Imports TensorFlow when a model is opened."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tidemill import storage
from tidemill.artifacts import artifact
from tidemill.artifacts.examples import Dataset
from tidemill.artifacts.model import read_inputs, read_outputs
from tidemill.errors import Code, TidemillError
from tidemill.serving.signatures import DENSE, SCORE
from tidemill.transform.raw import RawColumn, to_dense

BATCH_ROWS = 8192


class Scorer:
    """A published model that scores record batches. Use it as a context manager.

    Args:
        uri: Folder of a published version, `…/<name>/<version>`. A model in an object store is copied to a temporary
            folder, which is removed on exit.

    Attributes:
        fingerprint: Fingerprint of the version's content.
        raw_columns: The raw columns that the model takes.
        outputs: The names of its scores: `score`, or `score_<label>` for several labels.
        labels: The labels in the same order. Empty for models of earlier versions, which do not name them.

    Raises:
        TidemillError: `no-model` if there is no published model, `incomplete-artifact` if files are missing.
    """

    def __init__(self, uri: str):
        if not storage.exists(storage.join(uri, storage.MANIFEST)):
            raise TidemillError(Code.NO_MODEL, uri, "no published model", "name a folder of the model store")
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        path = storage.local_path(uri)
        if path is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="tidemill-model-")
            path = Path(self._scratch.name) / "model"
            storage.download_folder(uri, path)
        self.fingerprint: str = artifact.open_folder(path)["fingerprint"]
        inputs, outputs = read_inputs(path), read_outputs(path)
        self.raw_columns = [RawColumn(each.name, each.dtype, each.is_list) for each in inputs]
        self._inputs = {each.name: each.input for each in inputs}
        self.labels: list[str] = [each.label for each in outputs]
        self.outputs: list[str] = [each.output for each in outputs] or [SCORE]
        import tensorflow as tf

        self._tf = tf
        # The loaded object owns the variables and tables of the signature.
        self._loaded = tf.saved_model.load(str(path))
        self._score = self._loaded.signatures[DENSE]

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
        """Checks that the raw columns are among `columns`.

        Raises:
            TidemillError: `missing-column`, with all missing columns.
        """
        if missing := [name for name in self.names if name not in columns]:
            got = f"no {', '.join(map(repr, missing))} among {', '.join(columns) or 'no columns'}"
            want = "provide all raw columns that the model's features need"
            raise TidemillError(Code.MISSING_COLUMN, "examples", got, want)

    def score(self, batch: pa.RecordBatch) -> np.ndarray:
        """Returns the probabilities of class 1, [rows, outputs] float32, as the SavedModel computes them.

        Args:
            batch: Rows with at least the raw columns. Missing values are nulls.

        Raises:
            TidemillError: `missing-column`, `feature-type` for a column of another type than in training, or
                `transform-failed` if the graph refuses a row, such as one with too few values for a column's shape.
        """
        if not batch.num_rows:
            return np.empty((0, len(self.outputs)), np.float32)
        dense = to_dense(batch, self.raw_columns)
        tensors = {self._inputs[c.name]: self._tf.constant(dense[c.name], c.dtype) for c in self.raw_columns}
        try:
            scores = self._score(**tensors)
        except self._tf.errors.InvalidArgumentError as error:
            got = f"rows that the model's transform refuses ({str(error).splitlines()[-1][:200]})"
            want = "give each column as many values as in training; a column with a shape has no missing value"
            raise TidemillError(Code.TRANSFORM_FAILED, "examples", got, want) from error
        return np.stack([scores[name].numpy().reshape(-1) for name in self.outputs], axis=1)

    def score_table(self, table: pa.Table, batch_rows: int = BATCH_ROWS) -> np.ndarray:
        """Returns the probabilities of a table in memory, [rows, outputs] float32, in the rows' order.

        Raises:
            TidemillError: `missing-column` or `feature-type`.
        """
        scores = [self.score(batch) for batch in table.to_batches(batch_rows)]
        return np.concatenate(scores) if scores else np.empty((0, len(self.outputs)), np.float32)

    def score_split(self, examples: Dataset, split: str, batch_rows: int = BATCH_ROWS) -> np.ndarray:
        """Returns the probabilities of a split of raw examples, [rows, outputs] float32, in the rows' order.

        Raises:
            TidemillError: `missing-column` or `feature-type`.
        """
        batches = [scores for _, scores in self.batches(examples, split, batch_rows=batch_rows)]
        return np.concatenate(batches) if batches else np.empty((0, len(self.outputs)), np.float32)

    def batches(
        self, examples: Dataset, split: str, further: Sequence[str] = (), batch_rows: int = BATCH_ROWS
    ) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        """Streams a split with its scores.

        Args:
            examples: Raw examples.
            split: The split's name.
            further: Columns to read in addition to those that the model takes. Defaults to none.
            batch_rows: Maximum number of rows of a batch. Defaults to 8192.

        Yields:
            Record batches, and their scores [rows, outputs] float32.

        Raises:
            TidemillError: `missing-column` or `feature-type`.
        """
        self.check(list(examples.columns))
        for batch in examples.batches(split, list(dict.fromkeys([*further, *self.names])), batch_rows):
            yield batch, self.score(batch)
