"""The cross_validate pipeline, run as users run it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.shop import Workspace, shop_experiment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def validated(tmp_path_factory, rows) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("shop"))
    experiment = shop_experiment()
    experiment["training"]["folds"] = 2
    workspace.write(experiment, rows)
    workspace.succeed("--pipeline", "cross_validate")
    return workspace


def test_publishes_the_best_ensemble(validated):
    version = validated.root / "models" / "shop" / "1"
    assert (version / "saved_model.pb").is_file()
    lineage = json.loads((version / "tidemill" / "lineage.json").read_text())
    assert lineage["model"]["family"] == "ensemble"
    names = [Path(report).read_text() for report in validated.last()["reports"]]
    assert any("cross-validation" in text for text in names)


def test_a_second_run_is_cached(validated):
    found = validated.succeed("--pipeline", "cross_validate")
    assert {state for name, state in found.items() if not name.startswith("plan")} == {"cached"}


def test_predicts_like_any_other_model(validated, rows):
    validated.succeed("--pipeline", "batch_predict")
    (done,) = (validated.root / "predictions" / "shop").glob("*/_SUCCESS")
    scores = np.concatenate([pq.read_table(p)["score"].to_numpy() for p in sorted(done.parent.glob("*.parquet"))])
    assert len(scores) == rows.num_rows
    assert ((scores > 0) & (scores < 1)).all()
