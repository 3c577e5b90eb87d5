"""The `predict` step: batch prediction with a published SavedModel."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.publishing.tiny import member, publish_spec, save_tiny_model, tiny_score
from tidemill import fingerprint, storage
from tidemill.artifacts import predictions as layout
from tidemill.artifacts.examples import Dataset, DatasetWriter
from tidemill.errors import Code, TidemillError
from tidemill.publishing.predict import predict
from tidemill.publishing.publish import publish
from tidemill.runtime import Progress
from tidemill.serving.scorer import Scorer
from tidemill.steps.predict import PredictSpec

pytestmark = pytest.mark.tensorflow
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("city", pa.large_string()),
        ("x", pa.float64()),
        ("day", pa.timestamp("us")),
        ("word", pa.string()),
    ]
)


def rows(count: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    x = [None if r < 0.1 else float(v) for r, v in zip(rng.random(count), rng.normal(size=count), strict=True)]
    city = [["Lyon", "Oslo", None][i] for i in rng.integers(0, 3, count)]
    ids = list(range(seed * 10_000, seed * 10_000 + count))
    return pa.table([ids, city, x, [i * 10**6 for i in range(count)], [f"w{i}" for i in ids]], schema=SCHEMA)


def examples(folder: Path, **splits: pa.Table) -> str:
    with DatasetWriter(folder, SCHEMA, tuple(splits), row_group_rows=64, shard_rows=256) as writer:
        for split, table in splits.items():
            writer.write(split, table)
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory, serving) -> str:
    folder = tmp_path_factory.mktemp("published")
    path, evaluation = member(folder, serving, "tiny", 0.7)
    return publish(publish_spec(), [path], [evaluation], root=str(folder / "root")).uri


def spec(model: str, output: object, **changes: object) -> PredictSpec:
    values = {"columns": ["word"], "shards": 1, "batch_size": 100, "key": ["id", "day"], **changes}
    return PredictSpec(code="test", experiment="rain", model=model, output=str(output), **values)


def run(spec: PredictSpec, data: str):
    return predict(spec, data, progress=Progress("predict"))


def read(folder: object) -> pa.Table:
    return pa.concat_tables(pq.read_table(p) for p in sorted(Path(str(folder)).glob("*.parquet")))


def expected(table: pa.Table) -> np.ndarray:
    return tiny_score(table["x"].to_numpy(), table["city"].to_pylist())


@pytest.mark.parametrize(("count", "shards"), [(1000, 1), (1000, 7), (5, 8), (1, 1), (0, 2)])
def test_rows_keep_their_order_in_shards_of_equal_size(tmp_path, model, count, shards):
    table = rows(count)
    summary = run(spec(model, tmp_path / "out", shards=shards), examples(tmp_path / "e", predict=table))
    paths = sorted((tmp_path / "out").glob("*.parquet"))
    sizes = [pq.read_metadata(p).num_rows for p in paths]
    assert (summary.rows, summary.shards, summary.uri) == (count, shards, str(tmp_path / "out"))
    assert len(sizes) == shards and sum(sizes) == count and max(sizes) - min(sizes) <= 1
    out = read(tmp_path / "out")
    assert out.schema.names == ["id", "day", "word", "score"]
    assert out.schema.field("day").type == pa.timestamp("us") and out.schema.field("score").type == pa.float32()
    assert out.select(["id", "day", "word"]).equals(table.select(["id", "day", "word"]))
    assert out["score"].to_numpy() == pytest.approx(expected(table), abs=1e-6)


def test_scores_are_those_of_the_saved_model(tmp_path, model):
    import tensorflow as tf

    table = rows(500)
    data = examples(tmp_path / "e", predict=table)
    run(spec(model, tmp_path / "out", shards=3, batch_size=37), data)
    loaded = tf.saved_model.load(model)
    direct = loaded.signatures["serving_default"](
        x=tf.constant([np.nan if v is None else v for v in table["x"].to_pylist()], tf.float32),
        city=tf.constant([b"\x00" if v is None else v.encode() for v in table["city"].to_pylist()]),
        id=tf.constant(table["id"].to_pylist(), tf.int64),
    )["score"].numpy()
    assert read(tmp_path / "out")["score"].to_numpy() == pytest.approx(direct, abs=1e-6)


def test_success_lists_the_files_and_their_origin(tmp_path, model):
    data = examples(tmp_path / "e", predict=rows(300))
    run(spec(model, tmp_path / "out", shards=2), data)
    manifest = json.loads((tmp_path / "out" / "_SUCCESS").read_text())
    assert manifest["rows"] == 300 and manifest["uri"] == str(tmp_path / "out")
    assert manifest["model"]["uri"] == model and manifest["examples"] == Dataset(data).fingerprint
    for file in manifest["files"]:
        path = tmp_path / "out" / file["name"]
        assert (file["bytes"], file["fingerprint"]) == (path.stat().st_size, fingerprint.of_file(path))
        assert file["rows"] == pq.read_metadata(path).num_rows == 150
    assert [p.name for p in tmp_path.iterdir() if p.name not in ("e", "out")] == []


def test_without_a_predict_split_all_splits_are_scored_in_order(tmp_path, model):
    tables = {"train": rows(50, 1), "valid": rows(0, 2), "test": rows(30, 3)}
    run(spec(model, tmp_path / "out"), examples(tmp_path / "e", **tables))
    assert read(tmp_path / "out")["id"].to_pylist() == [*range(10_000, 10_050), *range(30_000, 30_030)]


def test_equal_predictions_are_kept_and_others_are_replaced(tmp_path, model):
    data, out = examples(tmp_path / "e", predict=rows(100)), tmp_path / "out"
    first = run(spec(model, out), data)
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    assert run(spec(model, out), data) == first
    assert {p.name: p.stat().st_mtime_ns for p in out.iterdir()} == before
    other = run(spec(model, out, shards=2), examples(tmp_path / "f", predict=rows(60, 4)))
    assert other.rows == 60 and other.fingerprint != first.fingerprint
    assert [p.name[:20] for p in sorted(out.iterdir())] == ["_SUCCESS", "part-00000-of-00002-", "part-00001-of-00002-"]
    again = run(spec(model, out), data)
    assert again == first


def check_simultaneous_predictions(model: str, out: str, folder: Path) -> None:
    """Four runs write to a folder at once, twice the same predictions and twice others."""
    jobs = [
        (spec(model, out, shards=1 + i % 2), examples(folder / f"e{i}", predict=rows(100 + i % 2))) for i in range(4)
    ]
    with ThreadPoolExecutor(4) as pool:
        summaries = list(pool.map(lambda job: run(*job), jobs))
    assert summaries[0] == summaries[2] and summaries[1] == summaries[3]
    manifest = layout.read(out)
    assert manifest is not None and manifest["fingerprint"] in {each.fingerprint for each in summaries}
    assert len(storage.list_files(f"{out}/*")) == 1 + len(manifest["files"])


def test_predictions_that_are_written_at_the_same_moment_are_those_of_one_run(tmp_path, model):
    check_simultaneous_predictions(model, str(tmp_path / "out"), tmp_path)
    assert not [*tmp_path.glob(".out*")]


def test_damaged_predictions_are_replaced(tmp_path, model):
    data, out = examples(tmp_path / "e", predict=rows(100)), tmp_path / "out"
    first = run(spec(model, out), data)
    shard = next(out.glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert run(spec(model, out), data) == first
    assert read(out).num_rows == 100


def test_a_summary_names_the_rows_and_the_folder(tmp_path, model):
    data = examples(tmp_path / "e", predict=rows(10))
    predict(spec(model, tmp_path / "out"), data, progress=Progress("predict"), summary=str(tmp_path / "summary.md"))
    assert (tmp_path / "summary.md").read_text().startswith(f"10 rows in 1 files at `{tmp_path / 'out'}`")


def test_without_a_key_predictions_have_all_columns(tmp_path, model):
    table = rows(20)
    run(spec(model, tmp_path / "out", key=[], columns=[]), examples(tmp_path / "e", predict=table))
    assert read(tmp_path / "out").drop_columns(["score"]).equals(table)


def test_malformed_rows_that_were_left_out_are_in_success_and_in_the_summary(tmp_path, model):
    """A second run whose rows are equal, but from a file with other malformed rows, tells its own number."""
    for count in (2, 3):
        with DatasetWriter(tmp_path / "e", SCHEMA, ("predict",), {"malformed": {"clicks": count}}) as writer:
            writer.write("predict", rows(5))
        text = str(tmp_path / "summary.md")
        predict(spec(model, tmp_path / "out"), str(tmp_path / "e"), progress=Progress("predict"), summary=text)
        assert json.loads((tmp_path / "out" / "_SUCCESS").read_text())["malformed"] == {"clicks": count}
        assert f"; {count} malformed rows of clicks are left out" in Path(text).read_text()


def test_never_replaces_a_folder_with_other_files(tmp_path, model):
    out = tmp_path / "home"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(TidemillError) as error:
        run(spec(model, out), examples(tmp_path / "e", predict=rows(3)))
    assert error.value.code is Code.INVALID_VALUE and "thesis.tex" in str(error.value)
    assert (out / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("change", "table", "code", "part"),
    [
        ({}, rows(3).drop_columns(["x", "city"]), Code.MISSING_COLUMN, "no 'city', 'x' among"),
        ({"key": ["nope"]}, rows(3), Code.MISSING_COLUMN, "'nope'"),
        ({}, rows(3).set_column(2, "x", [["a", "b", "c"]]), Code.FEATURE_TYPE, "x"),
        (
            {"columns": ["score"]},
            rows(3).rename_columns(["id", "city", "x", "day", "score"]),
            Code.INVALID_VALUE,
            "'score'",
        ),
    ],
)
def test_bad_input_leaves_nothing(tmp_path, model, change, table, code, part):
    with DatasetWriter(tmp_path / "e", table.schema, ("predict",)) as writer:
        writer.write("predict", table)
    with pytest.raises(TidemillError) as error:
        run(spec(model, tmp_path / "out", **{"columns": [], **change}), str(tmp_path / "e"))
    assert error.value.code is code and part in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["e"]


def test_refuses_a_model_that_does_not_exist(tmp_path):
    with pytest.raises(TidemillError) as error:
        run(spec(str(tmp_path / "models" / "rain" / "1"), tmp_path / "out"), examples(tmp_path / "e", predict=rows(3)))
    assert error.value.code is Code.NO_MODEL


def test_scores_rows_whose_features_are_all_null(tmp_path, model):
    table = rows(4).set_column(2, "x", pa.nulls(4, pa.float64())).set_column(1, "city", pa.nulls(4, pa.large_string()))
    with DatasetWriter(tmp_path / "e", table.schema, ("predict",)) as writer:
        writer.write("predict", table)
    run(spec(model, tmp_path / "out", columns=[]), str(tmp_path / "e"))
    assert read(tmp_path / "out")["score"].to_numpy() == pytest.approx(1 / (1 + np.exp(1.0)), abs=1e-6)


def test_accepts_column_names_that_tensorflow_does_not(tmp_path, serving):
    columns = [
        {"name": "Ort, Stadt", "dtype": "string", "input": "column_0"},
        {"name": "größe", "dtype": "float32", "input": "column_1"},
        {"name": "id", "dtype": "int64"},
    ]
    save_tiny_model(
        tmp_path / "named",
        columns=[
            {**columns[0], "name": "city"},
            {**columns[1], "name": "x"},
            columns[2],
        ],
    )
    (tmp_path / "named" / "assets.extra" / "raw_columns.json").write_text(json.dumps(columns))
    path, evaluation = member(tmp_path, tmp_path / "named", "named", 0.7)
    uri = publish(publish_spec(), [path], [evaluation], root=str(tmp_path / "root")).uri
    table = rows(20)
    batch = pa.record_batch(
        [table["city"].combine_chunks(), table["x"].combine_chunks(), table["id"].combine_chunks()],
        [c["name"] for c in columns],
    )
    with Scorer(uri) as scorer:
        assert scorer.names == ["Ort, Stadt", "größe", "id"]
        assert scorer.score(batch)[:, 0] == pytest.approx(expected(table), abs=1e-6)
        assert scorer.score(batch.slice(0, 0)).shape == (0, 1)
