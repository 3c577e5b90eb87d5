"""The seam for engines: a second engine, made of pyarrow alone, gives the examples of DuckDB's."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.data.runs import Runner, table
from tidemill.artifacts.model_columns import SourceColumns
from tidemill.data import engines, source_record
from tidemill.data.source_engine import SourceEngine, SourceFacts, SourceRows, SplitRows
from tidemill.errors import Code, TidemillError

COLUMNS = {"id": "BIGINT", "x": "DOUBLE", "y": "BIGINT"}


class ArrowEngine(SourceEngine):
    """Reads one Parquet file with pyarrow, and splits it by the hash of the key as DuckDB's engine does."""

    writes = False
    """Whether the engine writes the shards itself."""

    def record(self, source):
        return source_record.record(source)

    def check_unchanged(self, record):
        for file in record.files:
            source_record.check_unchanged(file)

    @contextlib.contextmanager
    def read(self, request):
        Path(request.quarantine).write_text("")
        yield ArrowRows(pq.read_table(request.record.files[0].uri), request.spec, self.writes)

    def inspect(self, request, numbers=()):
        raise NotImplementedError


class ArrowRows(SourceRows):
    def __init__(self, rows, spec, writes):
        self._rows, self._spec, self._writes = rows, spec, writes

    @property
    def schema(self):
        return self._rows.schema

    def batches(self):
        keys = [str(value) for value in self._rows["id"].to_pylist()]
        digests = [hashlib.md5(key.encode()).digest() for key in keys]
        order = sorted(range(len(keys)), key=lambda row: int.from_bytes(digests[row], "little"))
        for name in self._spec.splits:
            chosen = [row for row in order if self._split(keys[row]) == name]
            for batch in self._rows.take(chosen).combine_chunks().to_batches():
                yield SplitRows(name, batch)

    def _split(self, key):
        share = int.from_bytes(hashlib.md5(f"{self._spec.split.seed}|{key}".encode()).digest()[8:], "little") / 2**64
        fractions = self._spec.split.fractions
        limits = (fractions.train, fractions.train + fractions.valid)
        return self._spec.splits[sum(share >= limit for limit in limits)]

    def write_shards(self, folder):
        if not self._writes:
            return None
        shards: dict[str, list[str]] = {}
        batches = list(self.batches())
        for name in self._spec.splits:
            (folder / name).mkdir()
            rows = pa.Table.from_batches([b.rows for b in batches if b.split == name], self.schema)
            pq.write_table(rows, folder / name / "part-00000.parquet", compression="zstd")
            shards[name] = [f"{name}/part-00000.parquet"]
        return shards

    def check(self):
        if self._rows.num_rows == 0:
            raise TidemillError(Code.EMPTY_INPUT, "source", "no rows", "add some")

    def facts(self):
        return SourceFacts(SourceColumns(result=COLUMNS, tables={}))

    def largest_group(self, column):
        counts = max(pc.value_counts(self._rows[column]).to_pylist(), key=lambda each: each["counts"])
        return counts["values"], counts["counts"]


class ExportingEngine(ArrowEngine):
    writes = True


def ingested(folder: Path, monkeypatch: pytest.MonkeyPatch, engine: type[SourceEngine] | None, rows: pa.Table):
    runner = Runner(folder)
    (folder / "in").mkdir(parents=True)
    pq.write_table(rows, folder / "in" / "t.parquet")
    if engine is not None:
        monkeypatch.setitem(engines.ENGINES, "duckdb", engine)
    return runner.run({"t": {"uri": str(folder / "in" / "t.parquet")}}, key=["id"], columns=["x"])


@pytest.mark.parametrize("engine", [ArrowEngine, ExportingEngine])
def test_a_second_engine_gives_the_same_examples(tmp_path, monkeypatch, engine):
    rows = table(300)
    ours = ingested(tmp_path / "ours", monkeypatch, None, rows)
    theirs = ingested(tmp_path / "theirs", monkeypatch, engine, rows)
    assert theirs.summary.rows == ours.summary.rows and min(ours.summary.rows.values()) > 10
    for split in ("train", "valid", "test"):
        assert theirs.rows(split) == ours.rows(split)
    assert theirs.dataset.columns == ours.dataset.columns
    assert theirs.dataset.metadata["labels"] == ["y"]


@pytest.mark.parametrize("engine", [ArrowEngine, ExportingEngine])
@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"y": pa.nulls(300, pa.int64())}, Code.LABEL_NULL, "300 nulls"),
        ({"y": pa.array([2, 0, 1] * 100)}, Code.LABEL_TYPE, "the value 2"),
        ({"y": pa.array([1] * 300)}, Code.LABEL_ONE_CLASS, "the single value 1 in all rows"),
        ({"x": pa.nulls(300, pa.float64())}, Code.FEATURE_ALL_NULL, "for x"),
    ],
)
def test_ingest_checks_the_rows_of_every_engine(tmp_path, monkeypatch, engine, change, code, text):
    rows = table(300)
    for name, values in change.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, values)
    with pytest.raises(TidemillError, match=text) as raised:
        ingested(tmp_path, monkeypatch, engine, rows)
    assert raised.value.code is code
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["quarantine.jsonl"]


def test_refuses_an_engine_that_does_not_exist():
    with pytest.raises(TidemillError, match="'bigquery'") as raised:
        engines.check_engine("bigquery", "predict.source")
    assert raised.value.code is Code.UNSUPPORTED
    assert "predict.source.engine" in str(raised.value)
    with pytest.raises(TidemillError, match="bigquery"):
        engines.engine_of("bigquery")
