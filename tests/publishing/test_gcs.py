"""The model store and predictions in a bucket, on a server of the Google Cloud Storage API."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from tests.publishing.test_predict import check_simultaneous_predictions, examples, expected, rows, run, spec
from tests.publishing.tiny import member, publish_spec
from tidemill import storage
from tidemill.artifacts import model_store
from tidemill.errors import Code, TidemillError
from tidemill.publishing.publish import publish

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def root(bucket) -> str:
    return f"{bucket}/root"


def test_publishes_and_predicts_in_a_bucket(tmp_path, serving, root):
    model, evaluation = member(tmp_path, serving, "a", 0.7)
    assert model_store.newest(root, "rain") is None
    first = publish(publish_spec("r1"), [model], [evaluation], root=root, publisher="first")
    assert first.uri == "gs://warehouse/root/models/rain/1"
    assert publish(publish_spec("r1"), [model], [evaluation], root=root, publisher="first") == first
    assert publish(publish_spec("r2"), [model], [evaluation], root=root).version == 2
    assert model_store.newest(root, "rain", exclude_run="r2") == first.uri
    assert model_store.versions(root, "rain") == [1, 2]

    table, output = rows(100), "gs://warehouse/predictions"
    data = examples(tmp_path / "e", predict=table)
    summary = run(spec(first.uri, output, shards=3), data)
    assert (summary.rows, summary.uri) == (100, output)
    again = run(spec(first.uri, output, shards=3), data)
    assert again == summary
    assert run(spec(first.uri, output, shards=1), data).shards == 1
    storage.download_folder(output, tmp_path / "here")
    success, shard = sorted((tmp_path / "here").iterdir())
    assert success.name == "_SUCCESS" and shard.name.startswith("part-00000-of-00001-")
    out = pq.read_table(shard)
    assert out["id"].equals(table["id"]) and out["score"].to_numpy() == pytest.approx(expected(table), abs=1e-6)


def test_a_version_without_its_manifest_does_not_exist(tmp_path, serving, root):
    model, evaluation = member(tmp_path, serving, "a", 0.7)
    publish(publish_spec("r1"), [model], [evaluation], root=root)
    storage.write_text(f"{root}/models/rain/2/saved_model.pb", "half")
    assert model_store.resolve(root, "rain").endswith("/1")
    assert publish(publish_spec("r2"), [model], [evaluation], root=root).version == 3


def test_never_removes_other_objects(tmp_path, serving, root):
    model, evaluation = member(tmp_path, serving, "a", 0.7)
    uri = publish(publish_spec(), [model], [evaluation], root=root).uri
    storage.write_text("gs://warehouse/mine/notes.txt", "keep")
    with pytest.raises(TidemillError) as error:
        run(spec(uri, "gs://warehouse/mine"), examples(tmp_path / "e", predict=rows(3)))
    assert error.value.code is Code.INVALID_VALUE
    assert storage.read_text("gs://warehouse/mine/notes.txt") == "keep"


def test_predictions_that_are_written_at_the_same_moment_are_those_of_one_run(tmp_path, serving, root):
    model, evaluation = member(tmp_path, serving, "a", 0.7)
    check_simultaneous_predictions(
        publish(publish_spec(), [model], [evaluation], root=root).uri, f"{root}/out", tmp_path
    )
