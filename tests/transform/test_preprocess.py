"""The preprocess step: row alignment, small and unusual data, and its errors."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.transform.preprocess_runs import FEATURES, Run, run, spec, write_examples, write_schema
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.runtime import Progress
from tidemill.transform.preprocess import preprocess

pytestmark = pytest.mark.tensorflow


def test_rows_stay_aligned(all_kinds: Run, splits: dict[str, pa.Table]):
    assert all_kinds.summary.rows == {name: len(rows) for name, rows in splits.items()}
    assert all_kinds.summary.features == len(FEATURES)
    assert all_kinds.summary.fingerprint == all_kinds.transformed.fingerprint
    for split, rows in splits.items():
        assert all_kinds.transformed_column(split, "y").dtype == np.float32
        np.testing.assert_array_equal(all_kinds.transformed_column(split, "y"), rows["y"].to_numpy())
        files = [f.name for f in all_kinds.examples.splits[split].files]
        assert [f.name for f in all_kinds.transformed.splits[split].files] == files
    assert len(all_kinds.examples.files("train")) > 2
    assert "key" not in all_kinds.transformed.columns


def test_files_have_32_bit_columns_without_nulls(all_kinds: Run):
    for split in all_kinds.transformed.splits:
        for path in all_kinds.transformed.files(split):
            fields = list(pq.read_schema(path))
            assert {str(field.type) for field in fields} == {"int32", "float"}
            assert not any(field.nullable for field in fields)


def test_the_graph_contains_the_schema(all_kinds: Run):
    text = (all_kinds.graph.path / "metadata" / "schema.pbtxt").read_text()
    assert 'name: "zscore"' in text
    assert 'name: "key"' not in text


def test_preprocesses_one_row_and_empty_splits(tmp_path: Path):
    rows = pa.table({"y": pa.array([True]), "x": [3.5], "n": [7], "word": [""], "gone": pa.array([None], pa.string())})
    features = {
        "x": {"kind": "numeric"},
        "n": {"kind": "numeric", "transform": {"bucketize": 4}},
        "word": {"kind": "categorical", "vocabulary": {"min_count": 5}},
    }
    result = run(tmp_path, {"train": rows}, features=features, key=[])
    assert result.summary.rows == {"train": 1, "valid": 0, "test": 0}
    assert result.transformed.read("train").num_rows == 1
    assert result.transformed_column("train", "x") == [0]
    assert result.transformed_column("train", "y") == [1]
    assert 0 <= result.transformed_column("train", "n")[0] < result.num_ids("n") == 5
    # TFT writes a placeholder token into an empty vocabulary.
    assert result.transformed_column("train", "word") == [1]
    assert result.num_ids("word") == 2


def small_table(**changes: pa.Array) -> pa.Table:
    columns = {
        "key": pa.array(["a", "b", "c"]),
        "y": pa.array([0, 1, 0], pa.int8()),
        "x": pa.array([1.0, None, 3.0]),
        "word": pa.array(["u", None, "v"]),
    }
    return pa.table(columns | changes)


NULLS, NANS = pa.nulls(3, pa.float64()), pa.array([math.nan, None, math.inf])
NUMERIC, WORD = {"x": {"kind": "numeric"}}, {"word": {"kind": "categorical"}}
MODULE = """
import tensorflow as tf
def preprocessing_fn(inputs):
    return {"a": tf.squeeze(tf.sparse.to_dense(inputs["x"]), 1)}
"""
MISTAKES = {
    "all null": (small_table(x=NULLS), {"features": NUMERIC}, Code.FEATURE_ALL_NULL, r"features\.x"),
    "all not a number": (small_table(x=NANS), {"features": NUMERIC}, Code.FEATURE_ALL_NULL, r"features\.x"),
    "all null words": (
        small_table(word=pa.nulls(3, pa.string())),
        {"features": WORD},
        Code.FEATURE_ALL_NULL,
        r"features\.word",
    ),
    "null type": (small_table(x=pa.nulls(3)), {"features": NUMERIC}, Code.FEATURE_ALL_NULL, r"features\.x"),
    "string as number": (small_table(), {"features": {"word": {"kind": "numeric"}}}, Code.FEATURE_TYPE, "word"),
    "float as category": (small_table(), {"features": {"x": {"kind": "categorical"}}}, Code.FEATURE_TYPE, "x"),
    "no column": (small_table(), {"features": {"z": {"kind": "numeric"}}}, Code.MISSING_COLUMN, "z"),
    "no label": (small_table(), {"features": NUMERIC, "labels": ["z"]}, Code.MISSING_COLUMN, "label"),
    "cross named as label": (
        small_table(),
        {"features": {"y": {"kind": "cross", "of": ["word", "key"]}}, "key": []},
        Code.INVALID_VALUE,
        "y",
    ),
    "label null": (
        small_table(y=pa.array([0, None, 1], pa.int8())),
        {"features": NUMERIC},
        Code.LABEL_NULL,
        "y.*1 nulls",
    ),
    "label value": (small_table(y=pa.array([0, 2, 1], pa.int8())), {"features": NUMERIC}, Code.LABEL_TYPE, "y.*2"),
    "label text": (small_table(y=pa.array(["0", "x", "1"])), {"features": NUMERIC}, Code.LABEL_TYPE, "y"),
    "too large": (
        small_table(x=pa.array([2**64 - 1, 1, 2], pa.uint64())),
        {"features": {"x": {"kind": "categorical"}}},
        Code.FEATURE_TYPE,
        "x.*uint64",
    ),
    "options": (
        small_table(),
        {"features": NUMERIC, "runner": "direct", "options": ["--no_such=1"]},
        Code.INVALID_VALUE,
        "no_such",
    ),
    "module label": (small_table(), {"labels": ["z"], "transform_module": MODULE}, Code.MISSING_COLUMN, "label.*'z'"),
}


@pytest.mark.parametrize("name", list(MISTAKES))
def test_rejects_invalid_input(tmp_path: Path, name: str):
    table, changes, code, message = MISTAKES[name]
    with pytest.raises(TidemillError, match=message) as caught:
        run(tmp_path, {"train": table}, **changes)
    assert caught.value.code is code
    assert sorted(p.name for p in tmp_path.iterdir()) == ["examples", "schema"]


@pytest.mark.parametrize(
    ("train", "schema_text", "code"),
    [
        (0, b"", Code.EMPTY_SPLIT),
        (3, None, Code.MISSING_FILE),
        (3, b"feature {", Code.UNREADABLE_FILE),
        (3, b"\xff\xfe", Code.UNREADABLE_FILE),
    ],
)
def test_rejects_incomplete_input(tmp_path: Path, train: int, schema_text: bytes | None, code: Code):
    examples = write_examples(tmp_path / "examples", {"train": small_table().slice(0, train), "test": small_table()})
    schema = write_schema(tmp_path / "schema", small_table().schema)
    if schema_text is None:
        (tmp_path / "schema" / "schema.pbtxt").unlink()
    else:
        (tmp_path / "schema" / "schema.pbtxt").write_bytes(schema_text)
    targets = {"transform_graph": str(tmp_path / "graph"), "transformed": str(tmp_path / "made")}
    with pytest.raises(TidemillError) as caught:
        preprocess(spec(features=NUMERIC), examples, schema, progress=Progress("preprocess"), **targets)
    assert caught.value.code is code
    assert not list(tmp_path.glob("graph*")) and not list(tmp_path.glob("made*"))


@pytest.mark.parametrize(
    ("engine", "damaged"),
    [
        ("local", "pages"),
        ("local", "footer"),
        pytest.param("beam", "pages", marks=pytest.mark.beam),
        pytest.param("beam", "footer", marks=[pytest.mark.beam, pytest.mark.full]),
    ],
)
def test_reports_damaged_files_of_the_right_size(tmp_path: Path, engine: str, damaged: str):
    module = "def preprocessing_fn(inputs):\n    import tensorflow as tf\n    x = tf.sparse.to_dense(inputs['x'])\n"
    module += "    return {'a': tf.squeeze(x, 1)}\n"
    examples = write_examples(tmp_path / "examples", {"train": small_table()})
    schema = write_schema(tmp_path / "schema", small_table().schema)
    part = tmp_path / "examples" / "train" / "part-00000.parquet"
    size, group = part.stat().st_size, pq.read_metadata(part).row_group(0)
    column = next(group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == "x")
    with open(part, "r+b") as file:
        file.seek(size - 40 if damaged == "footer" else column.dictionary_page_offset or column.data_page_offset)
        file.write(b"\xa5" * 30)
    targets = {"transform_graph": str(tmp_path / "graph"), "transformed": str(tmp_path / "made")}
    for what in ({"features": NUMERIC}, {"transform_module": module}):
        with pytest.raises(TidemillError, match=r"part-00000\.parquet: got other bytes than") as caught:
            preprocess(spec(engine=engine, **what), examples, schema, progress=Progress("preprocess"), **targets)
        assert caught.value.code is Code.INCOMPLETE_ARTIFACT
    assert part.stat().st_size == size
    assert not list(tmp_path.glob("graph*")) and not list(tmp_path.glob("made*"))


@pytest.mark.parametrize("text", [b"{}", b"[]", b"\xff", b"", b'{"fingerprint": "", "files": [], "metadata": {}}'])
def test_rejects_a_manifest_without_a_dataset(tmp_path: Path, text: bytes):
    examples = write_examples(tmp_path / "examples", {"train": small_table()})
    (tmp_path / "examples" / "manifest.json").write_bytes(text)
    with pytest.raises(TidemillError, match="rerun the step that wrote it") as caught:
        Dataset(examples)
    assert caught.value.code is Code.INCOMPLETE_ARTIFACT


@pytest.mark.parametrize("name", ["transform_graph", "transformed"])
@pytest.mark.parametrize("kind", ["file", "link", "link to nothing"])
def test_rejects_files_and_links_in_place_of_the_output_folder(tmp_path: Path, name: str, kind: str):
    target, mine = tmp_path / "run" / name, tmp_path / "mine"
    target.parent.mkdir()
    if kind == "link":
        mine.mkdir()
    target.write_text("mine") if kind == "file" else target.symlink_to(mine)
    with pytest.raises(FileExistsError, match=name):
        run(tmp_path / "run", {"train": small_table()}, features=NUMERIC)
    assert target.read_text() == "mine" if kind == "file" else target.is_symlink()
    assert sorted(p.name for p in target.parent.iterdir()) == ["examples", "schema", name]


def test_a_failure_keeps_the_old_artifacts(tmp_path: Path):
    run(tmp_path, {"train": small_table()}, features=NUMERIC)
    before = (tmp_path / "transform_graph" / "manifest.json").read_bytes()
    with pytest.raises(TidemillError):
        run(tmp_path, {"train": small_table(y=pa.array([0, 2, 1], pa.int8()))}, features=NUMERIC)
    assert (tmp_path / "transform_graph" / "manifest.json").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["examples", "schema", "transform_graph", "transformed"]


def test_labels_are_copied_and_are_not_features(tmp_path: Path):
    table = small_table(z=pa.array([True, False, True]))
    result = run(tmp_path, {"train": table, "test": table.slice(1, 1)}, features=NUMERIC, labels=["y", "z"])
    assert list(result.transformed.columns) == ["x", "y", "z"]
    assert [c.name for c in result.graph.raw_columns] == ["x"] and [f["name"] for f in result.graph.features] == ["x"]
    made = result.transformed.read("train")
    assert made["y"].to_pylist() == table["y"].to_pylist()
    assert made["z"].to_pylist() == [1.0, 0.0, 1.0] and made.schema.field("z").type == pa.float32()
    assert result.transformed.metadata["labels"] == ["y", "z"]


TWO_LABELS = {
    "null": (pa.array([0, None, 1], pa.int8()), Code.LABEL_NULL),
    "value": (pa.array([0, 2, 1], pa.int8()), Code.LABEL_TYPE),
    "text": (pa.array(["0", "1", "1"]), Code.LABEL_TYPE),
    "none": (None, Code.MISSING_COLUMN),
}


@pytest.mark.parametrize("case", TWO_LABELS)
def test_checks_the_second_label(tmp_path: Path, case: str):
    values, code = TWO_LABELS[case]
    with pytest.raises(TidemillError, match="z") as caught:
        run(
            tmp_path,
            {"train": small_table(z=values) if values is not None else small_table()},
            features=NUMERIC,
            labels=["y", "z"],
        )
    assert caught.value.code is code
