"""The Python API, and that it gives what the command line gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import tidemill
from tests.shop import Workspace, shop_experiment
from tidemill.errors import Code

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, rows) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("shop"))
    workspace.write(shop_experiment(), rows)
    return workspace


@pytest.fixture(scope="module")
def result(workspace) -> tidemill.FinishedRun:
    return tidemill.run(workspace.file, root=workspace.root, show_progress=False)


@pytest.fixture(scope="module")
def model(result) -> tidemill.PublishedModel:
    return result.model


def test_import_is_light():
    code = (
        "import sys, tidemill; print(len(sys.modules), {'kfp', 'tensorflow', 'pyarrow', 'pydantic'} & set(sys.modules))"
    )
    modules, heavy = subprocess.check_output([sys.executable, "-c", code], text=True).split(maxsplit=1)
    assert heavy.strip() == "set()" and int(modules) < 200


def test_unknown_names_are_reported():
    with pytest.raises(AttributeError, match="no_such_name"):
        tidemill.no_such_name  # noqa: B018
    assert set(tidemill.__all__) <= set(dir(tidemill))


COUNT_IMPORTS = """
import importlib.abc, os, sys

class Counter(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "tensorflow.python":
            with open(os.environ["IMPORTS"], "a") as file:
                file.write(f"{os.getpid()}\\n")

sys.meta_path.insert(0, Counter())
"""
"""A sitecustomize.py that writes a line for each process that imports TensorFlow."""


@pytest.fixture(scope="module")
def command_line(workspace, tmp_path_factory) -> Workspace:
    """The same experiment, run by the command line in another root. The file `imports` counts TensorFlow's imports."""
    other = Workspace(tmp_path_factory.mktemp("other"))
    other.write(shop_experiment())
    (other.folder / "rows.csv").write_bytes((workspace.folder / "rows.csv").read_bytes())
    (other.folder / "sitecustomize.py").write_text(COUNT_IMPORTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(other.folder))
        patch.setenv("IMPORTS", str(other.folder / "imports"))
        other.succeed()
    return other


def test_a_run_imports_tensorflow_once(command_line):
    assert len((command_line.folder / "imports").read_text().splitlines()) == 1


def test_command_line_publishes_the_same_model(workspace, result, command_line):
    """All weights, vocabularies and metrics are equal byte by byte. TensorFlow writes the graph in any order."""
    ours, theirs = Path(result.model_uri), command_line.root / "models" / "shop" / "1"
    fingerprints = [json.loads((each / "manifest.json").read_text())["files"] for each in (ours, theirs)]
    names = [{file["name"]: file["fingerprint"] for file in files} for files in fingerprints]
    assert names[0].keys() == names[1].keys() >= {"variables/variables.index", "tidemill/lineage.json"}
    assert {n for n in names[0] if names[0][n] != names[1][n]} <= {"saved_model.pb", "fingerprint.pb"}
    table = pyarrow.csv.read_csv(workspace.folder / "rows.csv")
    scores = [tidemill.load_model(each).predict(table) for each in (ours, theirs)]
    assert scores[0].equals(scores[1])


def test_result_has_metrics_reports_and_steps(workspace, result):
    assert list(result.metrics.index) == ["dcn_v2", "gbdt"]
    published = result.model.metrics
    assert result.metrics.loc[published["name"], "auc"] == published["test"]["metrics"]["auc"]["value"]
    assert result.metrics["blessed"].all() and result.failed_gates == {}
    assert result.steps.loc["ingest", "state"] == "done" and result.steps.loc["ingest", "seconds"] > 0
    assert result.folder == workspace.root / "runs" / result.id
    report = result.reports[f"evaluate-{published['name']}-report"]
    assert "iframe" in report._repr_html_() and "&lt;!doctype html&gt;" in report._repr_html_().lower()
    assert str(result.metrics) in repr(result) and result.model_uri in result._repr_html_()
    assert result.model.lineage["experiment_name"] == "shop"


def test_second_run_is_cached_also_for_an_experiment_object(workspace, result):
    again = tidemill.run(tidemill.load(workspace.file), root=workspace.root, show_progress=False)
    assert again.every_step_cached and again.model_uri == result.model_uri
    assert not any(again.steps["reasons"])


def test_predict_scores_all_kinds_of_frames_as_batch_prediction_does(workspace, model, rows):
    predicted = tidemill.run(
        workspace.file,
        root=workspace.root,
        pipeline="batch_predict",
        parameters={"model_version": "1"},
        show_progress=False,
    )
    with pytest.raises(tidemill.TidemillError) as error:
        _ = predicted.model
    assert error.value.code is Code.NO_MODEL and "run the train or cross_validate pipeline" in str(error.value)
    stored = pq.read_table(predicted.predictions_uri).sort_by("id")
    assert stored.num_rows == rows.num_rows
    expected = stored["score"].to_pylist()
    frame = rows.to_pandas().set_index("id", drop=False)
    scores = model.predict(frame)
    assert isinstance(scores, pd.DataFrame) and list(scores.index) == list(frame.index)
    assert scores["score"].to_list() == expected
    assert model.predict(pl.from_arrow(rows))["score"].to_list() == expected
    assert model.predict(rows)["score"].to_pylist() == expected
    assert model.predict(rows.to_batches(max_chunksize=700))["score"].to_pylist() == expected
    assert model.predict(rows.slice(0, 0)).num_rows == 0
    assert model.columns == {"price": "float32", "site": "string", "device": "string"}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (pa.table({"price": [1.0], "site": ["site1"]}), Code.MISSING_COLUMN),
        (pa.table({"price": ["a"], "site": ["site1"], "device": ["phone"]}), Code.FEATURE_TYPE),
        ("rows.csv", Code.FEATURE_TYPE),
        (pd.Series([1.0]), Code.FEATURE_TYPE),
        (pd.DataFrame({"price": [1.0, 2.0], "site": ["a", 3], "device": "phone"}), Code.FEATURE_TYPE),
        (pd.DataFrame([[1.0, "a", "b"]], columns=["price", "site", "site"]), Code.FEATURE_TYPE),
        (pd.DataFrame(), Code.MISSING_COLUMN),
    ],
)
def test_predict_rejects_wrong_columns_and_other_objects(model, data, code):
    with pytest.raises(tidemill.TidemillError) as error:
        model.predict(data)
    assert error.value.code is code


def test_mistakes_are_raised_before_the_first_step(workspace, tmp_path):
    with pytest.raises(tidemill.TidemillError) as error:
        tidemill.run(tmp_path / "none.yaml", root=workspace.root)
    assert error.value.code is Code.MISSING_FILE
    with pytest.raises(tidemill.TidemillError, match="root: got 'gs://bucket'"):
        tidemill.run(workspace.file, root="gs://bucket")
    with pytest.raises(tidemill.TidemillError, match=r"^pipeline: got 'trian'; did you mean 'train'"):
        tidemill.run(workspace.file, root=workspace.root, pipeline="trian")
    with pytest.raises(tidemill.TidemillError) as error:
        tidemill.load_model(tmp_path)
    assert error.value.code is Code.NO_MODEL


def test_a_failed_step_raises_with_its_code_and_log(workspace, rows, tmp_path, capsys):
    broken = Workspace(tmp_path)
    experiment = shop_experiment()
    experiment["features"]["color"] = {"kind": "categorical"}
    broken.write(experiment, rows)
    with pytest.raises(tidemill.RunFailed, match=r"^\[missing-column\] .*color.*\.log\)$") as error:
        tidemill.run(broken.file, root=broken.root)
    assert error.value.code == "missing-column"
    assert "failed" in error.value.result.steps["state"].to_list()
    assert "ingest" in capsys.readouterr().out
