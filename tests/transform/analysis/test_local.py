"""The local engine on a dataset."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from tests.transform.preprocess_runs import FEATURES, TRAIN_ROWS, example_table, spec, write_examples
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.runtime import Progress
from tidemill.transform.analysis import scan_tally
from tidemill.transform.canonical import canonicalise
from tidemill.transform.features_function import FeaturesFunction, feature_columns
from tidemill.transform.graph import TRANSFORM_FN
from tidemill.transform.local_engine import LocalEngine
from tidemill.transform.raw import RawColumn
from tidemill.transform.rows import parquet_rows


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(
        write_examples(tmp_path_factory.mktemp("data") / "examples", {"train": example_table(TRAIN_ROWS, 1, 0.0)})
    )


class Heard(Progress):
    """Progress that is kept."""

    def __init__(self):
        super().__init__("preprocess")
        self.events = []

    def rows(self, done: int, total: int | None = None, what: str = "") -> None:
        self.events.append((done, total, what))


def analysed(examples: Dataset, folder: Path, **settings) -> dict[str, bytes]:
    """The artifact's files."""
    features = spec(features=FEATURES).features
    folder.mkdir()
    heard = Heard()
    columns = feature_columns(features, examples.schema())
    LocalEngine(**settings).analyse(FeaturesFunction(features), columns, examples, folder, heard)
    assert heard.events[-1] == (TRAIN_ROWS, TRAIN_ROWS, "analyse")
    assert [done for done, *_ in heard.events] == sorted(done for done, *_ in heard.events)
    canonicalise(folder / TRANSFORM_FN)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_neither_threads_nor_spans_change_a_byte(examples: Dataset, tmp_path: Path):
    analyzer_cache = tmp_path / "analyzer_cache"
    want = analysed(examples, tmp_path / "one", threads=1)
    assert any(name.startswith(f"{TRANSFORM_FN}/assets/") for name in want)
    for number, settings in enumerate(
        [{"threads": 4}, {"analyzer_cache": analyzer_cache}, {"analyzer_cache": analyzer_cache, "threads": 3}]
    ):
        assert analysed(examples, tmp_path / str(number), **settings) == want


def test_files_that_were_seen_are_not_read_again(examples: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    analyzer_cache = tmp_path / "analyzer_cache"
    want = analysed(examples, tmp_path / "first", analyzer_cache=analyzer_cache)
    for reader in (parquet_rows._RowGroupUnit, scan_tally.ScanTally):
        name = "batches" if reader is parquet_rows._RowGroupUnit else "run"
        monkeypatch.setattr(reader, name, lambda *_, **__: pytest.fail("read"))
    assert analysed(examples, tmp_path / "second", analyzer_cache=analyzer_cache) == want


def test_an_analyzer_for_beam_alone_is_refused_before_any_row_is_read(
    examples: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import apache_beam as beam

    class Count(beam.PTransform):
        def expand(self, pcoll):
            return pcoll

    def preprocessing_fn(inputs):
        (count,) = tft.experimental.ptransform_analyzer([inputs["zscore"].values], Count(), [tf.int64], [[]])
        return {"count": tf.fill([tf.shape(inputs["zscore"].dense_shape)[0]], count)}

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(TidemillError, match="use the beam engine") as raised:
        LocalEngine().analyse(preprocessing_fn, [RawColumn("zscore", "float32")], examples, tmp_path, Heard())
    assert raised.value.code is Code.UNSUPPORTED


def test_a_column_of_another_type_is_named(tmp_path: Path):
    examples = Dataset(write_examples(tmp_path / "data", {"train": pa.table({"x": [1.5]})}))

    def preprocessing_fn(inputs):
        return {"x": inputs["x"].values - tft.min(inputs["x"])}

    with pytest.raises(TidemillError) as raised:
        LocalEngine().analyse(preprocessing_fn, [RawColumn("x", "int64")], examples, tmp_path, Heard())
    assert raised.value.code is Code.FEATURE_TYPE and raised.value.where == "x"
