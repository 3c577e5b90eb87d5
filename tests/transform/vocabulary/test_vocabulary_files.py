"""Vocabularies counted in SQL and in batches have the same files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from tests.transform.row_engine import analyze_rows
from tidemill.transform.analysis import nodes
from tidemill.transform.analysis.count_store import CountStore
from tidemill.transform.analysis.scan_tally import ScanTally
from tidemill.transform.analysis.tallies import CountTally
from tidemill.transform.raw import RawColumn
from tidemill.transform.rows.parquet_rows import ParquetRows
from tidemill.transform.tft.trace import Trace

pytestmark = pytest.mark.tensorflow
WORDS = ["a", "b", "", None, "größe", "line\nbreak", "missing", "a", "word" * 9, "\x00"]


@pytest.fixture
def rows(tmp_path: Path) -> ParquetRows:
    """Writes three files, one of them without rows."""
    rng = np.random.default_rng(0)
    paths = []
    for number, size in enumerate((70, 0, 130)):
        words = [WORDS[i] for i in rng.integers(0, len(WORDS), size)]
        numbers = pa.array(rng.integers(-3, 4, size), pa.int32(), mask=rng.random(size) < 0.1)
        table = pa.table({"word": pa.array(words, pa.string()), "n": numbers})
        paths.append(tmp_path / f"{number}.parquet")
        pq.write_table(table, paths[-1], row_group_size=32)
    columns = [RawColumn("word", "string"), RawColumn("n", "int64")]
    return ParquetRows(paths, columns, batch_rows=10, keys=["x", "y", "z"])


def dense(column: tf.SparseTensor, fill: str | int) -> tf.Tensor:
    """Converts a column to one value per row."""
    shape = [column.dense_shape[0], 1]
    return tf.squeeze(tf.sparse.to_dense(tf.SparseTensor(column.indices, column.values, shape), fill), 1)


def scanned(inputs: dict) -> dict:
    """Vocabularies of a column's own values, which DuckDB counts."""
    word = dense(inputs["word"], "missing")
    tft.vocabulary(inputs["word"], vocab_filename="sparse", store_frequency=True)
    tft.vocabulary(word, vocab_filename="dense", store_frequency=True)
    tft.vocabulary(tf.where(tf.equal(word, ""), "empty", word), vocab_filename="where", store_frequency=True, top_k=4)
    tft.vocabulary(inputs["n"], vocab_filename="n", store_frequency=True)
    tft.vocabulary(tf.strings.as_string(dense(inputs["n"], -9)), vocab_filename="text", frequency_threshold=9)
    tft.vocabulary(inputs["word"], vocab_filename="records", file_format="tfrecord_gzip")
    return {"n": dense(inputs["n"], 0)}


def counted(inputs: dict) -> dict:
    """The same vocabularies of tokens that pass through Python, and are therefore counted in batches."""

    def same(x: tf.Tensor) -> tf.Tensor:
        return tft.apply_pyfunc(lambda v: v, x.dtype, True, "same", x)

    word = inputs["word"]
    opaque = tf.SparseTensor(word.indices, tf.reshape(same(word.values), [-1]), word.dense_shape)
    n = tf.SparseTensor(inputs["n"].indices, tf.reshape(same(inputs["n"].values), [-1]), inputs["n"].dense_shape)
    return scanned({"word": opaque, "n": n})


def vocabularies(folder: Path) -> dict[str, bytes]:
    """Returns the vocabulary files of an artifact by name."""
    return {path.name: path.read_bytes() for path in (folder / "transform_fn" / "assets").iterdir()}


@pytest.mark.parametrize(("function", "kind"), [(scanned, ScanTally), (counted, CountTally)])
def test_duckdb_counts_columns_and_python_counts_other_tokens(function, kind: type, rows: ParquetRows, tmp_path: Path):
    trace = Trace(function, rows.specs, tmp_path)
    with CountStore(tmp_path, 1 << 28, 1) as counts:
        operations = [o for o in nodes.operations(trace.sinks) if nodes.is_accumulate(o)]
        assert [type(nodes.reduction(o, trace, rows, counts)) for o in operations] == [kind] * 6


def test_both_ways_of_counting_give_the_same_files(rows: ParquetRows, tmp_path: Path):
    analyze_rows(scanned, rows, tmp_path / "scanned")
    made = vocabularies(tmp_path / "scanned")
    for name, function, settings in (
        ("counted", counted, {"threads": 3}),
        ("analyzer_cache", scanned, {"analyzer_cache": tmp_path / "kept"}),
        ("analyzer_cache again", scanned, {"analyzer_cache": tmp_path / "kept"}),
        ("counted analyzer_cache", counted, {"analyzer_cache": tmp_path / "kept"}),
    ):
        analyze_rows(function, rows, tmp_path / name, **settings)
        assert vocabularies(tmp_path / name) == made, name
    assert set(made) == {"sparse", "dense", "where", "n", "text", "records.tfrecord.gz"}
    words = [w for path in rows.scan("word").files for w in pq.read_table(path)["word"].to_pylist()]
    tokens = Counter("missing" if w in (None, "\x00") else w for w in words)
    lines = sorted(((n, w.encode()) for w, n in tokens.items() if w and "\n" not in w), reverse=True)
    assert made["dense"] == b"".join(b"%d %s\n" % line for line in lines)
