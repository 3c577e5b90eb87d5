"""`tidemill.transform.analyze`, the transform engine by itself: TensorFlow Transform's documentation example."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

from tidemill.errors import Code, TidemillError
from tidemill.transform import Transform, analyze

pytestmark = pytest.mark.tensorflow

ROWS = [{"x": 1, "y": 1, "s": "hello"}, {"x": 2, "y": 2, "s": "world"}, {"x": 3, "y": 3, "s": "hello"}]
SPEC = {
    "x": tf.io.FixedLenFeature([], tf.float32),
    "y": tf.io.FixedLenFeature([], tf.float32),
    "s": tf.io.FixedLenFeature([], tf.string),
}
FLOATS = pa.schema([("x", pa.float64()), ("y", pa.float32()), ("s", pa.string())])
VOCABULARY = "transform_fn/assets/vocab_compute_and_apply_vocabulary_vocabulary"

BEAM_VOCABULARY = b"hello\nworld\n"
"""Recorded from Beam with TFT 1.21 for ROWS and SPEC, like BEAM_ROWS; see `test_beam_agrees_with_the_recording`."""
BEAM_ROWS = [
    {"s_integerized": 0, "x_centered": -1.0, "x_centered_times_y_normalized": -0.0, "y_normalized": 0.0},
    {"s_integerized": 1, "x_centered": 0.0, "x_centered_times_y_normalized": 0.0, "y_normalized": 0.5},
    {"s_integerized": 0, "x_centered": 1.0, "x_centered_times_y_normalized": 1.0, "y_normalized": 1.0},
]


def preprocessing_fn(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The "simple example" of https://www.tensorflow.org/tfx/transform/get_started."""
    x, y, s = inputs["x"], inputs["y"], inputs["s"]
    x_centered = x - tft.mean(x)
    y_normalized = tft.scale_to_0_1(y)
    s_integerized = tft.compute_and_apply_vocabulary(s)
    return {
        "x_centered": x_centered,
        "y_normalized": y_normalized,
        "x_centered_times_y_normalized": x_centered * y_normalized,
        "s_integerized": s_integerized,
    }


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS, FLOATS), path)
    return path


@pytest.fixture(scope="module")
def transform(parquet: Path, tmp_path_factory: pytest.TempPathFactory) -> Transform:
    return analyze(parquet, preprocessing_fn, output=tmp_path_factory.mktemp("made") / "transform")


def raised_by(call: Callable[[], Any]) -> TidemillError:
    with pytest.raises(TidemillError) as caught:
        call()
    return caught.value


def test_documentation_example_equals_beam(transform: Transform, parquet: Path):
    assert (transform.path / VOCABULARY).read_bytes() == BEAM_VOCABULARY
    table = transform.apply(parquet)
    assert table.to_pylist() == BEAM_ROWS
    assert table.schema.types == [pa.int64(), pa.float32(), pa.float32(), pa.float32()]


def test_artifact_is_what_tft_opens(transform: Transform):
    output = tft.TFTransformOutput(str(transform.path))
    assert output.transformed_metadata.schema == transform.transformed_schema
    assert output.vocabulary_by_name("vocab_compute_and_apply_vocabulary_vocabulary") == [b"hello", b"world"]
    assert output.raw_feature_spec() == SPEC
    raw = {name: tf.constant([row[name] for row in ROWS], SPEC[name].dtype) for name in SPEC}
    layer = output.transform_features_layer()
    assert layer(raw)["s_integerized"].numpy().tolist() == [0, 1, 0]
    assert sorted(transform.tft_output.transformed_feature_spec()) == sorted(BEAM_ROWS[0])


@pytest.mark.parametrize("kind", ["spec", "schema", "metadata"])
def test_given_schema_decides_the_dtypes(kind: str):
    schema = schema_utils.schema_from_feature_spec(SPEC)
    schemas = {"spec": SPEC, "schema": schema, "metadata": dataset_metadata.DatasetMetadata(schema)}
    integers = pa.Table.from_pylist(ROWS)
    assert analyze(integers, preprocessing_fn, schema=schemas[kind]).apply(integers).to_pylist() == BEAM_ROWS


def test_data_may_be_files_tables_batches_and_frames(transform: Transform, parquet: Path):
    table = pa.Table.from_pylist(ROWS, FLOATS)
    for data in (
        str(parquet),
        str(parquet.parent / "*.parquet"),
        [parquet],
        table,
        table.to_batches()[0],
        table.to_batches(max_chunksize=2),
        table.to_pandas(),
        pl.DataFrame(ROWS, schema={"x": pl.Float64, "y": pl.Float32, "s": pl.String}),
    ):
        assert transform.apply(data).to_pylist() == BEAM_ROWS, type(data)
    assert analyze(pd.DataFrame(ROWS).astype({"x": float, "y": float}), preprocessing_fn).apply(table) == (
        transform.apply(table)
    )


def test_columns_with_nulls_and_lists_are_sparse():
    table = pa.table(
        {"a": pa.array([1, None, 3]), "b": [["u"], [], ["v", "u"]], "when": pa.array([0, 0, 0], pa.date32())}
    )
    seen: dict[str, Any] = {}

    def sparse_fn(inputs: dict[str, Any]) -> dict[str, Any]:
        seen.update(inputs)
        dense = tf.sparse.to_dense(
            tf.SparseTensor(inputs["a"].indices, inputs["a"].values, [tf.shape(inputs["a"])[0], 1])
        )
        return {
            "a": tf.cast(dense, tf.float32) - tft.mean(inputs["a"]),
            "b": tft.compute_and_apply_vocabulary(inputs["b"]),
        }

    transformed = analyze(table, sparse_fn).apply(table)
    assert sorted(seen) == ["a", "b"] and all(isinstance(value, tf.SparseTensor) for value in seen.values())
    assert transformed.to_pydict() == {"a": [[-1.0], [-2.0], [1.0]], "b": [[0], [], [1, 0]]}


def test_columns_without_nulls_are_dense_also_without_statistics(tmp_path: Path):
    """Lists of a fixed size without nulls are dense vectors."""
    vectors = pa.list_(pa.float32(), 2)
    table = pa.table(
        {
            "x": pa.array([1.0, 2.0]),
            "n": pa.array([1, None]),
            "v": pa.array([[1.0, 2.0], [3.0, 4.0]], vectors),
            "w": pa.array([[1.0, None], [3.0, 4.0]], vectors),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet", write_statistics=False)
    seen: dict[str, Any] = {}

    def function(inputs: dict[str, Any]) -> dict[str, Any]:
        seen.update(inputs)
        return {"y": inputs["v"] + inputs["x"][:, tf.newaxis]}

    transformed = analyze(tmp_path / "rows.parquet", function).apply(table)
    assert transformed.column("y").to_pylist() == [[2.0, 3.0], [5.0, 6.0]]
    assert {name: isinstance(value, tf.SparseTensor) for name, value in seen.items()} == {
        "x": False,
        "n": True,
        "v": False,
        "w": True,
    }


def test_large_files_come_in_batches_in_order(tmp_path: Path):
    numbers = pa.table({"x": pa.array(range(30_000), pa.float32())})
    pq.write_table(numbers, tmp_path / "x.parquet", row_group_size=10_000)
    transform = analyze(tmp_path / "x.parquet", lambda inputs: {"x": inputs["x"] - tft.min(inputs["x"])}, threads=2)
    batches = list(transform.apply_batches(tmp_path / "x.parquet"))
    assert max(batch.num_rows for batch in batches) <= 8192
    assert pa.Table.from_batches(batches).column("x").to_pylist() == numbers.column("x").to_pylist()


def test_same_data_gives_the_same_bytes_also_from_the_analyzer_cache(
    parquet: Path, transform: Transform, tmp_path: Path
):
    def content(path: Path) -> dict[str, bytes]:
        return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}

    cache = tmp_path / "cache"
    first = analyze(parquet, preprocessing_fn, output=tmp_path / "first", analyzer_cache=cache)
    assert any(cache.rglob("*.npz"))
    again = analyze(parquet, preprocessing_fn, output=tmp_path / "again", analyzer_cache=cache)
    assert content(first.path) == content(again.path) == content(transform.path)


def test_artifact_can_be_opened_again_and_replaced(parquet: Path, tmp_path: Path):
    path = analyze(parquet, preprocessing_fn, output=tmp_path / "made").path
    assert Transform(path).apply(parquet).to_pylist() == BEAM_ROWS
    analyze(parquet, lambda inputs: {"only": inputs["x"]}, output=path)
    assert Transform(path).apply(parquet).column_names == ["only"]


def test_temporary_artifact_ends_with_the_object(parquet: Path):
    transform = analyze(parquet, preprocessing_fn)
    path = transform.path
    assert path.is_dir()
    del transform
    assert not path.exists()


def test_no_rows_keep_the_columns(transform: Transform, parquet: Path):
    rows = pq.read_table(parquet)
    assert transform.apply(rows.slice(0, 0)).schema == transform.apply(rows).schema


def test_bad_input_has_a_code(transform: Transform, parquet: Path, tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    cases = {
        "no file": (lambda: analyze(tmp_path / "*.parquet", preprocessing_fn), Code.MISSING_FILE),
        "other data": (lambda: analyze(3, preprocessing_fn), Code.FEATURE_TYPE),
        "missing column": (lambda: transform.apply(pa.table({"x": [1.0], "y": [1.0]})), Code.MISSING_COLUMN),
        "text for a number": (
            lambda: transform.apply(pa.table({"x": ["a"], "y": [1.0], "s": ["b"]})),
            Code.FEATURE_TYPE,
        ),
        "null in a dense column": (
            lambda: transform.apply(pa.table({"x": [1.0, None], "y": [1.0, 2.0], "s": ["b", "c"]})),
            Code.FEATURE_TYPE,
        ),
        "no function": (lambda: analyze(parquet, None), Code.INVALID_VALUE),
        "not Parquet": (lambda: analyze(tmp_path / "mine.txt", preprocessing_fn), Code.UNREADABLE_FILE),
        "no transform": (lambda: Transform(tmp_path / "nowhere"), Code.INCOMPLETE_ARTIFACT),
        "other files": (lambda: analyze(parquet, preprocessing_fn, output=tmp_path), Code.UNUSABLE_PATH),
    }
    assert {name: raised_by(call).code for name, (call, _) in cases.items()} == {
        n: code for n, (_, code) in cases.items()
    }
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.process
def test_import_is_light():
    code = "import sys, tidemill.transform as t; assert t.__all__; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": ""}).returncode == 0


@pytest.mark.beam
@pytest.mark.full
def test_beam_agrees_with_the_recording(tmp_path: Path):
    import tensorflow_transform.beam as tft_beam

    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(SPEC))
    with tft_beam.Context(temp_dir=str(tmp_path / "temp")):
        (rows, _), transform_fn = (ROWS, metadata) | tft_beam.AnalyzeAndTransformDataset(preprocessing_fn)
        _ = transform_fn | tft_beam.WriteTransformFn(str(tmp_path / "out"))
    assert (tmp_path / "out" / VOCABULARY).read_bytes() == BEAM_VOCABULARY
    assert rows == BEAM_ROWS
