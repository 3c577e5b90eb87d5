"""The cross_validate pipeline, killed and run again with the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.shop import Workspace, shop_experiment

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def validated(tmp_path_factory, rows) -> Workspace:
    """A workspace with two families and two folds, after a run that was killed and a second run."""
    workspace = Workspace(tmp_path_factory.mktemp("shop"))
    experiment = shop_experiment()
    experiment["training"]["folds"] = 2
    workspace.write(experiment, rows)
    started = "runs/*/steps/train*.progress.jsonl"
    workspace.kill("--pipeline", "cross_validate", when=lambda: len(list(workspace.root.glob(started))) == 4)
    finished = trainings(workspace, "done")
    workspace.succeed("--pipeline", "cross_validate")
    assert finished, "the run was killed before a training was done"
    assert finished <= trainings(workspace, "cached")
    assert finished | trainings(workspace, "done") | trainings(workspace, "cached") == {
        f"train-{member}-{fold}" for member in ("dcn_v2", "gbdt") for fold in range(2)
    }
    return workspace


def trainings(workspace: Workspace, state: str) -> set[str]:
    return {name for name, reached in workspace.states().items() if name.startswith("train-") and reached == state}


def test_publishes_the_best_ensemble(validated):
    version = validated.root / "models" / "shop" / "1"
    assert (version / "saved_model.pb").is_file()
    lineage = json.loads((version / "tidemill" / "lineage.json").read_text())
    assert lineage["model"]["family"] == "ensemble"
    names = [Path(report).read_text() for report in validated.last()["reports"]]
    assert any("cross-validation" in text for text in names)


def test_a_second_run_is_cached(validated):
    states = validated.succeed("--pipeline", "cross_validate")
    assert {state for name, state in states.items() if not name.startswith("plan")} == {"cached"}


def test_batch_predict_scores_rows_with_the_ensemble(validated, rows):
    validated.succeed("--pipeline", "batch_predict")
    (done,) = (validated.root / "predictions" / "shop").glob("*/_SUCCESS")
    scores = np.concatenate([pq.read_table(p)["score"].to_numpy() for p in sorted(done.parent.glob("*.parquet"))])
    assert len(scores) == rows.num_rows
    assert ((scores > 0) & (scores < 1)).all()
