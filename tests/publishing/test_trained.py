"""A trained member: evaluated, published and used for batch prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.evaluation.rain import evaluate_spec, read_metrics
from tests.publishing.tiny import publish_spec
from tests.training.conftest import ROWS
from tidemill.artifacts.examples import Dataset
from tidemill.evaluation.evaluate import evaluate
from tidemill.models import load_model
from tidemill.publishing.predict import predict
from tidemill.publishing.publish import publish
from tidemill.runtime import Progress
from tidemill.steps.predict import PredictSpec

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize("family", ["gbdt", "dcn_v2"])
def test_a_published_model_scores_as_it_did_in_training(tmp_path, trained, family):
    shop = trained(family)
    model = str(shop.folder / "model")

    def run_evaluate(name: str, baseline: str | None):
        settings = {
            "slices": [["site"]],
            "gates": {"auc": {"better_than_baseline": 0.0}},
            "bootstrap": {"resamples": 50},
        }
        spec = evaluate_spec(baseline, **settings).model_copy(update={"labels": ["bought"]})
        return evaluate(
            spec, shop.examples, shop.transformed, model,
            evaluation=str(tmp_path / name), report=str(tmp_path / f"{name}.html"), progress=Progress("evaluate"),
        )  # fmt: skip

    assert run_evaluate("first", None).blessed
    uri = publish(publish_spec(), [model], [str(tmp_path / "first")], root=str(tmp_path / "root")).uri

    assert run_evaluate("second", uri).blessed
    gain = read_metrics(tmp_path / "second")["test"]["baseline"]["gain"]
    assert all(abs(estimate["value"]) < 1e-5 for estimate in gain.values())

    spec = PredictSpec(
        code="test", experiment="rain", model=uri, key=["id"], columns=[], shards=3, batch_size=500,
        output=str(tmp_path / "predictions"),
    )  # fmt: skip
    predict(spec, shop.examples, progress=Progress("predict"))
    paths = sorted(Path(spec.output).glob("*.parquet"))
    predictions = pa.concat_tables(pq.read_table(path) for path in paths)
    transformed, raw = Dataset(shop.transformed), Dataset(shop.examples)
    scores = np.concatenate([load_model(model).predict(transformed, split)[:, 0] for split in ROWS])
    assert predictions["id"].to_pylist() == [i for split in ROWS for i in raw.read(split, ["id"])["id"].to_pylist()]
    assert np.abs(predictions["score"].to_numpy() - scores).max() <= 1e-6
