"""The local engine analyzes datasets."""

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
from tidemill.transform.canonical import canonicalize
from tidemill.transform.features_function import FeaturesFunction, feature_columns
from tidemill.transform.graph import TRANSFORM_FN
from tidemill.transform.local_engine import LocalEngine
from tidemill.transform.raw import RawColumn
from tidemill.transform.rows import parquet_rows

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(
        write_examples(tmp_path_factory.mktemp("data") / "examples", {"train": example_table(TRAIN_ROWS, 1, 0.0)})
    )


class RecordedProgress(Progress):
    """Progress that keeps its events."""

    def __init__(self):
        super().__init__("preprocess")
        self.events = []

    def rows(self, done: int, total: int | None = None, what: str = "", **options: object) -> None:
        self.events.append((done, total, what))


def artifact_files(examples: Dataset, folder: Path, **settings) -> dict[str, bytes]:
    """Analyzes examples and returns the files of the artifact."""
    # What a clipped number needs to know depends on the quantiles, so it takes a second pass and is not cached.
    features = spec(features={name: each for name, each in FEATURES.items() if name != "clipped"}).features
    folder.mkdir()
    progress = RecordedProgress()
    columns = feature_columns(features, examples.schema())
    LocalEngine(**settings).analyze(FeaturesFunction(features), columns, examples, folder, progress)
    assert progress.events[-1] == (TRAIN_ROWS, TRAIN_ROWS, "analyze")
    assert [done for done, *_ in progress.events] == sorted(done for done, *_ in progress.events)
    canonicalize(folder / TRANSFORM_FN)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_threads_and_the_analyzer_cache_give_the_same_bytes_and_cached_files_are_not_read(
    examples: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = {"analyzer_cache": tmp_path / "analyzer_cache", "threads": 4}
    want = artifact_files(examples, tmp_path / "one", threads=1)
    assert any(name.startswith(f"{TRANSFORM_FN}/assets/") for name in want)
    assert artifact_files(examples, tmp_path / "first", **settings) == want
    for reader in (parquet_rows._RowGroupUnit, scan_tally.ScanTally):
        name = "batches" if reader is parquet_rows._RowGroupUnit else "run"
        monkeypatch.setattr(reader, name, lambda *_, **__: pytest.fail("read"))
    assert artifact_files(examples, tmp_path / "second", **settings) == want


def test_rejects_an_analyzer_that_only_beam_runs_before_rows_are_read(
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
        LocalEngine().analyze(
            preprocessing_fn, [RawColumn("zscore", "float32")], examples, tmp_path, RecordedProgress()
        )
    assert raised.value.code is Code.UNSUPPORTED


def test_rejects_a_column_of_another_type(tmp_path: Path):
    examples = Dataset(write_examples(tmp_path / "data", {"train": pa.table({"x": [1.5]})}))

    def preprocessing_fn(inputs):
        return {"x": inputs["x"].values - tft.min(inputs["x"])}

    with pytest.raises(TidemillError) as raised:
        LocalEngine().analyze(preprocessing_fn, [RawColumn("x", "int64")], examples, tmp_path, RecordedProgress())
    assert raised.value.code is Code.FEATURE_TYPE and raised.value.where == "x"
