"""Transforms Parquet files to Parquet files: order, threads, memory, errors and interrupts."""

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
from tidemill.transform.apply import value_index  # noqa: F401 - imports Polars, which handles signals
from tidemill.transform.apply.transform_files import transform_files

SCHEMA = pa.schema([("x", pa.int32()), ("y", pa.float32())])
ROW_GROUPS = {
    "a": [10, 20, 30],
    "empty": [],
    "large": [ROW_GROUP_ROWS + 5, 7],
    "b": [ROW_GROUP_ROWS, ROW_GROUP_ROWS, 1],
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, start, paths = tmp_path_factory.mktemp("sources"), 0, []
    schema = pa.schema([("n", pa.int64()), ("s", pa.string()), ("unused", pa.int8())])
    for name, sizes in ROW_GROUPS.items():
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
    """Transforms files; returns the written files and the numbers of rows that were reported."""
    folder.mkdir(exist_ok=True)
    targets, written = [folder / path.name for path in sources], []
    pairs = list(zip(sources, targets, strict=True))
    transform_files(pairs, ["n", "s"], ["s"], SCHEMA, function, threads, written.append)
    return targets, written


def test_rows_keep_their_order_and_any_number_of_threads_gives_the_same_bytes(sources: list[Path], tmp_path: Path):
    expected = None
    for threads in (1, 2, 5):
        targets, written = run(sources, tmp_path / str(threads), threads)
        tables = [pq.read_table(path) for path in targets]
        assert [table.num_rows for table in tables] == [sum(sizes) for sizes in ROW_GROUPS.values()]
        assert sum(written) == sum(map(sum, ROW_GROUPS.values()))
        whole = pa.concat_tables(tables)
        assert whole["x"].to_numpy().tolist() == list(range(whole.num_rows))
        assert np.array_equal(whole["y"].to_numpy(), np.arange(whole.num_rows) % 9)
        content = [path.read_bytes() for path in targets]
        assert content == (expected or content)
        expected = content


def test_small_row_groups_are_joined_and_large_ones_are_split(sources: list[Path], tmp_path: Path):
    targets, _ = run(sources, tmp_path / "out", 2)
    metadata = [pq.read_metadata(path) for path in targets]
    assert [[m.row_group(i).num_rows for i in range(m.num_row_groups)] for m in metadata] == [
        [60],
        [],
        [ROW_GROUP_ROWS, 5, 7],
        [ROW_GROUP_ROWS, ROW_GROUP_ROWS, 1],
    ]


def test_look_ahead_is_bounded_when_the_first_unit_is_slow(tmp_path: Path):
    """Finished units wait until the first unit of the file is written."""
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
            # All units that may be in work are: the first, and the four after it.
            threading.Timer(0.5, go.set).start()
        if not go.is_set():
            assert first < 5
        return transform(batch)

    run([source], tmp_path / "out", 3, slow)
    assert sorted(seen) == list(range(20))


@pytest.mark.parametrize("threads", [1, 3])
def test_error_in_the_function_ends_the_run(sources: list[Path], tmp_path: Path, threads: int):
    def failing(batch: pa.RecordBatch) -> pa.RecordBatch:
        if batch.column("n")[0].as_py() > 60:
            raise ValueError("no")
        return transform(batch)

    with pytest.raises(ValueError, match="no"):
        run(sources, tmp_path / "out", threads, failing)


def test_error_while_writing_ends_the_run(sources: list[Path], tmp_path: Path):
    pairs = [(sources[0], tmp_path / "missing" / "a.parquet")]
    with pytest.raises(FileNotFoundError):
        transform_files(pairs, ["n", "s"], ["s"], SCHEMA, transform, 2, lambda rows: None)


@pytest.fixture
def many_units(tmp_path: Path) -> list[Path]:
    """Writes three files of twenty units each."""
    rows = pa.table({"n": np.arange(20 * ROW_GROUP_ROWS), "s": pa.array(["1"] * (20 * ROW_GROUP_ROWS))})
    paths = [tmp_path / f"{name}.parquet" for name in "abc"]
    for path in paths:
        pq.write_table(rows, path, row_group_size=ROW_GROUP_ROWS)
    return paths


def running_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("transform_")]


def interrupt_after(*seconds: float) -> None:
    """Sends SIGINT to the main thread after some seconds."""
    thread = threading.main_thread().ident
    for after in seconds:
        threading.Timer(after, signal.pthread_kill, [thread, signal.SIGINT]).start()


def test_interrupt_ends_the_run(many_units: list[Path], tmp_path: Path):
    first, written = threading.Lock(), []

    def slow(batch: pa.RecordBatch) -> pa.RecordBatch:
        if first.acquire(blocking=False):
            interrupt_after(0.2)
        time.sleep(0.1)
        return transform(batch)

    pairs = [(path, tmp_path / f"out-{path.name}") for path in many_units]
    with pytest.raises(KeyboardInterrupt):
        transform_files(pairs, ["n", "s"], ["s"], SCHEMA, slow, 2, written.append)
    assert not running_threads()
    assert sum(written) < 60 * ROW_GROUP_ROWS


def test_nothing_is_written_after_a_second_interrupt(many_units: list[Path], tmp_path: Path):
    """The second interrupt ends the wait for the threads, which then still run."""
    go, folder = threading.Event(), tmp_path / "out"

    def slow(batch: pa.RecordBatch) -> pa.RecordBatch:
        first = batch.column("n")[0].as_py() // ROW_GROUP_ROWS
        if first == 3:
            interrupt_after(0.2, 1.2)
        assert first < 3 or go.wait(60)
        return transform(batch)

    with pytest.raises(KeyboardInterrupt):
        run(many_units, folder, 2, slow)
    assert running_threads()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert list(before) == ["a.parquet"]
    go.set()
    deadline = time.monotonic() + 60
    while running_threads():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
