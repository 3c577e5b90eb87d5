"""Vocabularies that are counted while the function is traced."""

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

from tests.transform.local_engine import analyze_rows
from tidemill.errors import Code, TidemillError
from tidemill.transform.analysis import background
from tidemill.transform.analysis.background import AwaitedValues, BackgroundThread, prefetch_counts
from tidemill.transform.analysis.count_store import CountStore
from tidemill.transform.analysis.vocabulary_table import VocabularyTable
from tidemill.transform.raw import RawColumn
from tidemill.transform.rows.parquet_rows import ParquetRows
from tidemill.transform.tft.trace import Trace

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
    """Two vocabularies of columns as they stand, and of what depends on them otherwise."""
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


def begun(rows: ParquetRows, folder: Path, **settings: Any) -> list[str]:
    """The queries that a trace begins."""
    settings = {"memory_bytes": 1 << 28, "threads": 2} | settings
    with CountStore(folder, **settings) as counts:
        Trace(raw_and_others, rows.specs, folder, prefetch_counts(rows, counts))
        return list(counts._prefetched)


def test_columns_are_counted_that_a_vocabulary_provably_wants_as_they_are(rows: ParquetRows, tmp_path: Path):
    queries = begun(rows, tmp_path)
    assert ['"s count"' in query for query in queries] == [True, False] and '"n count"' in queries[1]
    assert all("0.parquet" in query and "1.parquet" in query for query in queries)


def test_nothing_is_counted_where_it_does_not_help(rows: ParquetRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert begun(rows, tmp_path, threads=1) == []
    assert begun(rows, tmp_path, per_file=True) == []
    monkeypatch.setattr(background, "_MAX_ROWS", 5)
    assert begun(rows, tmp_path) == []


def vocabularies(rows: ParquetRows, folder: Path, threads: int, function: Callable = raw_and_others) -> dict:
    folder.mkdir()
    analyze_rows(function, rows, folder, threads=threads)
    files = (folder / "transform_fn" / "assets").iterdir()
    return {file.name: file.read_bytes() for file in files}


def test_the_vocabularies_are_the_same(rows: ParquetRows, tmp_path: Path):
    found = vocabularies(rows, tmp_path / "ahead", 2)
    assert found == vocabularies(rows, tmp_path / "not", 1)
    # Of 4 and 2 rows: s is a, null, b, a and b, a; n is 3, 3, null, 4 and null, 4.
    assert (found["filled"], found["digits"]) == (b"a\nb\n", b"4\n3\n0\n")


def test_text_that_is_no_utf8_is_a_users_mistake(tmp_path: Path):
    offsets = pa.array([0, 1], pa.int32()).buffers()[1]
    bad = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff")])
    pq.write_table(pa.table({"s": bad}), tmp_path / "rows.parquet")
    rows = ParquetRows([tmp_path / "rows.parquet"], [RawColumn("s", "string")])

    def function(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"ids": tft.compute_and_apply_vocabulary(dense(inputs["s"], ""))}

    with pytest.raises(TidemillError) as raised:
        vocabularies(rows, tmp_path / "graph", 2, function)
    assert raised.value.code is Code.UNREADABLE_FILE


ENDLESS = "SELECT sum(a.range * b.range) AS s FROM range(10000000) a, range(10000000) b"


def test_what_nobody_asks_for_is_given_up(tmp_path: Path):
    """A query that would take hours does not keep the analysis from ending."""
    with CountStore(tmp_path, 1 << 28, 2) as counts:
        counts.prefetch(ENDLESS)
        counts.prefetch("SELECT 1 AS waiting")
        with counts.source("SELECT 2 AS own") as source:
            assert counts.rows(f"FROM {source}") == [(2,)]
    assert not counts.has_prefetched


def test_an_interrupt_ends_the_waiting_for_a_query(tmp_path: Path):
    timer = threading.Timer(0.5, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    with pytest.raises(KeyboardInterrupt), CountStore(tmp_path, 1 << 28, 2) as counts:
        counts.prefetch(ENDLESS)
        timer.start()
        with counts.source(ENDLESS):
            pytest.fail("the query ended")


def test_what_does_not_fit_into_memory_is_counted_when_it_is_asked_for(tmp_path: Path):
    held = "SELECT list(i) AS all FROM range(3000000) t(i)"
    with CountStore(tmp_path, 20 << 20, 2) as counts:
        counts.prefetch(held)
        counts._background.submit(int).result()
        with counts.source(held) as source:
            assert source == f"({held})"
        assert not counts.has_prefetched


def test_an_interrupt_ends_what_goes_on_beside(tmp_path: Path):
    """A count that was begun, one that waits for it, and one of the connection's own."""
    timer = threading.Timer(0.5, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])

    def scan(query: str) -> None:
        with counts.source(query) as source:
            counts.rows(f"SELECT count(*) FROM {source}")

    with CountStore(tmp_path, 1 << 28, 2) as counts:
        counts.prefetch(ENDLESS)
        with pytest.raises(KeyboardInterrupt), BackgroundThread(counts) as background:
            begun = [background.submit(scan, query) for query in (ENDLESS, f"{ENDLESS} WHERE true")]
            timer.start()
            begun[0].result()
        assert begun[1].cancelled()
        with pytest.raises(ArithmeticError), BackgroundThread(counts) as background:
            own = background.submit(scan, f"{ENDLESS} WHERE true")
            raise ArithmeticError
        assert isinstance(own.exception(), duckdb.InterruptException)
        assert counts.rows("SELECT 1") == [(1,)]


@pytest.mark.parametrize("threads", [1, 2])
def test_what_fails_beside_fails_the_analysis(rows: ParquetRows, tmp_path: Path, threads: int):
    def key(token: str) -> str:
        raise ArithmeticError(f"no key of {token!r}")

    def function(inputs: dict[str, Any]) -> dict[str, Any]:
        filled = dense(inputs["s"], "")
        return {"ids": tft.compute_and_apply_vocabulary(filled, coverage_top_k=1, top_k=1, key_fn=key)}

    with pytest.raises(ArithmeticError, match="no key of"):
        vocabularies(rows, tmp_path / "graph", threads, function)


def test_a_value_is_waited_for_when_it_is_asked_for(tmp_path: Path):
    first = threading.Event()
    with CountStore(tmp_path, 1 << 28, 2) as counts, BackgroundThread(counts) as background:
        values = AwaitedValues({"slow": background.submit(first.wait, 30), "after": background.submit(int, "7")})
        assert (set(values), len(values), "slow" in values, "other" in values) == ({"slow", "after"}, 2, True, False)
        first.set()
        assert dict(values) == {"slow": True, "after": 7}


def test_an_interrupt_ends_a_stream(tmp_path: Path):
    with CountStore(tmp_path, 1 << 28, 2) as counts:
        with pytest.raises(ArithmeticError), BackgroundThread(counts) as background:
            started = threading.Event()
            begun = background.submit(
                lambda: [started.set() for _ in counts.stream(f"SELECT range FROM range({10**12})")]
            )
            assert started.wait(60)
            raise ArithmeticError
        # Arrow's reader wraps DuckDB's error.
        assert "Interrupted" in str(begun.exception())


def test_a_vocabulary_may_be_forgotten_while_a_result_is_fetched(tmp_path: Path):
    with CountStore(tmp_path, 1 << 28, 2) as counts:
        tokens = [VocabularyTable(counts, counts.create("SELECT 'a'::BLOB AS token, 1 AS metric"), is_integer=False)]
        tokens.append(tokens)  # Only the collector finds out that nobody needs it.
        table = tokens[0].table
        del tokens
        gc.collect()
        assert table in counts._to_drop
        assert counts.rows(f"SELECT count(*) FROM duckdb_tables() WHERE table_name = '{table}'") == [(0,)]
        assert not counts._to_drop


def test_a_key_function_may_trace(rows: ParquetRows, tmp_path: Path):
    """It runs beside the thread that binds the vocabularies."""

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

    found = vocabularies(rows, tmp_path / "graph", 2, function)
    assert found == {"keyed_s": b"a\nb\n", "keyed_t": b"2\n1\n"}
