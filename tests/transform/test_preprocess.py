"""The step as a whole: alignment of rows, small and odd data, and what the mistakes end in."""

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


def test_rows_stay_aligned(all_kinds: Run, splits: dict[str, pa.Table]):
    assert all_kinds.summary.rows == {name: len(rows) for name, rows in splits.items()}
    assert all_kinds.summary.features == len(FEATURES)
    assert all_kinds.summary.fingerprint == all_kinds.transformed.fingerprint
    for split, rows in splits.items():
        assert all_kinds.made(split, "y").dtype == np.float32
        np.testing.assert_array_equal(all_kinds.made(split, "y"), rows["y"].to_numpy())
        files = [f.name for f in all_kinds.examples.splits[split].files]
        assert [f.name for f in all_kinds.transformed.splits[split].files] == files
    assert len(all_kinds.examples.files("train")) > 2
    assert "key" not in all_kinds.transformed.columns


def test_the_files_have_numbers_of_four_bytes_and_no_marks_of_nulls(all_kinds: Run):
    for split in all_kinds.transformed.splits:
        for path in all_kinds.transformed.files(split):
            fields = list(pq.read_schema(path))
            assert {str(field.type) for field in fields} == {"int32", "float"}
            assert not any(field.nullable for field in fields)


def test_the_schema_artifact_is_kept(all_kinds: Run):
    text = (all_kinds.graph.path / "metadata" / "schema.pbtxt").read_text()
    assert 'name: "zscore"' in text
    assert 'name: "key"' not in text


def test_one_row_and_empty_splits(tmp_path: Path):
    rows = pa.table({"y": pa.array([True]), "x": [3.5], "n": [7], "word": [""], "gone": pa.array([None], pa.string())})
    features = {
        "x": {"kind": "numeric"},
        "n": {"kind": "numeric", "transform": {"bucketize": 4}},
        "word": {"kind": "categorical", "vocabulary": {"min_count": 5}},
    }
    result = run(tmp_path, {"train": rows}, features=features, key=[])
    assert result.summary.rows == {"train": 1, "valid": 0, "test": 0}
    assert result.transformed.read("train").num_rows == 1
    assert result.made("train", "x") == [0]
    assert result.made("train", "y") == [1]
    assert 0 <= result.made("train", "n")[0] < result.num_ids("n") == 5
    # TFT writes a placeholder into a vocabulary of nothing.
    assert result.made("train", "word") == [1]
    assert result.num_ids("word") == 2


def rows(**changes: pa.Array) -> pa.Table:
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
    "all null": (rows(x=NULLS), {"features": NUMERIC}, Code.FEATURE_ALL_NULL, r"features\.x"),
    "all not a number": (rows(x=NANS), {"features": NUMERIC}, Code.FEATURE_ALL_NULL, r"features\.x"),
    "all null words": (
        rows(word=pa.nulls(3, pa.string())),
        {"features": WORD},
        Code.FEATURE_ALL_NULL,
        r"features\.word",
    ),
    "null type": (rows(x=pa.nulls(3)), {"features": NUMERIC}, Code.FEATURE_ALL_NULL, r"features\.x"),
    "string as number": (rows(), {"features": {"word": {"kind": "numeric"}}}, Code.FEATURE_TYPE, "word"),
    "float as category": (rows(), {"features": {"x": {"kind": "categorical"}}}, Code.FEATURE_TYPE, "x"),
    "no column": (rows(), {"features": {"z": {"kind": "numeric"}}}, Code.MISSING_COLUMN, "z"),
    "no label": (rows(), {"features": NUMERIC, "labels": ["z"]}, Code.MISSING_COLUMN, "label"),
    "cross named as label": (
        rows(),
        {"features": {"y": {"kind": "cross", "of": ["word", "key"]}}, "key": []},
        Code.INVALID_VALUE,
        "y",
    ),
    "label null": (rows(y=pa.array([0, None, 1], pa.int8())), {"features": NUMERIC}, Code.LABEL_NULL, "y.*1 nulls"),
    "label value": (rows(y=pa.array([0, 2, 1], pa.int8())), {"features": NUMERIC}, Code.LABEL_TYPE, "y.*2"),
    "label text": (rows(y=pa.array(["0", "x", "1"])), {"features": NUMERIC}, Code.LABEL_TYPE, "y"),
    "too large": (
        rows(x=pa.array([2**64 - 1, 1, 2], pa.uint64())),
        {"features": {"x": {"kind": "categorical"}}},
        Code.FEATURE_TYPE,
        "x.*uint64",
    ),
    "options": (
        rows(),
        {"features": NUMERIC, "runner": "direct", "options": ["--no_such=1"]},
        Code.INVALID_VALUE,
        "no_such",
    ),
    "module label": (rows(), {"labels": ["z"], "transform_module": MODULE}, Code.MISSING_COLUMN, "label.*'z'"),
}


@pytest.mark.parametrize("name", list(MISTAKES))
def test_mistakes(tmp_path: Path, name: str):
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
def test_inputs_that_are_not_whole(tmp_path: Path, train: int, schema_text: bytes | None, code: Code):
    examples = write_examples(tmp_path / "examples", {"train": rows().slice(0, train), "test": rows()})
    schema = write_schema(tmp_path / "schema", rows().schema)
    if schema_text is None:
        (tmp_path / "schema" / "schema.pbtxt").unlink()
    else:
        (tmp_path / "schema" / "schema.pbtxt").write_bytes(schema_text)
    targets = {"transform_graph": str(tmp_path / "graph"), "transformed": str(tmp_path / "made")}
    with pytest.raises(TidemillError) as caught:
        preprocess(spec(features=NUMERIC), examples, schema, progress=Progress("preprocess"), **targets)
    assert caught.value.code is code
    assert not list(tmp_path.glob("graph*")) and not list(tmp_path.glob("made*"))


@pytest.mark.parametrize("engine", ["local", "beam"])
@pytest.mark.parametrize("place", ["pages", "footer"])
def test_damaged_bytes_of_the_size_that_they_had(tmp_path: Path, engine: str, place: str):
    module = "def preprocessing_fn(inputs):\n    import tensorflow as tf\n    x = tf.sparse.to_dense(inputs['x'])\n"
    module += "    return {'a': tf.squeeze(x, 1)}\n"
    examples = write_examples(tmp_path / "examples", {"train": rows()})
    schema = write_schema(tmp_path / "schema", rows().schema)
    part = tmp_path / "examples" / "train" / "part-00000.parquet"
    size, group = part.stat().st_size, pq.read_metadata(part).row_group(0)
    column = next(group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == "x")
    with open(part, "r+b") as file:
        file.seek(size - 40 if place == "footer" else column.dictionary_page_offset or column.data_page_offset)
        file.write(b"\xa5" * 30)
    targets = {"transform_graph": str(tmp_path / "graph"), "transformed": str(tmp_path / "made")}
    for what in ({"features": NUMERIC}, {"transform_module": module}):
        with pytest.raises(TidemillError, match=r"part-00000\.parquet: got other bytes than") as caught:
            preprocess(spec(engine=engine, **what), examples, schema, progress=Progress("preprocess"), **targets)
        assert caught.value.code is Code.INCOMPLETE_ARTIFACT
    assert part.stat().st_size == size
    assert not list(tmp_path.glob("graph*")) and not list(tmp_path.glob("made*"))


@pytest.mark.parametrize("text", [b"{}", b"[]", b"\xff", b"", b'{"fingerprint": "", "files": [], "metadata": {}}'])
def test_a_manifest_that_is_none_of_a_dataset(tmp_path: Path, text: bytes):
    examples = write_examples(tmp_path / "examples", {"train": rows()})
    (tmp_path / "examples" / "manifest.json").write_bytes(text)
    with pytest.raises(TidemillError, match="run the step that wrote it again") as caught:
        Dataset(examples)
    assert caught.value.code is Code.INCOMPLETE_ARTIFACT


@pytest.mark.parametrize("name", ["transform_graph", "transformed"])
@pytest.mark.parametrize("kind", ["file", "link", "link to nothing"])
def test_a_file_or_a_link_where_a_folder_is_to_be_written(tmp_path: Path, name: str, kind: str):
    target, mine = tmp_path / "run" / name, tmp_path / "mine"
    target.parent.mkdir()
    if kind == "link":
        mine.mkdir()
    target.write_text("mine") if kind == "file" else target.symlink_to(mine)
    with pytest.raises(FileExistsError, match=name):
        run(tmp_path / "run", {"train": rows()}, features=NUMERIC)
    assert target.read_text() == "mine" if kind == "file" else target.is_symlink()
    assert sorted(p.name for p in target.parent.iterdir()) == ["examples", "schema", name]


def test_a_failure_leaves_the_old_artifacts(tmp_path: Path):
    run(tmp_path, {"train": rows()}, features=NUMERIC)
    before = (tmp_path / "transform_graph" / "manifest.json").read_bytes()
    with pytest.raises(TidemillError):
        run(tmp_path, {"train": rows(y=pa.array([0, 2, 1], pa.int8()))}, features=NUMERIC)
    assert (tmp_path / "transform_graph" / "manifest.json").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["examples", "schema", "transform_graph", "transformed"]


def test_labels_are_passed_through_and_are_no_features(tmp_path: Path):
    table = rows(z=pa.array([True, False, True]))
    found = run(tmp_path, {"train": table, "test": table.slice(1, 1)}, features=NUMERIC, labels=["y", "z"])
    assert list(found.transformed.columns) == ["x", "y", "z"]
    assert [c.name for c in found.graph.raw_columns] == ["x"] and [f["name"] for f in found.graph.features] == ["x"]
    made = found.transformed.read("train")
    assert made["y"].to_pylist() == table["y"].to_pylist()
    assert made["z"].to_pylist() == [1.0, 0.0, 1.0] and made.schema.field("z").type == pa.float32()
    assert found.transformed.metadata["labels"] == ["y", "z"]


TWO_LABELS = {
    "null": (pa.array([0, None, 1], pa.int8()), Code.LABEL_NULL),
    "value": (pa.array([0, 2, 1], pa.int8()), Code.LABEL_TYPE),
    "text": (pa.array(["0", "1", "1"]), Code.LABEL_TYPE),
    "none": (None, Code.MISSING_COLUMN),
}


@pytest.mark.parametrize("case", TWO_LABELS)
def test_the_second_label_is_checked_too(tmp_path: Path, case: str):
    values, code = TWO_LABELS[case]
    with pytest.raises(TidemillError, match="z") as caught:
        run(tmp_path, {"train": rows(z=values) if values is not None else rows()}, features=NUMERIC, labels=["y", "z"])
    assert caught.value.code is code
