"""A daily retrain with the analyzer cache: old files are not analyzed again, and the result is the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.transform.preprocess_runs import spec
from tidemill.artifacts.examples import Dataset
from tidemill.data.ingest import ingest
from tidemill.experiment import parse
from tidemill.planning import plan_training
from tidemill.runtime import Progress
from tidemill.steps.ingest import IngestSpec
from tidemill.steps.preprocess import PreprocessSpec
from tidemill.steps.validate import ValidateSpec
from tidemill.transform.features_function import FeaturesFunction, feature_columns
from tidemill.transform.local_engine import LocalEngine
from tidemill.transform.preprocess import preprocess
from tidemill.validation.validate import validate

FEATURES = {
    "price": {"kind": "numeric"},
    "amount": {"kind": "numeric", "transform": {"bucketize": 5}},
    "site": {"kind": "categorical", "vocabulary": {"min_count": 3}},
    "words": {"kind": "cross", "of": ["site", "place"], "buckets": 50},
    "place": {"kind": "categorical"},
}


pytestmark = pytest.mark.tensorflow


def day(number: int, rows: int = 400) -> pa.Table:
    """Returns the rows of one day."""
    rng = np.random.default_rng(number)
    return pa.table(
        {
            "id": [f"{number}-{i}" for i in range(rows)],
            "day": pa.array([number] * rows),
            "at": pa.array(number * rows + np.arange(rows)),
            "y": pa.array(rng.integers(0, 2, rows)),
            "price": pa.array(rng.normal(number, 2, rows), mask=rng.random(rows) < 0.1),
            "amount": pa.array(rng.integers(0, 100, rows)),
            "site": [f"site {i}" for i in rng.integers(0, 60 + number, rows)],
            "place": pa.array(rng.integers(0, 5, rows)),
        }
    )


class Daily:
    """An experiment over a folder that grows by one file per day.

    Attributes:
        by: How rows are split.
        cached: The cached files after the first day.
    """

    def __init__(self, folder: Path, by: str):
        self.folder, self.by, self.root = folder, by, str(folder / "root")
        self.cached: set[Path] = set()
        (folder / "days").mkdir(parents=True)
        split = {"by": by, "span": "day"} | ({"column": "at"} if by == "time" else {})
        self.experiment = {
            "name": "daily",
            "source": {"tables": {"days": str(folder / "days" / "*.parquet")}},
            "label": "y",
            "key": ["id"],
            "split": split,
            "features": FEATURES,
            "models": [{"family": "gbdt"}],
        }

    def add(self, number: int) -> None:
        pq.write_table(day(number), self.folder / "days" / f"{number}.parquet")

    def run(self, name: str, analyzer_cache: bool) -> Path:
        """Ingests, validates and preprocesses all days, and returns the folder of the artifacts."""
        folder = self.folder / name
        folder.mkdir()
        compute = {"compute": {"preprocess": {"analyzer_cache": analyzer_cache}}}
        plan = plan_training(parse(yaml.safe_dump(self.experiment | compute)), self.root)
        made = {n: str(folder / n) for n in ("examples", "statistics", "schema", "transform_graph", "transformed")}
        ingest(IngestSpec.read(plan["ingest"]), self.root, examples=made["examples"],
               quarantine=str(folder / "quarantine"), progress=Progress("ingest"))  # fmt: skip
        validate(ValidateSpec.read(plan["validate"]), made["examples"], statistics=made["statistics"],
                 schema=made["schema"], anomalies=str(folder / "anomalies"), report=str(folder / "report"),
                 progress=Progress("validate"))  # fmt: skip
        preprocess(PreprocessSpec.read(plan["preprocess"]), made["examples"], made["schema"],
                   transform_graph=made["transform_graph"], transformed=made["transformed"], root=self.root,
                   progress=Progress("preprocess"))  # fmt: skip
        return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the files below a folder by their relative paths."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module", params=["random", "time"])
def daily(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Daily:
    """An experiment after two days: `monday` and `tuesday` with the cache, and `whole` without on the second day."""
    daily = Daily(tmp_path_factory.mktemp("daily"), request.param)
    for number in range(1, 5):
        daily.add(number)
    daily.run("monday", analyzer_cache=True)
    daily.cached = set((daily.folder / "root" / "analyzer_cache").iterdir())
    daily.add(5)
    daily.run("tuesday", analyzer_cache=True)
    daily.run("whole", analyzer_cache=False)
    return daily


def test_new_day_with_the_cache_gives_the_same_bytes_as_without(daily: Daily):
    for name in ("transform_graph", "transformed"):
        assert contents(daily.folder / "tuesday" / name) == contents(daily.folder / "whole" / name)
    new = set((daily.folder / "root" / "analyzer_cache").iterdir()) - daily.cached
    # By time, the bounds between the splits move with a new day, here by less than two days.
    assert len(daily.cached) == 4
    assert 1 <= len(new) <= (1 if daily.by == "random" else 2)


@pytest.mark.parametrize("daily", ["random"], indirect=True)
def test_cached_files_are_not_read(daily: Daily, tmp_path: Path):
    """Their pages are overwritten after the first day; only the footers are still read."""
    old = Dataset(daily.folder / "monday" / "examples")
    new = Dataset(shutil.copytree(daily.folder / "tuesday" / "examples", tmp_path / "examples"))
    old_fingerprints = {file.fingerprint for file in old.splits["train"].files}
    entries = [file for file in new.splits["train"].files if file.fingerprint in old_fingerprints]
    assert len(entries) == 4
    for entry in entries:
        with open(new.path / entry.name, "r+b") as file:
            first = pq.read_metadata(file).row_group(0).column(0)
            file.seek(first.dictionary_page_offset or first.data_page_offset)
            file.write(bytes(entry.bytes // 2))
    features = PreprocessSpec.model_validate(spec(features=FEATURES).model_dump()).features
    (tmp_path / "made").mkdir()
    arguments = FeaturesFunction(features), feature_columns(features, new.schema()), new, tmp_path / "made"
    LocalEngine(analyzer_cache=daily.folder / "root" / "analyzer_cache").analyze(*arguments, Progress("preprocess"))
    assert (tmp_path / "made" / "transform_fn" / "saved_model.pb").is_file()
    with pytest.raises(Exception, match=r"(?i)parquet|decompress|corrupt|zstd|page|invalid|thrift"):
        LocalEngine().analyze(*arguments, Progress("preprocess"))
