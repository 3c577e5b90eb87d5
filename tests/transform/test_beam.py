"""The Beam engine: its runners' options, its outputs, its errors, and the shared folder of remote runners."""

from __future__ import annotations

import re
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from tests.transform.preprocess_runs import FEATURES, Run, example_table, run, spec, write_examples
from tests.transform.recordings import files_below
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.experiment.compute import PreprocessResources
from tidemill.runtime import Progress
from tidemill.transform.engine import open_engine
from tidemill.transform.preprocess import preprocess

pytestmark = pytest.mark.beam
TEMP = "--temp_location=gs://bucket/tmp"


@pytest.mark.parametrize(
    ("runner", "flags", "name"),
    [
        (
            "dataflow",
            [TEMP, "--project=my-project", "--region", "europe-west1", "--num_workers=3",
             "--sdk_container_image=europe-docker.pkg.dev/p/r/worker", "--experiments=use_runner_v2"],
            "DataflowRunner",
        ),
        ("flink", [TEMP, "--flink_master=flink:8081", "--environment_type=EXTERNAL",
                   "--environment_config=localhost:50000"], "FlinkRunner"),
        ("flink", [TEMP, "--job_endpoint=jobs:8099", "--environment_type=DOCKER", "--environment_config=worker:1"],
         "FlinkRunner"),
        ("spark", [TEMP, "--spark_master_url=spark://spark:7077", "--environment_type=LOOPBACK"], "SparkRunner"),
    ],
)  # fmt: skip
def test_options_reach_the_runner(runner: str, flags: list[str], name: str):
    from tidemill.transform.beam.runners import open_runner, pipeline_options

    options = pipeline_options(runner, flags).get_all_options(drop_default=True)
    passed = dict(flag.removeprefix("--").split("=", 1) for flag in flags if "=" in flag)
    expected = passed | {"runner": name} | ({"region": "europe-west1"} if runner == "dataflow" else {})
    assert {key: _text(value) for key, value in options.items() if key in expected} == expected
    assert type(open_runner(runner)).__name__ == name


def _text(value: object) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def test_options_in_the_guide_are_valid():
    from tidemill.transform.beam.runners import pipeline_options

    text = (Path(__file__).parents[2] / "docs" / "guides" / "beam-runners.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    settings = [block["compute"]["preprocess"] for block in blocks if "preprocess" in block.get("compute", {})]
    runners = [PreprocessResources(**each) for each in settings if "runner" in each]
    assert {settings.runner for settings in runners} == {"dataflow", "flink", "spark"}
    for settings in runners:
        assert pipeline_options(settings.runner, settings.options)


@pytest.mark.parametrize(
    ("runner", "flags", "urn", "payload"),
    [
        ("flink", ["--environment_type=DOCKER", "--environment_config=worker:1"], "beam:env:docker:v1", b"worker:1"),
        ("flink", ["--environment_type=EXTERNAL", "--environment_config=localhost:50000"], "beam:env:external:v1",
         b"localhost:50000"),
        ("flink", [], "beam:env:embedded_python_loopback:v1", b""),  # Beam starts Flink itself
        ("spark", ["--environment_type=DOCKER", "--environment_config=worker:1"], "beam:env:docker:v1", b"worker:1"),
        ("dataflow", ["--project=my-project", "--region=europe-west1", "--sdk_container_image=r/worker:1"],
         "beam:env:docker:v1", b"r/worker:1"),
    ],
)  # fmt: skip
def test_environment_of_the_workers_reaches_the_runner(runner: str, flags: list[str], urn: str, payload: bytes):
    from tidemill.transform.beam.runners import open_runner, pipeline_options

    options = pipeline_options(runner, [TEMP, *flags])
    if runner == "dataflow":
        from apache_beam.runners.dataflow.internal.apiclient import get_container_image_from_options
        from apache_beam.transforms.environments import DockerEnvironment

        environment = DockerEnvironment.from_container_image(get_container_image_from_options(options))
    else:
        environment = open_runner(runner).default_environment(options)
    proto = environment.to_runner_api(None)
    assert proto.urn == urn
    assert payload in proto.payload


@pytest.mark.parametrize(
    ("runner", "flags", "message"),
    [
        ("direct", ["--no_such_option=1"], "--no_such_option"),
        ("direct", ["--no_such_flag"], "--no_such_flag"),
        ("direct", ["region=europe"], "region=europe"),
        ("direct", ["--runner=DataflowRunner"], "--runner"),
        ("dataflow", [TEMP, "--num_workers=many"], "many"),
        ("dataflow", [TEMP], "project"),
        ("dataflow", ["--temp_location=/tmp/x", "--project=my-project"], "GCS path"),
        ("dataflow", [TEMP, "--project=Our project"], "Our project"),
        ("flink", ["--temp_location="], "an empty --temp_location"),
        ("flink", [TEMP, "--environment_type=EXTERNAL"], "external_service_address"),
        ("spark", [TEMP, "--environment_type=LOOPBACK", "--environment_config=x"], "LOOPBACK"),
    ],
)
def test_rejects_bad_options(tmp_path: Path, runner: str, flags: list[str], message: str):
    examples = write_examples(tmp_path / "examples", {"train": example_table(20, 1, 0.0)})
    with pytest.raises(TidemillError, match=message) as caught:
        open_engine(spec(features={}, runner=runner, options=flags), Dataset(examples))
    assert caught.value.code is Code.INVALID_VALUE


def test_missing_package_of_a_runner_is_reported(monkeypatch: pytest.MonkeyPatch):
    from tidemill.transform.beam.runners import open_runner

    # Python does the same for a package that is not installed.
    monkeypatch.setitem(sys.modules, "apache_beam.runners.dataflow.internal.apiclient", None)
    with pytest.raises(TidemillError) as caught:
        open_runner("dataflow")
    assert caught.value.code is Code.MISSING_PACKAGE


SPLITS = {"train": example_table(700, 1, 0.0), "test": example_table(30, 2, 0.0)}
KINDS = {name: FEATURES[name] for name in ("zscore", "buckets", "text_top", "crossed")}


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with Beam's in-process runner, which reads local paths although other machines would read a bucket."""
    folder = tmp_path_factory.mktemp("direct")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tidemill.transform.beam.workspace._MOUNTS", {f"{folder}/": "gs://no-such-bucket/"})
        return run(folder, SPLITS, features=KINDS, engine="beam")


def test_beam_engine_writes_what_the_local_engine_writes(direct: Run, tmp_path: Path):
    local = run(tmp_path, SPLITS, features=KINDS, engine="local")
    assert direct.graph.features == local.graph.features
    assert direct.summary.rows == local.summary.rows
    for part in ("transform_fn/assets", "features.json"):
        theirs, ours = (files_below(made.graph.path, "", (part,)) for made in (direct, local))
        assert theirs == ours
    for split in SPLITS:
        for name in local.transformed.columns:
            theirs, ours = direct.transformed_column(split, name), local.transformed_column(split, name)
            assert theirs.dtype == ours.dtype
            np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-5 if ours.dtype.kind == "f" else 0)


def test_remote_runners_exchange_files_through_a_shared_folder(
    direct: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Does what Dataflow, Flink and Spark do, with Beam's in-process runner."""
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

    from tidemill.transform.beam import workspace
    from tidemill.transform.beam.beam_engine import BeamEngine

    class SharedFolderEngine(BeamEngine):
        def __init__(self, temp: Path):
            super().__init__("flink", [f"--temp_location={temp}"])
            self._open_runner = FnApiRunner

    named: list[Path] = []
    shared_uri = workspace.shared_uri
    monkeypatch.setattr(workspace, "shared_uri", lambda path: named.append(Path(path)) or shared_uri(path))
    shared = tmp_path / "shared"
    summary = preprocess(
        spec(features=KINDS),
        str(direct.examples.path),
        str(direct.examples.path.parent / "schema"),
        progress=Progress("preprocess"),
        engine=SharedFolderEngine(shared),
        transform_graph=str(tmp_path / "graph"),
        transformed=str(tmp_path / "transformed"),
    )
    assert summary == direct.summary
    for split in SPLITS:
        assert Dataset(tmp_path / "transformed").read(split).equals(direct.transformed.read(split))
    assert [p for p in shared.rglob("*") if p.is_file()] == []
    assert set(named) >= set(direct.examples.files("train")), "the workers get local paths"


@pytest.mark.full
@pytest.mark.parametrize("runner", ["flink", "spark"])
def test_portable_runners_run_on_beams_job_server(tmp_path: Path, runner: str):
    """Beam's own job server runs in this process, and its workers call back."""
    flags = [f"--temp_location={tmp_path / 'shared'}", "--job_endpoint=embed", "--environment_type=LOOPBACK"]
    features = {name: FEATURES[name] for name in ("zscore", "text")}
    direct = run(tmp_path / "direct", SPLITS, features=features, runner="direct")
    remote = run(tmp_path / "remote", SPLITS, features=features, runner=runner, options=flags)
    assert remote.graph.features == direct.graph.features
    for split in SPLITS:
        ours, expected = remote.transformed.read(split), direct.transformed.read(split)
        assert ours.column("text").equals(expected.column("text"))
        np.testing.assert_allclose(ours.column("zscore").to_numpy(), expected.column("zscore").to_numpy(), rtol=1e-5)
    assert [p for p in (tmp_path / "shared").rglob("*") if p.is_file()] == []


MODULE = """
def preprocessing_fn(inputs):
    import tensorflow as tf
    x = tf.sparse.to_dense(inputs["text"])
    return {"a": tf.cast(tf.strings.length(tf.squeeze(x, 1)), tf.int64)}
"""


@pytest.mark.parametrize("fields", [{"features": {"zscore": FEATURES["zscore"]}}, {"transform_module": MODULE}])
def test_runner_that_accepts_no_job_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict):
    from apache_beam.runners.runner import PipelineRunner
    from grpc import FutureTimeoutError

    from tidemill.transform.beam import runners

    class Unreachable(PipelineRunner):
        def run_pipeline(self, *_: object) -> None:
            raise FutureTimeoutError

    monkeypatch.setattr(runners, "open_runner", lambda runner: Unreachable())
    flags = [f"--temp_location={tmp_path / 'shared'}"]
    with pytest.raises(TidemillError, match=r"^compute\.preprocess\.runner: got no job \(\w*Timeout") as caught:
        run(tmp_path, {"train": example_table(20, 1, 0.0)}, runner="flink", options=flags, **fields)
    assert caught.value.code is Code.INVALID_VALUE


@pytest.mark.full
@pytest.mark.process
def test_job_server_that_cannot_be_reached_is_reported(tmp_path: Path):
    # Beam leaves a gRPC channel open, whose threads write a message for every later fork of this process.
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        process.submit(_run_without_job_server, tmp_path).result()


def _run_without_job_server(tmp_path: Path) -> None:
    flags = ["--job_endpoint=localhost:1", "--job_server_timeout=1", f"--temp_location={tmp_path / 'shared'}"]
    features = {"zscore": FEATURES["zscore"]}
    with pytest.raises(TidemillError, match=r"^compute\.preprocess\.runner: got no job \(\w*Timeout") as caught:
        run(tmp_path, {"train": example_table(700, 1, 0.0)}, runner="flink", options=flags, features=features)
    assert caught.value.code is Code.INVALID_VALUE


def test_paths_of_mounted_buckets_become_uris():
    from tidemill.transform.beam.workspace import shared_uri

    assert shared_uri("/gcs/bucket/run/examples") == "gs://bucket/run/examples"
    assert shared_uri(Path("/data/examples")) == "/data/examples"


def test_row_groups_are_read_in_batches(all_kinds: Run):
    from tidemill.transform.beam.beam_engine import _ReadRowGroups, _row_groups

    groups = _row_groups(all_kinds.examples, "train", str)
    assert [g.rows_before for g in groups] == [0, 512, 1024, 1536, 2048, 2560]
    columns = all_kinds.graph.raw_columns
    batches = [batch for group in groups for batch in _ReadRowGroups(tuple(columns), 3000, None).process(group)]
    assert sum(batch.num_rows for batch in batches) == 3000
    ints = pa.concat_arrays([b.column("integer") for b in batches]).to_pylist()
    assert [v[0] if v else None for v in ints] == all_kinds.raw("train", "integer")
