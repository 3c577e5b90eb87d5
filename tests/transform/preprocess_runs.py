"""Examples with every kind of feature, and preprocess runs over them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tidemill.artifacts.examples import Dataset, DatasetWriter
from tidemill.runtime import Progress
from tidemill.steps.preprocess import PreprocessSpec
from tidemill.transform.graph import TransformGraph
from tidemill.transform.preprocess import PreprocessSummary, preprocess
from tidemill.transform.raw import raw_columns

_SCHEMA_TYPES = {"int64": "INT", "float32": "FLOAT", "string": "BYTES"}
TRAIN_ROWS, VALID_ROWS, TEST_ROWS = 3000, 700, 10

FEATURES = {
    "zscore": {"kind": "numeric"},
    "zscore_zero": {"kind": "numeric", "missing": "zero"},
    "zscore_number": {"kind": "numeric", "missing": -7.5},
    "minmax": {"kind": "numeric", "transform": "minmax"},
    "log": {"kind": "numeric", "transform": "log", "missing": "zero"},
    "none": {"kind": "numeric", "transform": "none"},
    "quantile": {"kind": "numeric", "transform": "quantile"},
    "clipped": {"kind": "numeric", "transform": {"clip": [0.05, 0.9]}},
    "constant": {"kind": "numeric"},
    "constant_minmax": {"kind": "numeric", "transform": "minmax"},
    "flag": {"kind": "numeric", "transform": "none", "missing": 0.5},
    "buckets": {"kind": "numeric", "transform": {"bucketize": 8}},
    "buckets_number": {"kind": "numeric", "transform": {"bucketize": 8}, "missing": 1e9},
    "log2": {"kind": "numeric", "transform": "log2_squared"},
    "log2_number": {"kind": "numeric", "transform": "log2_squared", "missing": 3},
    "ln": {"kind": "numeric", "transform": "ln_squared"},
    "text": {"kind": "categorical"},
    "text_top": {"kind": "categorical", "vocabulary": {"top_k": 5, "oov_buckets": 3}, "missing": "none"},
    "text_min": {"kind": "categorical", "vocabulary": {"min_count": 60}},
    "integer": {"kind": "categorical"},
    "boolean": {"kind": "categorical"},
    "hashed": {"kind": "categorical", "hash": {"buckets": 50}},
    "größe in m²/h": {"kind": "numeric", "transform": "none"},
    "crossed": {"kind": "cross", "of": ["text", "integer"], "buckets": 97},
}


@dataclass(frozen=True)
class Run:
    """The inputs and outputs of a finished preprocess step."""

    examples: Dataset
    graph: TransformGraph
    transformed: Dataset
    summary: PreprocessSummary

    def raw(self, split: str, column: str) -> list:
        """Returns a raw column as Python values."""
        return self.examples.read(split, [column])[column].to_pylist()

    def transformed_column(self, split: str, feature: str) -> np.ndarray:
        """Returns a transformed column."""
        return self.transformed.read(split, [feature])[feature].to_numpy()

    def num_ids(self, feature: str) -> int:
        """Returns the number of ids of a feature."""
        return next(f["num_ids"] for f in self.graph.features if f["name"] == feature)


def write_examples(path: Path, splits: dict[str, pa.Table]) -> str:
    """Writes a dataset with small row groups and shards. Other splits stay empty."""
    schema = next(iter(splits.values())).schema
    with DatasetWriter(path, schema, row_group_rows=512, shard_rows=1024) as writer:
        for split, table in splits.items():
            writer.write(split, table)
    return str(path)


def write_schema(path: Path, schema: pa.Schema) -> str:
    """Writes a schema artifact with the types of the columns."""
    path.mkdir(parents=True, exist_ok=True)
    lines = [f'feature {{ name: "{c.name}" type: {_SCHEMA_TYPES[c.dtype]} }}\n' for c in raw_columns(schema)]
    (path / "schema.pbtxt").write_text("".join(lines), encoding="utf-8")
    return str(path)


def spec(**changes: object) -> PreprocessSpec:
    """Returns a spec with the label `y`, the key `key` and the default engine, except for some fields."""
    fields = {
        "code": "test",
        "labels": ["y"],
        "key": ["key"],
        "features": None,
        "transform_module": None,
        "split_column": None,
    }
    return PreprocessSpec(**(fields | changes))


def run(folder: Path, splits: dict[str, pa.Table], schema_text: str | None = None, **changes: object) -> Run:
    """Writes examples and a schema to a folder and preprocesses them there. `schema_text` replaces the schema."""
    examples = write_examples(folder / "examples", splits)
    schema = write_schema(folder / "schema", next(iter(splits.values())).schema)
    if schema_text is not None:
        (folder / "schema" / "schema.pbtxt").write_text(schema_text, encoding="utf-8")
    summary = preprocess(
        spec(**changes),
        examples,
        schema,
        transform_graph=str(folder / "transform_graph"),
        transformed=str(folder / "transformed"),
        progress=Progress("preprocess"),
    )
    return open_run(folder, summary)


def open_run(folder: Path, summary: PreprocessSummary) -> Run:
    """Returns a run that `run` wrote to a folder."""
    graph, transformed = TransformGraph(folder / "transform_graph"), Dataset(folder / "transformed")
    return Run(Dataset(folder / "examples"), graph, transformed, summary)


def example_table(rows: int, seed: int, shift: float) -> pa.Table:
    """Returns random examples with the columns of `FEATURES`.

    Args:
        rows: Number of rows.
        seed: Seed of the random numbers.
        shift: How far the numbers are moved.
    """
    rng = np.random.default_rng(seed)

    def with_nulls(values: np.ndarray, type_: pa.DataType) -> pa.Array:
        return pa.array(values.tolist(), type_, mask=rng.random(rows) < 0.1)

    number = rng.normal(5 + shift, 3, rows)
    number[rng.random(rows) < 0.05] = np.nan
    floats = with_nulls(number, pa.float64())
    count = np.where(rng.random(rows) < 0.3, rng.integers(-20, 5, rows), rng.lognormal(6, 4, rows).astype(np.int64))
    count[:6] = [2**63 - 1, -(2**63) + 1, 2, 3, 4, 1 << 40]
    counts = pa.array(count, mask=np.arange(rows) % 11 == 10)
    words = np.array(["", "a", "b", "größe", "日本", "a b", "line\nbreak", "c", "d", "e", "f", "g", "h"], object)
    text = words[np.minimum(rng.geometric(0.25, rows) - 1 + int(shift > 0), len(words) - 1)]
    texts = with_nulls(text, pa.large_string())
    integer = rng.integers(-3, 4, rows)
    integer[1:4] = [2**63 - 1, -(2**63) + 1, 2**63 - 1]
    columns = {
        "key": pa.array([f"{seed}-{i}" for i in range(rows)]),
        "y": pa.array(rng.integers(0, 2, rows), pa.int8()),
        **dict.fromkeys(
            ("zscore", "zscore_zero", "zscore_number", "minmax", "log", "none", "quantile", "clipped"), floats
        ),
        "constant": with_nulls(np.full(rows, 4), pa.int32()),
        "constant_minmax": with_nulls(np.full(rows, 4.5), pa.float32()),
        "flag": with_nulls(rng.random(rows) < 0.5, pa.bool_()),
        **dict.fromkeys(("buckets", "buckets_number"), floats),
        **dict.fromkeys(("log2", "log2_number", "ln"), counts),
        **dict.fromkeys(("text", "text_top", "text_min", "hashed"), texts),
        "integer": with_nulls(integer, pa.int64()),
        "boolean": with_nulls(rng.random(rows) < 0.7, pa.bool_()),
        "größe in m²/h": with_nulls(rng.integers(0, 100, rows), pa.uint8()),
        "when": pa.array(np.arange(rows), pa.timestamp("us")),
    }
    return pa.table(columns)
