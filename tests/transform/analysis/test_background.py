"""Counting on background threads: columns are counted while the function is traced."""

from __future__ import annotations

import gc
import signal
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from tests.transform.row_engine import analyze_rows
from tidemill.errors import Code, TidemillError
from tidemill.transform.analysis import background
from tidemill.transform.analysis.background import AwaitedValues, BackgroundThread, prefetch_counts
from tidemill.transform.analysis.count_store import CountStore
from tidemill.transform.analysis.vocabulary_table import VocabularyTable
from tidemill.transform.raw import RawColumn
from tidemill.transform.rows.parquet_rows import ParquetRows
from tidemill.transform.tft.trace import Trace

pytestmark = pytest.mark.tensorflow
COLUMNS = {"s": "string", "t": "string", "n": "int64", "x": "float32"}


@pytest.fixture
def rows(tmp_path: Path) -> ParquetRows:
    table = pa.table({"s": ["a", None, "b", "a"], "t": ["1", "2", "2", ""], "n": [3, 3, None, 4], "x": [0.5] * 4})
    paths = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    for path, part in zip(paths, (table, table.slice(2)), strict=True):
        pq.write_table(part, path)
    return ParquetRows(paths, [RawColumn(name, dtype) for name, dtype in COLUMNS.items()])


def dense(x: tf.SparseTensor, fill: object) -> tf.Tensor:
    return tf.sparse.to_dense(tf.SparseTensor(x.indices, x.values, [x.dense_shape[0], 1]), fill)[:, 0]


def raw_and_others(inputs: dict[str, Any]) -> dict[str, Any]:
    """Vocabularies of unchanged columns, and of other functions of the columns."""
    strings = {
        "filled": dense(inputs["s"], ""),
        "digits": tf.strings.as_string(dense(inputs["n"], 0)),
        "again": dense(inputs["s"], "?"),
        "lower": tf.strings.lower(dense(inputs["t"], "")),
        "joined": tf.strings.join([dense(inputs["s"], ""), dense(inputs["t"], "")]),
    }
    ids = {name: tft.compute_and_apply_vocabulary(x, vocab_filename=name) for name, x in strings.items()}
    weights = dense(inputs["x"], 0.0)
    tft.vocabulary(dense(inputs["t"], ""), weights=weights, vocab_filename="weighted")
    return ids


def prefetched_queries(rows: ParquetRows, folder: Path, **settings: Any) -> list[str]:
    """Returns the queries that run while the function is traced."""
    settings = {"memory_bytes": 1 << 28, "threads": 2} | settings
    with CountStore(folder, **settings) as counts:
        Trace(raw_and_others, rows.specs, folder, prefetch_counts(rows, counts))
        return list(counts._prefetched)


def test_unchanged_columns_are_counted_during_the_trace(rows: ParquetRows, tmp_path: Path):
    queries = prefetched_queries(rows, tmp_path)
    assert ['"s count"' in query for query in queries] == [True, False] and '"n count"' in queries[1]
    assert all("0.parquet" in query and "1.parquet" in query for query in queries)


def test_nothing_is_prefetched_if_it_does_not_help(rows: ParquetRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It does not help with one thread, with counts per file, or with many rows."""
    assert prefetched_queries(rows, tmp_path, threads=1) == []
    assert prefetched_queries(rows, tmp_path, per_file=True) == []
    monkeypatch.setattr(background, "_MAX_ROWS", 5)
    assert prefetched_queries(rows, tmp_path) == []


def vocabularies(rows: ParquetRows, folder: Path, threads: int, function: Callable = raw_and_others) -> dict:
    folder.mkdir()
    analyze_rows(function, rows, folder, threads=threads)
    files = (folder / "transform_fn" / "assets").iterdir()
    return {file.name: file.read_bytes() for file in files}


def test_prefetched_vocabularies_equal_those_counted_later(rows: ParquetRows, tmp_path: Path):
    prefetched = vocabularies(rows, tmp_path / "prefetched", 2)
    assert prefetched == vocabularies(rows, tmp_path / "later", 1)
    # The files have 4 and 2 rows: s is a, null, b, a and b, a; n is 3, 3, null, 4 and null, 4.
    assert (prefetched["filled"], prefetched["digits"]) == (b"a\nb\n", b"4\n3\n0\n")


def test_reports_text_that_is_not_utf8(tmp_path: Path):
    offsets = pa.array([0, 1], pa.int32()).buffers()[1]
    bad = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff")])
    pq.write_table(pa.table({"s": bad}), tmp_path / "rows.parquet")
    rows = ParquetRows([tmp_path / "rows.parquet"], [RawColumn("s", "string")])

    def function(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"ids": tft.compute_and_apply_vocabulary(dense(inputs["s"], ""))}

    with pytest.raises(TidemillError) as raised:
        vocabularies(rows, tmp_path / "graph", 2, function)
    assert raised.value.code is Code.UNREADABLE_FILE


SLOW_QUERY = "SELECT sum(a.range * b.range) AS s FROM range(10000000) a, range(10000000) b"


def test_analysis_ends_before_a_query_whose_result_is_not_used(tmp_path: Path):
    """The query would take hours."""
    with CountStore(tmp_path, 1 << 28, 2) as counts:
        counts.prefetch(SLOW_QUERY)
        counts.prefetch("SELECT 1 AS queued")
        with counts.source("SELECT 2 AS other") as source:
            assert counts.rows(f"FROM {source}") == [(2,)]
    assert not counts.has_prefetched


def test_interrupt_ends_the_wait_for_a_query(tmp_path: Path):
    timer = threading.Timer(0.5, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    with pytest.raises(KeyboardInterrupt), CountStore(tmp_path, 1 << 28, 2) as counts:
        counts.prefetch(SLOW_QUERY)
        timer.start()
        with counts.source(SLOW_QUERY):
            pytest.fail("the query ended")


def test_query_whose_result_does_not_fit_into_memory_runs_when_it_is_needed(tmp_path: Path):
    query = "SELECT list(i) AS all FROM range(3000000) t(i)"
    with CountStore(tmp_path, 20 << 20, 2) as counts:
        counts.prefetch(query)
        counts._background.submit(int).result()
        with counts.source(query) as source:
            assert source == f"({query})"
        assert not counts.has_prefetched


def test_interrupt_ends_background_queries(tmp_path: Path):
    """One waits for a prefetched query, one waits for its turn, and one runs on the store's own connection."""
    timer = threading.Timer(0.5, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])

    def scan(query: str) -> None:
        with counts.source(query) as source:
            counts.rows(f"SELECT count(*) FROM {source}")

    with CountStore(tmp_path, 1 << 28, 2) as counts:
        counts.prefetch(SLOW_QUERY)
        with pytest.raises(KeyboardInterrupt), BackgroundThread(counts) as background:
            scans = [background.submit(scan, query) for query in (SLOW_QUERY, f"{SLOW_QUERY} WHERE true")]
            timer.start()
            scans[0].result()
        assert scans[1].cancelled()
        with pytest.raises(ArithmeticError), BackgroundThread(counts) as background:
            own = background.submit(scan, f"{SLOW_QUERY} WHERE true")
            raise ArithmeticError
        assert isinstance(own.exception(), duckdb.InterruptException)
        assert counts.rows("SELECT 1") == [(1,)]


@pytest.mark.parametrize("threads", [1, 2])
def test_error_on_the_background_thread_fails_the_analysis(rows: ParquetRows, tmp_path: Path, threads: int):
    def key(token: str) -> str:
        raise ArithmeticError(f"no key of {token!r}")

    def function(inputs: dict[str, Any]) -> dict[str, Any]:
        filled = dense(inputs["s"], "")
        return {"ids": tft.compute_and_apply_vocabulary(filled, coverage_top_k=1, top_k=1, key_fn=key)}

    with pytest.raises(ArithmeticError, match="no key of"):
        vocabularies(rows, tmp_path / "graph", threads, function)


def test_awaited_value_is_ready_when_it_is_read(tmp_path: Path):
    first = threading.Event()
    with CountStore(tmp_path, 1 << 28, 2) as counts, BackgroundThread(counts) as background:
        values = AwaitedValues({"slow": background.submit(first.wait, 30), "after": background.submit(int, "7")})
        assert (set(values), len(values), "slow" in values, "other" in values) == ({"slow", "after"}, 2, True, False)
        first.set()
        assert dict(values) == {"slow": True, "after": 7}


def test_error_ends_a_stream(tmp_path: Path):
    with CountStore(tmp_path, 1 << 28, 2) as counts:
        with pytest.raises(ArithmeticError), BackgroundThread(counts) as background:
            started = threading.Event()
            stream = background.submit(
                lambda: [started.set() for _ in counts.stream(f"SELECT range FROM range({10**12})")]
            )
            assert started.wait(60)
            raise ArithmeticError
        # Arrow's reader wraps DuckDB's error.
        assert "Interrupted" in str(stream.exception())


def test_table_of_a_collected_vocabulary_is_dropped_before_the_next_query(tmp_path: Path):
    with CountStore(tmp_path, 1 << 28, 2) as counts:
        tokens = [VocabularyTable(counts, counts.create("SELECT 'a'::BLOB AS token, 1 AS metric"), is_integer=False)]
        tokens.append(tokens)  # a cycle, which only the garbage collector frees
        table = tokens[0].table
        del tokens
        gc.collect()
        assert table in counts._to_drop
        assert counts.rows(f"SELECT count(*) FROM duckdb_tables() WHERE table_name = '{table}'") == [(0,)]
        assert not counts._to_drop


def test_key_function_may_trace(rows: ParquetRows, tmp_path: Path):
    """It runs on another thread than the one that binds the vocabularies."""

    def key(token: bytes) -> bytes:
        work = tmp_path / f"work-{uuid.uuid4().hex}"
        work.mkdir()
        Trace(lambda inputs: {"x": tft.scale_to_0_1(inputs["x"].values)}, rows.specs, work)
        return token[:1]

    def function(inputs: dict[str, Any]) -> dict[str, Any]:
        filled = {name: dense(inputs[name], "") for name in "st"}
        return {
            name: tft.compute_and_apply_vocabulary(
                x, coverage_top_k=1, top_k=1, key_fn=key, vocab_filename=f"keyed_{name}"
            )
            for name, x in filled.items()
        }

    assert vocabularies(rows, tmp_path / "graph", 2, function) == {"keyed_s": b"a\nb\n", "keyed_t": b"2\n1\n"}
