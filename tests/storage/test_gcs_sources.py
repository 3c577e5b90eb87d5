"""Ingest from a bucket, with the source record in it too."""

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
def test_bucket_and_folder_give_the_same_examples(runner, bucket, kind):
    text = rows(90).encode()
    content = {"csv": text, "csv.gz": gzip.compress(text, mtime=0), "parquet": parquet(90)}[kind]
    put(f"{bucket}/in/day=1/a.{kind}", content)
    local = runner.write(f"day=1/a.{kind}", content)
    remote = runner.spec({"t": f"{bucket}/in/**/*.{kind}"}, key=["id"])
    assert remote.source_fingerprint == runner.spec({"t": local}, key=["id"]).source_fingerprint
    there = runner.ingest(remote)
    here = runner.run({"t": local}, key=["id"])
    assert there.summary.fingerprint == here.summary.fingerprint
    assert there.dataset.columns["day"] == "int64"


def test_changed_object(runner, bucket):
    put(f"{bucket}/a.csv", rows(90).encode())
    spec = runner.spec({"t": f"{bucket}/a.csv"})
    put(f"{bucket}/a.csv", rows(90).replace("3,1.5,1", "3,1.5,0").encode())
    with pytest.raises(TidemillError) as error:
        runner.ingest(spec)
    assert error.value.code is Code.SOURCE_CHANGED


def test_missing_object(runner, bucket):
    with pytest.raises(TidemillError) as error:
        runner.spec({"t": f"{bucket}/nothing/*.csv"})
    assert error.value.code is Code.MISSING_FILE


def test_record_in_the_bucket(runner, bucket):
    put(f"{bucket}/a.csv", rows(90).encode())
    spec = runner.spec({"t": f"{bucket}/a.csv"})
    assert source_record.load_record(runner.root, spec.source_fingerprint).files[0].version.startswith("md5:")
