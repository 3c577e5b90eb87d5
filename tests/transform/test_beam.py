"""Beam's runners: their options, and the way over a shared folder that runners on other machines take."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tests.transform.runs import FEATURES, run, spec, table
from tidemill.data.dataset import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.step import Progress
from tidemill.transform.engine import open_engine
from tidemill.transform.preprocess import preprocess

TEMP = "--temp_location=gs://bucket/tmp"


@pytest.mark.parametrize(
    ("runner", "flags", "name"),
    [
        ("dataflow", [TEMP, "--project=p", "--region", "europe-west1", "--num_workers=3"], "DataflowRunner"),
        ("flink", [TEMP, "--flink_master=localhost:8081", "--environment_type=LOOPBACK"], "FlinkRunner"),
        ("spark", [TEMP, "--spark_master_url=local[4]"], "SparkRunner"),
    ],
)
def test_options_reach_the_runner(runner: str, flags: list[str], name: str):
    from tidemill.transform.runners import open_runner, pipeline_options

    options = pipeline_options(runner, flags).get_all_options(drop_default=True)
    assert options["runner"] == name
    assert options["temp_location"] == "gs://bucket/tmp"
    assert (runner != "dataflow") or (options["region"], options["num_workers"]) == ("europe-west1", 3)
    assert type(open_runner(runner)).__name__ == name


@pytest.mark.parametrize(
    ("runner", "flags", "message"),
    [
        ("direct", ["--no_such_option=1"], "--no_such_option"),
        ("direct", ["--no_such_flag"], "--no_such_flag"),
        ("direct", ["region=europe"], "region=europe"),
        ("direct", ["--runner=DataflowRunner"], "--runner"),
        ("dataflow", [TEMP, "--num_workers=many"], "many"),
        ("dataflow", ["--region=europe-west1"], "temp_location"),
        ("flink", [], "temp_location"),
    ],
)
def test_bad_options(runner: str, flags: list[str], message: str):
    with pytest.raises(TidemillError, match=message) as caught:
        open_engine(spec(features={}, runner=runner, options=flags))
    assert caught.value.code is Code.INVALID_VALUE


def test_the_runners_package_is_missing(monkeypatch: pytest.MonkeyPatch):
    from tidemill.transform.runners import open_runner

    # What Python itself does with a package that is not installed.
    monkeypatch.setitem(sys.modules, "apache_beam.runners.dataflow.internal.apiclient", None)
    with pytest.raises(TidemillError) as caught:
        open_runner("dataflow")
    assert caught.value.code is Code.MISSING_PACKAGE


def test_the_way_over_a_shared_folder(tmp_path: Path):
    """What Dataflow, Flink and Spark do, with Beam's in-process runner and a folder as the shared storage."""
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

    from tidemill.transform.beam import BeamEngine

    class SharedFolderEngine(BeamEngine):
        def __init__(self, temp: Path):
            super().__init__("flink", [f"--temp_location={temp}"])
            self._open_runner = FnApiRunner

    features = {name: FEATURES[name] for name in ("zscore", "buckets", "text", "crossed")}
    here = run(tmp_path / "here", {"train": table(1500, 1, 0.0), "test": table(30, 2, 0.0)}, features=features)
    targets = {"transform_graph": str(tmp_path / "graph"), "transformed": str(tmp_path / "made")}
    shared = tmp_path / "shared"
    summary = preprocess(
        spec(features=features),
        str(here.examples.path),
        str(tmp_path / "here" / "schema"),
        progress=Progress("preprocess"),
        engine=SharedFolderEngine(shared),
        **targets,
    )
    assert summary == here.summary
    made = Dataset(tmp_path / "made")
    for split in ("train", "test"):
        assert made.read(split).equals(here.transformed.read(split))
    assert [p for p in shared.rglob("*") if p.is_file()] == []


def test_shared_names():
    from tidemill.transform.beam_files import shared_uri

    assert shared_uri("/gcs/bucket/run/examples") == "gs://bucket/run/examples"
    assert shared_uri(Path("/data/examples")) == "/data/examples"


def test_row_groups_are_read_in_pieces(all_kinds):
    from tidemill.transform.beam import _ReadRowGroups, _row_groups

    groups = _row_groups(all_kinds.examples, "train", str)
    assert [g.rows_before for g in groups] == [0, 512, 1024, 1536, 2048, 2560]
    columns = all_kinds.graph.raw_columns
    batches = [batch for group in groups for batch in _ReadRowGroups(tuple(columns), 3000, None).process(group)]
    assert sum(batch.num_rows for batch in batches) == 3000
    ints = pa.concat_arrays([b.column("integer") for b in batches]).to_pylist()
    assert [v[0] if v else None for v in ints] == all_kinds.raw("train", "integer")
