"""Integers of a transform module that models do not get as they are. Imports TensorFlow.

Models read numbers as float32, which holds integers up to 2^24. A transform of `features` computes with float64 before;
a transform module may return an integer as it is, such as a census tract of eleven digits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.artifacts.examples import Dataset
from tidemill.transform.graph import TRANSFORM_FN, TransformGraph
from tidemill.transform.raw import to_dense

_ROWS = 100_000
_BATCH_ROWS = 1 << 14


def find(graph: TransformGraph, data: Dataset) -> list[str]:
    """Returns a sentence for each feature whose integers change as float32, measured on the first 100,000 rows of
    train.

    Args:
        graph: The transform graph.
        data: The examples from which it was made.
    """
    names = _integers(graph)
    if not names:
        return []
    from tidemill.transform.dense_function import DenseFunction

    function = DenseFunction(graph.path / TRANSFORM_FN, graph.raw_columns, dict.fromkeys(names, "int64"), {}).concrete()
    values: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for batch in _batches(data, [column.name for column in graph.raw_columns]):
        for name, tensor in function(to_dense(batch, graph.raw_columns)).items():
            values[name].append(tensor.numpy())
    return [text for name in names if (text := describe(name, np.concatenate(values[name])))]


def describe(name: str, values: np.ndarray) -> str | None:
    """Returns what is lost of integers as float32; None if nothing is.

    Args:
        name: The feature.
        values: Its values, int64 `[rows]`.
    """
    narrow = values.astype(np.float32)
    # The largest float32 below 2^63 is an int64; 2^63 itself, to which larger integers are rounded, is not.
    whole = np.where(narrow < 2.0**63, narrow, 0).astype(np.int64)
    changed = (whole != values) | (narrow >= 2.0**63)
    if not changed.any():
        return None
    distinct = np.unique(values)
    equal = 1 - len(np.unique(distinct.astype(np.float32))) / len(distinct)
    return (
        f"{name}: {changed.mean():.1%} of the integers that the transform module returns become other numbers as "
        f"float32, which is what models read, and {equal:.1%} of the distinct ones become equal to others. Give them a "
        f"vocabulary or buckets, or subtract a constant."
    )


def _integers(graph: TransformGraph) -> list[str]:
    """Returns the features that are numbers for models and integers in the graph."""
    import tensorflow_transform as tft
    from tensorflow_metadata.proto.v0 import schema_pb2

    schema = tft.TFTransformOutput(str(graph.path)).transformed_metadata.schema
    integers = {feature.name for feature in schema.feature if feature.type == schema_pb2.INT}
    return [
        feature["name"] for feature in graph.features if feature["kind"] == "number" and feature["name"] in integers
    ]


def _batches(data: Dataset, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    rows = 0
    for path in data.files("train"):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns)):
                yield batch
                rows += batch.num_rows
                if rows >= _ROWS:
                    return
