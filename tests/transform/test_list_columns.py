"""Columns of lists: a transform module receives them as sparse tensors, from Parquet to a served model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.transform.preprocess_runs import Run, run
from tidemill.artifacts import artifact
from tidemill.data.ingest import ingest
from tidemill.errors import Code, TidemillError
from tidemill.experiment import parse
from tidemill.planning import plan_training
from tidemill.runtime import Progress
from tidemill.steps.ingest import IngestSpec
from tidemill.steps.preprocess import PreprocessSpec
from tidemill.steps.train import TrainSpec
from tidemill.steps.validate import ValidateSpec
from tidemill.transform.preprocess import preprocess
from tidemill.transform.raw import RawColumn, raw_columns, to_dense, to_lists
from tidemill.validation.validate import validate

pytestmark = pytest.mark.tensorflow
MIN = -(2**63)
ROWS = 400
MODULE = """
import tensorflow as tf
import tensorflow_transform as tft


def total(x):
    return tf.reshape(tf.sparse.reduce_sum(x, axis=1), [-1])


def first(x, default):
    firsts = tf.sparse.retain(x, tf.equal(x.indices[:, 1], 0))
    shape = tf.stack([x.dense_shape[0], tf.constant(1, tf.int64)])
    return tf.squeeze(tf.sparse.to_dense(tf.SparseTensor(firsts.indices, firsts.values, shape), default), 1)


def preprocessing_fn(inputs):
    tags = tft.compute_and_apply_vocabulary(inputs["tags"], vocab_filename="tags", num_oov_buckets=1)
    return {
        "tags": total(tf.SparseTensor(tags.indices, tf.ones_like(tags.values, tf.float32), tags.dense_shape)),
        "first_tag": first(tags, -1) + 1,
        "scores": tft.scale_to_z_score(total(inputs["scores"])),
        "hours": tf.cast(total(inputs["hours"]), tf.float32),
        "x": first(inputs["x"], 0.0),
    }
"""


def rows(count: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    words = np.array(["a", "b", "é", "", "long word", None], object)

    def lists(make) -> list:
        return [None if rng.random() < 0.1 else make(int(rng.integers(0, 5))) for _ in range(count)]

    tags = lists(lambda n: words[rng.integers(0, len(words), n)].tolist())
    scores = lists(lambda n: [None if rng.random() < 0.1 else float(v) for v in rng.normal(size=n).round(3)])
    y = [int(sum(s is not None and s > 0 for s in part or []) > 1) for part in scores]
    y = np.where(rng.random(count) < 0.2, 1 - np.array(y), y)
    return pa.table(
        {
            "key": [f"{seed}-{i}" for i in range(count)],
            "y": pa.array(y),
            "tags": pa.array(tags, pa.list_(pa.string())),
            "scores": pa.array(scores, pa.large_list(pa.float64())),
            "hours": pa.array(
                [[int(v) for v in rng.integers(0, 24, 2)] for _ in range(count)], pa.list_(pa.int32(), 2)
            ),
            "x": pa.array(rng.normal(size=count)),
        }
    )


def present(values: list | None) -> list:
    return [value for value in values or [] if value is not None]


@pytest.mark.parametrize(
    ("array", "dtype", "dense", "lists"),
    [
        (pa.array([[1, None, MIN], None, [], [3, 4]]), "int64", [[1, MIN], [MIN] * 2, [MIN] * 2, [3, 4]],
         [[1], [], [], [3, 4]]),
        (pa.array([[0.5, np.inf, np.nan], [None]], pa.list_(pa.float64())), "float32", [[0.5], [np.nan]], [[0.5], []]),
        (pa.array([["a", "\x00", ""], None], pa.large_list(pa.string())), "string", [[b"a", b""], [b"\x00"] * 2],
         [[b"a", b""], []]),
        (pa.array([[1, 2], None, [None, 3]], pa.list_(pa.int8(), 2)), "int64", [[1, 2], [MIN] * 2, [3, MIN]],
         [[1, 2], [], [3]]),
        (pa.array([["a"], ["b", "a"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))), "string",
         [[b"a", b"\x00"], [b"b", b"a"]], [[b"a"], [b"b", b"a"]]),
        (pa.array([None, None], pa.list_(pa.bool_())), "int64", [[MIN], [MIN]], [[], []]),
    ],
)  # fmt: skip
def test_converts_lists_to_dense_and_lists(array: pa.Array, dtype: str, dense: list, lists: list):
    batch = pa.record_batch({"x": array})
    columns = raw_columns(batch.schema)
    assert columns == [RawColumn("x", dtype, is_list=True)]
    result = to_dense(batch, columns)["x"]
    np.testing.assert_array_equal(result, np.array(dense, result.dtype))
    assert to_lists(batch, columns)["x"].to_pylist() == lists
    assert to_lists(batch.slice(1), columns)["x"].to_pylist() == lists[1:]
    assert to_dense(batch.slice(0, 0), columns)["x"].shape == (0, 1)


def test_nested_lists_are_no_raw_columns_and_scalars_are_no_lists():
    nested = pa.schema([("deep", pa.list_(pa.list_(pa.int64()))), ("rows", pa.list_(pa.struct([("a", pa.int8())])))])
    assert raw_columns(nested) == []
    with pytest.raises(TidemillError) as caught:
        to_lists(pa.record_batch({"x": pa.array([1, 2])}), [RawColumn("x", "int64", is_list=True)])
    assert caught.value.code is Code.FEATURE_TYPE


def test_rejects_a_list_column_as_a_declared_feature(tmp_path: Path):
    with pytest.raises(TidemillError, match=r"features\.hours.*transform_module") as caught:
        run(tmp_path, {"train": rows(20, 1)}, features={"hours": {"kind": "numeric"}})
    assert caught.value.code is Code.FEATURE_TYPE


BEAM = pytest.param("beam", marks=[pytest.mark.full, pytest.mark.beam])


@pytest.fixture(scope="module", params=["local", BEAM])
def lists(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    splits = {"train": rows(1500, 1), "valid": rows(300, 2), "test": rows(1, 3)}
    folder = tmp_path_factory.mktemp(request.param)
    return run(folder, splits, transform_module=MODULE, engine=request.param)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_module_receives_lists_as_sparse_tensors(lists: Run, split: str):
    assert lists.graph.raw_columns == [
        RawColumn("tags", "string", True), RawColumn("scores", "float32", True), RawColumn("hours", "int64", True),
        RawColumn("x", "float32"),
    ]  # fmt: skip
    tags = [present(part) for part in lists.raw(split, "tags")]
    np.testing.assert_array_equal(lists.transformed_column(split, "tags"), [len(part) for part in tags])
    np.testing.assert_array_equal(
        lists.transformed_column(split, "hours"), [sum(present(part)) for part in lists.raw(split, "hours")]
    )
    words = (lists.graph.path / "transform_fn" / "assets" / "tags").read_text(encoding="utf-8").splitlines()
    ids = {word: position for position, word in enumerate(words)}
    expected = [ids.get(part[0], len(words)) + 1 if part else 0 for part in tags]
    np.testing.assert_array_equal(lists.transformed_column(split, "first_tag"), expected)
    train, sums = ([sum(np.float32(v) for v in present(p)) for p in lists.raw(s, "scores")] for s in ("train", split))
    expected = (np.array(sums) - np.mean(train)) / np.std(train)
    np.testing.assert_allclose(lists.transformed_column(split, "scores"), expected, rtol=1e-4, atol=1e-5)


def test_one_row_is_transformed_like_many(lists: Run):
    function = lists.graph.dense_function().concrete()
    batch = lists.examples.read("valid").slice(0, 40).combine_chunks().to_batches()[0]
    for row in range(batch.num_rows):
        made = function(_tensors(batch.slice(row, 1), lists))
        for feature in lists.graph.features:
            value = lists.transformed_column("valid", feature["name"])[row]
            assert made[feature["name"]].numpy()[0] == pytest.approx(value, abs=1e-6)


def _tensors(batch: pa.RecordBatch, lists: Run) -> dict:
    import tensorflow as tf

    dense = to_dense(batch, lists.graph.raw_columns)
    return {column.name: tf.constant(dense[column.name], column.dtype) for column in lists.graph.raw_columns}


@pytest.mark.parametrize("engine", ["local", BEAM])
def test_lists_from_parquet_to_a_served_model(tmp_path: Path, engine: str):
    """Training replays rows through both signatures of the model that it exports. One column has a shape."""
    from tidemill.serving.scorer import Scorer
    from tidemill.training.train import train

    pq.write_table(rows(ROWS, 5), tmp_path / "rows.parquet")
    (tmp_path / "schema.pbtxt").write_text(GIVEN_SCHEMA)
    experiment = {
        "name": "lists",
        "source": {"tables": {"t": str(tmp_path / "rows.parquet")}},
        "label": "y",
        "key": ["key"],
        "transform_module": MODULE.replace('total(inputs["hours"])', 'tf.reduce_sum(inputs["hours"], axis=1)'),
        "validation": {"schema": str(tmp_path / "schema.pbtxt")},
        "models": [{"family": "gbdt", "rounds": 5, "min_data_in_leaf": 5}],
        "compute": {"preprocess": {"engine": engine}},
    }
    plan = plan_training(parse(yaml.safe_dump(experiment)), str(tmp_path / "root"))
    names = ("examples", "quarantine", "statistics", "schema", "anomalies", "report", "transform_graph", "transformed")
    at = {name: str(tmp_path / name) for name in names}
    ingest(IngestSpec.read(plan["ingest"]), str(tmp_path / "root"), examples=at["examples"],
           quarantine=at["quarantine"], progress=Progress("ingest"))  # fmt: skip
    validate(ValidateSpec.read(plan["validate"]), at["examples"], progress=Progress("validate"),
             **{name: at[name] for name in ("statistics", "schema", "anomalies", "report")})  # fmt: skip
    preprocess(PreprocessSpec.read(plan["preprocess"]), at["examples"], at["schema"],
               transform_graph=at["transform_graph"], transformed=at["transformed"],
               progress=Progress("preprocess"))  # fmt: skip
    member = TrainSpec.read(json.loads(plan["members"])[0]["train"])
    train(member, at["examples"], at["transformed"], at["transform_graph"], root=str(tmp_path / "root"),
          model=str(tmp_path / "model"), progress=Progress("train"))  # fmt: skip
    listed = json.loads((tmp_path / "model" / "Format-Serving" / "assets.extra" / "raw_columns.json").read_text())
    assert {"name": "tags", "dtype": "string", "is_list": True} in listed
    assert {"name": "x", "dtype": "float32"} in listed
    table = rows(3, 6)
    shutil.copytree(tmp_path / "model" / "Format-Serving", tmp_path / "published")
    artifact.seal(tmp_path / "published")
    with Scorer(str(tmp_path / "published")) as scorer:
        assert scorer.score_table(table).shape == (3, 1)
        short = table.set_column(4, "hours", pa.array([[1, 2], [3], [4, 5, 6]], pa.list_(pa.int32())))
        with pytest.raises(TidemillError, match="column with a shape") as raised:
            scorer.score_table(short)
        assert raised.value.code is Code.TRANSFORM_FAILED


GIVEN_SCHEMA = """
feature { name: "key" type: BYTES } feature { name: "y" type: INT bool_domain {} } feature { name: "x" type: FLOAT }
feature { name: "tags" type: BYTES value_count { min: 0 max: 4 } } feature { name: "scores" type: FLOAT }
feature { name: "hours" type: INT shape { dim { size: 2 } } int_domain { min: 0 max: 23 } }
"""
DENSE_MODULE = """
import tensorflow as tf
import tensorflow_transform as tft


def preprocessing_fn(inputs):
    assert inputs["x"].shape.as_list() == [None] and inputs["hours"].shape.as_list() == [None, 2]
    assert inputs["grid"].shape.as_list() == [None, 2, 2]
    return {
        "x": inputs["x"] - tft.mean(inputs["x"]),
        "last": tf.cast(inputs["hours"][:, 1], tf.float32),
        "corner": inputs["grid"][:, 1, 0],
        "word": tft.compute_and_apply_vocabulary(inputs["word"], vocab_filename="word"),
    }
"""
DENSE_SCHEMA = """
feature { name: "x" type: FLOAT shape {} }
feature { name: "hours" type: INT shape { dim { size: 2 } } }
feature { name: "grid" type: FLOAT shape { dim { size: 2 } dim { size: 2 } } }
feature { name: "word" type: BYTES shape {} }
"""


def test_a_shape_in_a_given_schema_makes_dense_tensors(tmp_path: Path):
    """The transform module of TFX reads such columns as FixedLenFeature."""
    table = rows(200, 7).select(["key", "y", "hours", "x"])
    grid = np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32)
    table = table.append_column("grid", pa.array(grid.tolist(), pa.list_(pa.float32())))
    table = table.append_column("word", pa.array(["a", "b", "b", "c"] * 50))
    given = run(tmp_path, {"train": table}, schema_text=DENSE_SCHEMA, transform_module=DENSE_MODULE, schema_given=True)
    x = table["x"].to_numpy().astype(np.float32)
    np.testing.assert_allclose(given.transformed_column("train", "x"), x - x.mean(), rtol=1e-4, atol=1e-5)
    assert given.transformed_column("train", "last").tolist() == [hours[1] for hours in table["hours"].to_pylist()]
    np.testing.assert_array_equal(given.transformed_column("train", "corner"), grid[:, 2])
    assert given.transformed_column("train", "word").tolist() == [3, 1, 1, 2] * 50
    # A row with fewer values fails, in serving too, instead of moving values between rows.
    short = table.slice(0, 2).set_column(2, "hours", pa.array([[1], [2, 3, 4]], pa.list_(pa.int32())))
    tensors = _tensors(short.combine_chunks().to_batches()[0], given)
    with pytest.raises(Exception, match=r"out of bounds|valid"):
        given.graph.dense_function().concrete()(tensors)
