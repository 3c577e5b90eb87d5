"""The command `tidemill explain` after runs of a toy pipeline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.local.toy_pipelines import SINGLE, TOY
from tidemill.cli.main import main
from tidemill.local import definitions

pytestmark = pytest.mark.process


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """A function that runs a pipeline of one step and returns the printed text."""
    monkeypatch.setattr(definitions, "find_pipeline", lambda name, *where: SINGLE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("x,y\n1,0\n")
    data = "source: {tables: {t: t.csv}}\nlabel: y\nfeatures: {x: {kind: numeric}}\nmodels: [{family: gbdt}]\n"
    (tmp_path / "toy.yaml").write_text(f"name: toy\n{data}")

    def run(rows: int, *more: str) -> str:
        parameters = ["--param", f"rows={rows}", "--param", "seconds=0"]
        main(["run", "toy.yaml", *parameters, *more])
        return capsys.readouterr().out

    return run


def explain(capsys, *arguments: str) -> str:
    assert main(["explain", *arguments]) == 0
    return capsys.readouterr().out


def test_a_run_and_explain_print_why_a_step_ran(run, tmp_path, capsys):
    assert "started: first run\n" in run(4)
    assert "started" not in run(4)
    assert "started: parameter rows changed from 4 to 5\n" in run(5)
    assert "started: --no-cache was given\n" in run(5, "--no-cache")
    shutil.rmtree(tmp_path / ".tidemill" / "cache")
    assert "started: its cache entry or its artifacts were removed\n" in run(5)
    run(-1)
    assert "started: its last attempt did not finish\n" in run(-1)
    assert "started: parameter rows changed from -1 to 7\n" in run(7)
    out = explain(capsys, "ingest")
    assert out.startswith("ingest: done in run ") and "it ran because: parameter rows changed from -1 to 7\n" in out
    assert "(failed):\n  parameter rows changed from -1 to 7\n" in out
    records = sorted(Path(".tidemill/runs").glob("*/run.json"))
    assert json.loads(records[1].read_text())["steps"][0]["reasons"] == []
    first = records[0].parent.name
    out = explain(capsys, "ingest", "--run", first)
    assert "it ran because: first run\n" in out and "no earlier run" in out
    assert main(["explain", "ingset"]) == 2
    assert "which the runs do not have; did you mean 'ingest'" in capsys.readouterr().err


def test_explains_the_newest_run_that_has_the_step(run, monkeypatch, capsys):
    run(4)
    monkeypatch.setattr(definitions, "find_pipeline", lambda name, *where: TOY)
    run(3)
    assert explain(capsys, "train-gbdt").startswith("train-gbdt: done in run ")
    monkeypatch.setattr(definitions, "find_pipeline", lambda name, *where: SINGLE)
    run(5)
    assert explain(capsys, "train-gbdt").startswith("train-gbdt: done in run ")
    run_id = sorted(Path(".tidemill/runs").iterdir())[-1].name
    assert main(["explain", "train-gbdt", "--run", run_id]) == 2
    assert f"which run {run_id} does not have" in capsys.readouterr().err
