"""Numeric features over text: says which values are not numbers, and which options would read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.experiment.features import Feature, Numeric
from tidemill.transform.raw import raw_dtype

_SHOWN = 3
_MAX_ROWS = 1_000_000
_NUMBER = re.compile(
    r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*|\s*[+-]?(nan|inf(inity)?)\s*", re.IGNORECASE
)


def check(features: Mapping[str, Feature], schema: pa.Schema, data: Dataset) -> None:
    """Checks that no numeric feature reads a text column.

    Args:
        features: The experiment's features.
        schema: The Arrow schema of the examples.
        data: The examples, with rows in train.

    Raises:
        TidemillError: `feature-type` with the first values that are not numbers.
    """
    for name in numeric_over_text(features, schema):
        raise error(name, _texts(data, name))


def numeric_over_text(features: Mapping[str, Feature], schema: pa.Schema) -> list[str]:
    """Returns the numeric features whose columns hold texts."""
    return [
        name
        for name, feature in features.items()
        if isinstance(feature, Numeric) and name in schema.names and raw_dtype(schema.field(name).type) == "string"
    ]


def error(name: str, texts: Iterable[str]) -> TidemillError:
    """Returns the error for a numeric feature over text.

    Args:
        name: The feature, which is also the column.
        texts: Some of the column's texts. Only as many are read as needed.
    """
    others, first = _not_numbers(texts)
    if others:
        got = f"column {name!r} of type string with values that are not numbers, such as {', '.join(others)}"
        want = (
            "write those that mean a missing value into csv.nullstr of the table, set csv.decimal_separator or "
            "csv.thousands if they are numbers, or make the feature categorical"
        )
    else:
        got = f"column {name!r} of type string" + (
            f" with numbers that another type would change, such as {first}" if first else ""
        )
        want = "cast it in the query or declare its type in columns of the table, or make the feature categorical"
        if "." in first:
            want = f'remove csv.decimal_separator of the table if it is ",", {want}'
    return TidemillError(Code.FEATURE_TYPE, f"features.{name}", got, want, {"column": name})


def _not_numbers(texts: Iterable[str]) -> tuple[list[str], str]:
    """Returns the first distinct texts that are not numbers, and the first text of all, quoted."""
    others: dict[str, None] = {}
    first = ""
    for value in texts:
        first = first or repr(value[:40])
        if not _NUMBER.fullmatch(value):
            others[repr(value[:40])] = None
            if len(others) == _SHOWN:
                break
    return list(others), first


def _texts(data: Dataset, column: str) -> Iterator[str]:
    """Yields the texts of the first rows of train, without nulls."""
    rows = 0
    for path in data.files("train"):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=[column]):
                for value in batch.column(0).drop_null().to_pylist():
                    yield value if isinstance(value, str) else value.decode("utf-8", "replace")
                rows += batch.num_rows
                if rows >= _MAX_ROWS:
                    return
