"""A member that was really trained, through evaluation, the store and batch prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.evaluation.rain import evaluate_spec, make_rain, read_metrics
from tests.publishing.tiny import publish_spec
from tidemill.artifacts.examples import Dataset
from tidemill.evaluation.evaluate import evaluate
from tidemill.experiment import parse
from tidemill.models import load_model
from tidemill.publishing.predict import predict
from tidemill.publishing.publish import publish
from tidemill.runtime import Progress
from tidemill.steps.predict import PredictSpec
from tidemill.steps.preprocess import PreprocessSpec
from tidemill.steps.train import TrainSpec
from tidemill.steps.validate import ValidateSpec
from tidemill.training.train import train
from tidemill.transform.preprocess import preprocess
from tidemill.validation.validate import validate

EXPERIMENT = """
name: rain
source: {tables: {t: t.parquet}}
label: late
key: [id]
features:
  city: {kind: categorical}
  x: {kind: numeric, transform: zscore}
  wet: {kind: categorical}
models:
  - {family: gbdt, rounds: 20, min_data_in_leaf: 20}
  - {family: dcn_v2, deep: [8], cross_layers: 1}
training: {epochs: 1, batch_size: 256, threads: 1}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Raw and transformed examples, and a model folder by family."""
    folder, experiment = tmp_path_factory.mktemp("trained"), parse(EXPERIMENT)
    world = make_rain(folder, {"train": 4000, "valid": 600, "test": 900})
    common = {"code": "test", "labels": ["late"], "key": ["id"], "features": experiment.features, "split_column": None}
    drift, leakage = experiment.validation.drift, experiment.validation.leakage
    validate_spec = ValidateSpec(
        **common, feature_columns=None, schema_text=None, drift=drift, leakage=leakage, previous=None
    )
    names = ("statistics", "schema", "anomalies", "report")
    paths = {name: str(folder / name) for name in names}
    validate(validate_spec, world.examples, **paths, progress=Progress("validate"))
    preprocess_spec = PreprocessSpec(**common, transform_module=None)
    graph, transformed = str(folder / "graph"), str(folder / "rows")
    preprocess(
        preprocess_spec,
        world.examples,
        paths["schema"],
        transform_graph=graph,
        transformed=transformed,
        progress=Progress("preprocess"),
    )
    models = {}
    for model in experiment.models:
        told = {"training": experiment.training, "labels": ["late"], "split": experiment.split}
        spec = TrainSpec(code="test", experiment=experiment.name, model=model, **told)
        models[model.family] = str(folder / model.family)
        where = {"root": str(folder / "root"), "model": models[model.family]}
        train(spec, world.examples, transformed, graph, **where, progress=Progress("train"))
    return world.examples, transformed, models, paths["statistics"]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gbdt", "dcn_v2"])
def test_a_trained_member_is_evaluated_published_and_scores_alike(tmp_path, trained, family):
    examples, transformed, models, statistics = trained
    model, root = models[family], str(tmp_path / "root")

    def run(name: str, baseline: str | None):
        return evaluate(
            evaluate_spec(baseline, slices=[["city"]], gates={"auc": {"better_than_baseline": 0.0}}),
            examples,
            transformed,
            model,
            evaluation=str(tmp_path / name),
            report=str(tmp_path / f"{name}.html"),
            progress=Progress("evaluate"),
        )

    assert run("first", None).blessed
    published = publish(publish_spec(), [model], [str(tmp_path / "first")], root=root, statistics=statistics)
    assert (Path(published.uri) / "tidemill" / "statistics" / "Split-train" / "FeatureStats.pb").is_file()

    against_itself = run("second", published.uri)
    gain = read_metrics(tmp_path / "second")["test"]["baseline"]["gain"]
    assert against_itself.blessed and all(abs(each["value"]) < 1e-5 for each in gain.values())

    spec = PredictSpec(
        code="test",
        experiment="rain",
        model=published.uri,
        key=["id"],
        columns=[],
        shards=3,
        batch_size=500,
        output=str(tmp_path / "predictions"),
    )
    predict(spec, examples, predictions=str(tmp_path / "predictions"), progress=Progress("predict"))
    out = pa.concat_tables(pq.read_table(p) for p in sorted((tmp_path / "predictions").glob("*.parquet")))
    data = Dataset(transformed)
    direct = np.concatenate([load_model(model).predict(data, split)[:, 0] for split in ("train", "valid", "test")])
    assert out["id"].to_pylist() == list(range(5500))
    assert np.abs(out["score"].to_numpy() - direct).max() <= 1e-6
