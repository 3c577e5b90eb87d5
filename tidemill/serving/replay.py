"""The gate against training-serving skew: the exported model and the training path must return the same scores.

TensorFlow is imported only when rows are replayed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.models.core.base import Model
from tidemill.models.core.inputs import to_rows
from tidemill.serving.signatures import DENSE, EXAMPLES, score_names, signature_names
from tidemill.transform.graph import TransformGraph
from tidemill.transform.raw import SENTINELS, RawColumn, to_dense

REPLAYED_ROWS = 512
TOLERANCE = 1e-5
"""Maximum difference of two probabilities. Both paths compute in float32 (the trees in float64), whose spacing near 1
is 6e-8; sums of a few hundred products in another order differ by 1e-6. A real skew, such as a missing value that is
treated differently, is orders of magnitude larger for at least one row of hundreds."""


@dataclass(frozen=True)
class Replay:
    """The result of the gate: the number of replayed rows, and the largest difference of their scores."""

    rows: int
    largest_difference: float


@dataclass(frozen=True)
class Sample:
    """Rows to replay, with the scores of the training path.

    Attributes:
        split: The rows' split.
        indices: The rows' indices in the split, ascending.
        scores: [rows, labels] float64.
        labels: The labels.
    """

    split: str
    indices: np.ndarray
    scores: np.ndarray
    labels: tuple[str, ...]


def sample(model: Model, examples: Dataset, transformed: Dataset) -> Sample:
    """Scores up to 512 rows, evenly spaced over valid, or over train if valid is empty.

    Args:
        model: The model of the training path.
        examples: The raw rows.
        transformed: The transformed rows, in the same order.
    """
    split = "valid" if examples.rows("valid") else "train"
    indices = np.unique(np.linspace(0, examples.rows(split) - 1, REPLAYED_ROWS).astype(np.int64))
    rows = to_rows(_take(transformed, split, model.layout.columns, indices), model.layout)
    return Sample(split, indices, model.predict_rows(rows), model.layout.labels)


def replay(saved_model: str | os.PathLike[str], graph: TransformGraph, examples: Dataset, scored: Sample) -> Replay:
    """Replays rows through both signatures of a SavedModel, and compares the scores of all labels.

    Args:
        saved_model: The exported folder. It is loaded from disk.
        graph: The transform graph, for the raw columns.
        examples: The raw rows.
        scored: The rows to replay, and their scores.

    Raises:
        TidemillError: `serving-skew` if a score differs by more than `TOLERANCE`.
    """
    import tensorflow as tf

    split, indices, expected = scored.split, scored.indices, scored.scores
    columns = graph.raw_columns
    raw = to_dense(_take(examples, split, [c.name for c in columns], indices), columns)
    signatures = tf.saved_model.load(str(saved_model)).signatures
    inputs, outputs = signature_names([c.name for c in columns]), score_names(scored.labels)
    dense = {inputs[name]: tf.constant(values) for name, values in raw.items()}
    largest = 0.0
    for signature, feed in ((DENSE, dense), (EXAMPLES, {"examples": tf.constant(to_examples(raw, columns))})):
        scores = signatures[signature](**feed)
        got = np.stack([scores[name].numpy() for name in outputs.values()], axis=1).astype(np.float64)
        difference = np.abs(got - expected)
        # NaN differs from every score.
        worst = np.unravel_index(np.argmax(np.where(np.isnan(difference), np.inf, difference)), difference.shape)
        if not difference[worst] <= TOLERANCE:
            row, output = int(indices[worst[0]]), list(outputs.values())[worst[1]]
            raise TidemillError(
                Code.SERVING_SKEW,
                f"row {row} of {split}, signature {signature}",
                f"a {output} of {got[worst]:.9g} from the exported model and {expected[worst]:.9g} from training",
                "report this with the experiment: the transform returns other values for one row than for a batch",
                {
                    "split": split,
                    "row": row,
                    "signature": signature,
                    "output": output,
                    "serving": float(got[worst]),
                    "training": float(expected[worst]),
                },
            )
        largest = max(largest, float(difference[worst]))
    return Replay(len(indices), largest)


def to_examples(raw: dict[str, np.ndarray], columns: Sequence[RawColumn]) -> list[bytes]:
    """Serializes dense rows as `tf.Example` protos, without the missing values."""
    import tensorflow as tf

    rows = len(next(iter(raw.values())))
    examples = [tf.train.Example() for _ in range(rows)]
    for column in columns:
        missing = SENTINELS[column.dtype]
        values = raw[column.name].tolist()
        for example, row in zip(examples, values, strict=True):
            known = [v for v in (row if column.is_list else [row]) if v != missing and v == v]
            if not known:
                continue
            feature = example.features.feature[column.name]
            if column.dtype == "int64":
                feature.int64_list.value.extend(known)
            elif column.dtype == "float32":
                feature.float_list.value.extend(known)
            else:
                feature.bytes_list.value.extend(known)
    return [example.SerializeToString() for example in examples]


def _take(dataset: Dataset, split: str, columns: Sequence[str], indices: np.ndarray) -> pa.RecordBatch:
    """Reads the rows at these ascending indices of a split."""
    taken, first = [], 0
    for batch in dataset.batches(split, columns):
        start, end = np.searchsorted(indices, [first, first + batch.num_rows])
        if end > start:
            taken.append(batch.take(pa.array(indices[start:end] - first)))
        first += batch.num_rows
    return pa.Table.from_batches(taken).combine_chunks().to_batches()[0]
