"""The order and content of batches, and the threads that read them."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.artifacts.examples import Dataset, DatasetWriter
from tidemill.models.core.inputs import Layout, batches_in_order, read_labels
from tidemill.training.input import shuffled

FEATURES = [{"name": "n", "kind": "number"}, {"name": "i", "kind": "id", "num_ids": 5}, {"name": "m", "kind": "number"}]
LAYOUT = Layout.of(FEATURES, ["y"])


def write(path: Path, rows: int, row_group_rows: int, shard_rows: int) -> Dataset:
    """Writes rows whose number `m` is their index."""
    index = np.arange(rows)
    columns = {"n": -index, "i": index % 5, "m": index, "y": index % 2}
    types = {"n": pa.float32(), "i": pa.int32(), "m": pa.float32(), "y": pa.float32()}
    table = pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})
    with DatasetWriter(path, table.schema, ("train",), None, row_group_rows, shard_rows) as writer:
        writer.write("train", table)
    return Dataset(path)


def indices(batches) -> list[list[int]]:
    """Returns the indices of the rows. Reads them after the last batch, so that overwritten batches would show."""
    return [rows.numbers[:, 1].astype(int).tolist() for rows in list(batches)]


def flat(batches: list[list[int]]) -> list[int]:
    return [index for batch in batches for index in batch]


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 300),
    row_group_rows=st.integers(1, 60),
    shard_rows=st.integers(1, 150),
    batch_size=st.integers(1, 80),
    buffer_rows=st.integers(1, 200),
    seed=st.integers(0, 2**31 - 1),
    epoch=st.integers(0, 5),
)
def test_yields_each_row_once_and_starts_at_any_batch(rows, row_group_rows, shard_rows, **order):
    with tempfile.TemporaryDirectory() as folder:
        data = write(Path(folder) / "data", rows, row_group_rows, shard_rows)
        batches = indices(shuffled(data, "train", LAYOUT, **order))
        assert sorted(flat(batches)) == list(range(rows))
        assert all(len(batch) == order["batch_size"] for batch in batches[:-1])
        for first in {0, len(batches) // 2, max(0, len(batches) - 1), len(batches)}:
            assert indices(shuffled(data, "train", LAYOUT, first_batch=first, **order)) == batches[first:]


def test_samples_rows_with_label_0(tmp_path):
    data = write(tmp_path / "rows", 4000, 500, 1000)
    options = {"batch_size": 64, "seed": 3, "negative_rate": 0.25, "buffer_rows": 900}

    def batches(epoch: int, first_batch: int = 0) -> list[list[int]]:
        return indices(shuffled(data, "train", LAYOUT, epoch=epoch, first_batch=first_batch, **options))

    first, second = batches(0), batches(1)
    assert {len(batch) for batch in first[:-1]} == {64}
    seen = flat(first)
    assert len(set(seen)) == len(seen)
    assert sorted(p for p in seen if p % 2) == list(range(1, 4000, 2))
    # 500 of 2,000 rows are expected, with a standard deviation of 19.
    assert abs(len(seen) - 2500) < 100
    assert set(flat(second)) != set(seen)
    for start in (1, 7, len(first) - 1, len(first)):
        assert batches(0, start) == first[start:]


def test_the_order_depends_on_seed_and_epoch(tmp_path):
    data = write(tmp_path / "data", 400, 50, 200)

    def order(seed: int, epoch: int) -> list[list[int]]:
        return indices(shuffled(data, "train", LAYOUT, batch_size=64, seed=seed, epoch=epoch, buffer_rows=100))

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)
    assert flat(order(1, 0)) != list(range(400))


@pytest.mark.parametrize("batch_size", [7, 30, 200])
def test_batches_are_not_overwritten_and_columns_match(tmp_path, batch_size):
    data = write(tmp_path / "data", 600, 20, 200)
    batches = []
    for rows in shuffled(data, "train", LAYOUT, batch_size=batch_size, seed=0, epoch=0, buffer_rows=40):
        batches.append(rows)
        time.sleep(0.01)  # Meanwhile, other buffers are decoded to memory that is reused.
    assert sorted(flat(indices(batches))) == list(range(600))
    for rows in batches:
        index = rows.numbers[:, 1]
        assert rows.ids.dtype == np.int32 and rows.numbers.dtype == np.float32 and rows.labels.dtype == np.float32
        np.testing.assert_array_equal(rows.ids[:, 0], index % 5)
        np.testing.assert_array_equal(rows.numbers[:, 0], -index)
        np.testing.assert_array_equal(rows.labels, (index % 2)[:, None])


def test_in_order_keeps_the_order(tmp_path):
    data = write(tmp_path / "data", 100, 30, 50)
    assert flat(indices(batches_in_order(data, "train", LAYOUT, 17))) == list(range(100))


def test_rejects_a_file_that_is_not_parquet(tmp_path):
    data = write(tmp_path / "data", 100, 30, 50)
    (tmp_path / "data" / "train" / "part-00001.parquet").write_bytes(b"PAR1 not parquet")
    with pytest.raises(pa.ArrowInvalid):
        list(shuffled(data, "train", LAYOUT, batch_size=10, seed=0, epoch=0))


def test_an_error_in_a_thread_is_raised_and_ends_the_threads(tmp_path):
    data = write(tmp_path / "data", 400, 20, 100)
    path = tmp_path / "data" / "train" / "part-00002.parquet"
    column = pq.read_metadata(path).row_group(3).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    whole = bytearray(path.read_bytes())
    whole[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(whole)
    threads = threading.active_count()
    with pytest.raises(OSError):
        list(shuffled(data, "train", LAYOUT, batch_size=10, seed=0, epoch=0, buffer_rows=40))
    assert threading.active_count() == threads


def test_closing_the_batches_ends_the_threads(tmp_path):
    data = write(tmp_path / "data", 400, 20, 100)
    threads = threading.active_count()
    batches = shuffled(data, "train", LAYOUT, batch_size=10, seed=0, epoch=0, buffer_rows=40)
    next(batches)
    assert threading.active_count() > threads
    batches.close()
    assert threading.active_count() == threads


def test_reads_several_labels(tmp_path):
    index = np.arange(600)
    labels = {"y": index % 3 == 0, "z": index % 5 == 0}
    numbers = {
        name: pa.array(values.astype(np.float32)) for name, values in {"n": -index, "m": index, **labels}.items()
    }
    table = pa.table(numbers | {"i": pa.array(index % 5, pa.int32())})
    with DatasetWriter(tmp_path / "data", table.schema, ("train",), None, 100, 300) as writer:
        writer.write("train", table)
    data, layout = Dataset(tmp_path / "data"), Layout.of(FEATURES, ["z", "y"])
    assert read_labels(data, "train", ["z", "y"]).tolist() == np.stack([labels["z"], labels["y"]], axis=1).tolist()
    seen = []
    for rows in shuffled(data, "train", layout, batch_size=64, seed=0, epoch=0, negative_rate=0.2):
        row_indices = rows.numbers[:, 1].astype(int)
        np.testing.assert_array_equal(
            rows.labels, np.stack([labels["z"][row_indices], labels["y"][row_indices]], axis=1)
        )
        seen += row_indices.tolist()
    # Rows with a label 1 are never left out.
    assert set(np.flatnonzero(labels["y"] | labels["z"])) <= set(seen) and len(seen) < 450
