"""Ingest from a bucket, with the source record in the same bucket."""

import gzip
import io

import pyarrow.parquet as pq
import pytest

from tests.data.runs import Runner, rows, table
from tidemill.data import source_record
from tidemill.errors import Code, TidemillError
from tidemill.storage.files import google


@pytest.fixture
def runner(tmp_path, bucket):
    runner = Runner(tmp_path)
    runner.root = f"{bucket}/root"
    return runner


def put(uri, content):
    with google().open(uri, "wb") as file:
        file.write(content)


def parquet(count):
    sink = io.BytesIO()
    pq.write_table(table(count), sink)
    return sink.getvalue()


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_a_bucket_and_a_folder_have_the_same_examples(runner, bucket, kind):
    text = rows(90).encode()
    content = {"csv": text, "csv.gz": gzip.compress(text, mtime=0), "parquet": parquet(90)}[kind]
    put(f"{bucket}/in/day=1/a.{kind}", content)
    local = runner.write(f"day=1/a.{kind}", content)
    remote = runner.spec({"t": f"{bucket}/in/**/*.{kind}"}, key=["id"])
    assert remote.source_fingerprint == runner.spec({"t": local}, key=["id"]).source_fingerprint
    from_bucket = runner.ingest(remote)
    from_folder = runner.run({"t": local}, key=["id"])
    assert from_bucket.summary.fingerprint == from_folder.summary.fingerprint
    assert from_bucket.dataset.columns["day"] == "int64"


def test_rejects_an_object_that_changed_after_planning(runner, bucket):
    put(f"{bucket}/a.csv", rows(90).encode())
    spec = runner.spec({"t": f"{bucket}/a.csv"})
    put(f"{bucket}/a.csv", rows(90).replace("3,1.5,1", "3,1.5,0").encode())
    with pytest.raises(TidemillError) as error:
        runner.ingest(spec)
    assert error.value.code is Code.SOURCE_CHANGED


def test_rejects_a_glob_that_matches_no_object(runner, bucket):
    with pytest.raises(TidemillError) as error:
        runner.spec({"t": f"{bucket}/nothing/*.csv"})
    assert error.value.code is Code.MISSING_FILE


def test_loads_the_source_record_from_the_bucket(runner, bucket):
    put(f"{bucket}/a.csv", rows(90).encode())
    spec = runner.spec({"t": f"{bucket}/a.csv"})
    assert source_record.load_record(runner.root, spec.source_fingerprint).files[0].version.startswith("md5:")
