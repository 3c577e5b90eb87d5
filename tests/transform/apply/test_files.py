"""Parquet to Parquet: order, threads, memory, and what goes wrong."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidemill.artifacts.examples import ROW_GROUP_ROWS
from tidemill.transform.apply import value_index  # noqa: F401 - Polars, which changes what a signal does
from tidemill.transform.apply.transform_files import transform_files

SCHEMA = pa.schema([("x", pa.int32()), ("y", pa.float32())])
SIZES = {"a": [10, 20, 30], "empty": [], "large": [ROW_GROUP_ROWS + 5, 7], "b": [ROW_GROUP_ROWS, ROW_GROUP_ROWS, 1]}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, start, paths = tmp_path_factory.mktemp("sources"), 0, []
    schema = pa.schema([("n", pa.int64()), ("s", pa.string()), ("unused", pa.int8())])
    for name, sizes in SIZES.items():
        paths.append(folder / f"{name}.parquet")
        with pq.ParquetWriter(paths[-1], schema) as writer:
            for size in sizes:
                n = np.arange(start, start + size)
                start += size
                rows = pa.table([n, np.char.mod("%d", n % 9), np.zeros(size, np.int8)], schema=schema)
                writer.write_table(rows, row_group_size=size)
    return paths


def transform(batch: pa.RecordBatch) -> pa.RecordBatch:
    assert batch.schema.names == ["n", "s"]
    text = (
        batch.column("s").dictionary_decode() if pa.types.is_dictionary(batch.column("s").type) else batch.column("s")
    )
    return pa.record_batch([batch.column("n").cast(pa.int32()), text.cast(pa.float32())], schema=SCHEMA)


def run(sources: list[Path], folder: Path, threads: int, function=transform) -> tuple[list[Path], list[int]]:
    folder.mkdir(exist_ok=True)
    targets, written = [folder / path.name for path in sources], []
    pairs = list(zip(sources, targets, strict=True))
    transform_files(pairs, ["n", "s"], ["s"], SCHEMA, function, threads, written.append)
    return targets, written


def test_rows_keep_their_order_and_threads_change_no_byte(sources: list[Path], tmp_path: Path):
    expected = None
    for threads in (1, 2, 5):
        targets, written = run(sources, tmp_path / str(threads), threads)
        tables = [pq.read_table(path) for path in targets]
        assert [table.num_rows for table in tables] == [sum(sizes) for sizes in SIZES.values()]
        assert sum(written) == sum(map(sum, SIZES.values()))
        whole = pa.concat_tables(tables)
        assert whole["x"].to_numpy().tolist() == list(range(whole.num_rows))
        assert np.array_equal(whole["y"].to_numpy(), np.arange(whole.num_rows) % 9)
        content = [path.read_bytes() for path in targets]
        assert content == (expected or content)
        expected = content


def test_row_groups_are_no_larger_than_a_datasets_and_small_ones_are_joined(sources: list[Path], tmp_path: Path):
    targets, _ = run(sources, tmp_path / "out", 2)
    metadata = [pq.read_metadata(path) for path in targets]
    assert [[m.row_group(i).num_rows for i in range(m.num_row_groups)] for m in metadata] == [
        [60],
        [],
        [ROW_GROUP_ROWS, 5, 7],
        [ROW_GROUP_ROWS, ROW_GROUP_ROWS, 1],
    ]


def test_no_more_units_than_slots_are_held(tmp_path: Path):
    """While the first unit of a file is in work, others wait for it to be written, but not without bound."""
    source = tmp_path / "source.parquet"
    rows = pa.table({"n": np.arange(20 * ROW_GROUP_ROWS), "s": pa.array(["1"] * (20 * ROW_GROUP_ROWS))})
    pq.write_table(rows, source, row_group_size=ROW_GROUP_ROWS)
    seen, go, lock = [], threading.Event(), threading.Lock()

    def slow(batch: pa.RecordBatch) -> pa.RecordBatch:
        first = batch.column("n")[0].as_py() // ROW_GROUP_ROWS
        with lock:
            seen.append(first)
        if first == 0:
            assert go.wait(60)
        elif first == 4:
            # All that may be in work is: the first, and the four after it.
            threading.Timer(0.5, go.set).start()
        if not go.is_set():
            assert first < 5
        return transform(batch)

    run([source], tmp_path / "out", 3, slow)
    assert sorted(seen) == list(range(20))


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_ends_the_run(sources: list[Path], tmp_path: Path, threads: int):
    def failing(batch: pa.RecordBatch) -> pa.RecordBatch:
        if batch.column("n")[0].as_py() > 60:
            raise ValueError("no")
        return transform(batch)

    with pytest.raises(ValueError, match="no"):
        run(sources, tmp_path / "out", threads, failing)


def test_a_target_that_cannot_be_written(sources: list[Path], tmp_path: Path):
    pairs = [(sources[0], tmp_path / "missing" / "a.parquet")]
    with pytest.raises(FileNotFoundError):
        transform_files(pairs, ["n", "s"], ["s"], SCHEMA, transform, 2, lambda rows: None)


@pytest.fixture
def many(tmp_path: Path) -> list[Path]:
    """Three files of twenty units each."""
    rows = pa.table({"n": np.arange(20 * ROW_GROUP_ROWS), "s": pa.array(["1"] * (20 * ROW_GROUP_ROWS))})
    paths = [tmp_path / f"{name}.parquet" for name in "abc"]
    for path in paths:
        pq.write_table(rows, path, row_group_size=ROW_GROUP_ROWS)
    return paths


def at_work() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("transform_")]


def interrupt_after(*seconds: float) -> None:
    thread = threading.main_thread().ident
    for after in seconds:
        threading.Timer(after, signal.pthread_kill, [thread, signal.SIGINT]).start()


def test_an_interrupt_ends_the_run(many: list[Path], tmp_path: Path):
    first, written = threading.Lock(), []

    def slow(batch: pa.RecordBatch) -> pa.RecordBatch:
        if first.acquire(blocking=False):
            interrupt_after(0.2)
        time.sleep(0.1)
        return transform(batch)

    pairs = [(path, tmp_path / f"out-{path.name}") for path in many]
    with pytest.raises(KeyboardInterrupt):
        transform_files(pairs, ["n", "s"], ["s"], SCHEMA, slow, 2, written.append)
    assert not at_work()
    assert sum(written) < 60 * ROW_GROUP_ROWS


def test_nothing_is_written_after_a_second_interrupt(many: list[Path], tmp_path: Path):
    """It ends the waiting for the threads, while they may be at any place."""
    go, folder = threading.Event(), tmp_path / "out"

    def slow(batch: pa.RecordBatch) -> pa.RecordBatch:
        first = batch.column("n")[0].as_py() // ROW_GROUP_ROWS
        if first == 3:
            interrupt_after(0.2, 1.2)
        assert first < 3 or go.wait(60)
        return transform(batch)

    with pytest.raises(KeyboardInterrupt):
        run(many, folder, 2, slow)
    assert at_work()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert list(before) == ["a.parquet"]
    go.set()
    deadline = time.monotonic() + 60
    while at_work():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
