"""Shards are written on threads: the bytes do not depend on how rows arrive, and errors reach the caller."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidemill.artifacts import examples
from tidemill.artifacts.examples import Dataset, DatasetWriter

ROWS = pa.table({"x": list(range(1000)), "c": [f"v{i % 7}" for i in range(1000)]})


def written(path, batch_rows: int) -> Dataset:
    with DatasetWriter(path, ROWS.schema, ("train", "test"), row_group_rows=64, shard_rows=128) as writer:
        for start in range(0, 1000, batch_rows):
            writer.write("train", ROWS.slice(start, batch_rows))
    return Dataset(path)


@pytest.mark.parametrize("limit", [1, 256 << 20])
def test_the_bytes_do_not_depend_on_the_batches(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(examples, "_BYTES_IN_FLIGHT", limit)
    small, large = written(tmp_path / "small", 7), written(tmp_path / "large", 1000)
    assert small.fingerprint == large.fingerprint
    assert [entry.rows for entry in small.splits["train"].files] == [128] * 7 + [104]
    assert small.read("train").equals(ROWS) and small.rows("test") == 0


@pytest.mark.parametrize("limit", [1, 256 << 20])
def test_an_error_of_a_thread_leaves_nothing(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(examples, "_BYTES_IN_FLIGHT", limit)
    write_table = pq.ParquetWriter.write_table

    def fail(self, table, *args, **kwargs):
        if table["x"][0].as_py() >= 500:
            raise OSError(28, "No space left on device")
        return write_table(self, table, *args, **kwargs)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", fail)
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path / "examples", 50)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_caller_leaves_nothing(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        DatasetWriter(tmp_path / "examples", ROWS.schema, row_group_rows=64, shard_rows=128) as writer,
    ):
        writer.write("train", ROWS)
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
