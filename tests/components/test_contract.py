"""Every step returns a result or raises a `TidemillError` on empty, one-row, one-class and all-null data.

Each step runs on the artifacts of the steps before it. If one of those rejects the data, it runs on the artifacts of
healthy rows. All failures are reported together.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest

from tests.shop import Workspace, shop_experiment, shop_rows
from tidemill.artifacts.examples import SPLITS, Dataset, DatasetWriter
from tidemill.errors import Code, TidemillError
from tidemill.experiment import load
from tidemill.planning import plan_training
from tidemill.runtime import Progress
from tidemill.steps.evaluate import EvaluateSpec
from tidemill.steps.ingest import IngestSpec
from tidemill.steps.predict import PredictSpec
from tidemill.steps.preprocess import PreprocessSpec
from tidemill.steps.publish import PublishSpec
from tidemill.steps.train import TrainSpec
from tidemill.steps.validate import ValidateSpec

pytestmark = pytest.mark.tensorflow

HEALTHY = shop_rows(600)


def _one_class(rows: pa.Table) -> pa.Table:
    return rows.set_column(4, "bought", pa.array(np.ones(rows.num_rows, dtype=np.int64)))


def _all_null(rows: pa.Table) -> pa.Table:
    nulls = {name: pa.nulls(rows.num_rows, rows.schema.field(name).type) for name in ("price", "site", "device")}
    for name, column in nulls.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    return rows


DATA = {
    "healthy": HEALTHY,
    "empty": HEALTHY.slice(0, 0),
    "one row": HEALTHY.slice(1, 1),
    "one class": _one_class(HEALTHY),
    "all null": _all_null(HEALTHY),
}


class Steps:
    """The steps of the shop experiment. Each reads its artifacts from a folder and writes its own there."""

    def __init__(self, folder):
        workspace = Workspace(folder)
        workspace.write(shop_experiment(), HEALTHY)
        self.root = str(folder / "root")
        self.experiment = load(workspace.file)
        self.published = ""

    def plan(self) -> dict[str, str]:
        return plan_training(self.experiment, self.root)

    def ingest(self, at):
        from tidemill.data.ingest import ingest

        spec = IngestSpec.model_validate_json(self.plan()["ingest"])
        names = {"examples": f"{at}/ingested", "quarantine": f"{at}/quarantine"}
        ingest(spec, self.root, **names, progress=Progress("ingest"))

    def validate(self, at):
        from tidemill.validation.validate import validate

        spec = ValidateSpec.model_validate_json(self.plan()["validate"])
        names = {name: f"{at}/{name}" for name in ("statistics", "schema", "anomalies", "report")}
        validate(spec, f"{at}/examples", **names, progress=Progress("validate"))

    def preprocess(self, at):
        from tidemill.transform.preprocess import preprocess

        spec = PreprocessSpec.model_validate_json(self.plan()["preprocess"])
        names = {name: f"{at}/{name}" for name in ("transform_graph", "transformed")}
        preprocess(spec, f"{at}/examples", f"{at}/schema", **names, progress=Progress("preprocess"))

    def _train(self, at, member):
        from tidemill.training.train import train

        spec = TrainSpec.model_validate_json(json.loads(self.plan()["members"])[member]["train"])
        inputs = [f"{at}/{name}" for name in ("examples", "transformed", "transform_graph")]
        train(spec, *inputs, root=self.root, model=f"{at}/model{member}", progress=Progress("train"))

    def train_dcn_v2(self, at):
        self._train(at, 0)

    def train_gbdt(self, at):
        self._train(at, 1)

    def evaluate(self, at):
        from tidemill.evaluation.evaluate import evaluate

        spec = EvaluateSpec.model_validate_json(json.loads(self.plan()["members"])[1]["evaluate"])
        inputs = [f"{at}/{name}" for name in ("examples", "transformed", "model1")]
        names = {"evaluation": f"{at}/evaluation", "report": f"{at}/report"}
        evaluate(spec, *inputs, **names, progress=Progress("evaluate"))

    def publish(self, at):
        from tidemill.publishing.publish import publish

        spec = PublishSpec.model_validate_json(self.plan()["publish"])
        summary = publish(spec, [f"{at}/model1"], [f"{at}/evaluation"], root=self.root, statistics=f"{at}/statistics")
        self.published = self.published or summary.uri

    def predict(self, at):
        from tidemill.publishing.predict import predict

        spec = PredictSpec(
            code="test",
            experiment="shop",
            model=self.published,
            key=["id"],
            columns=[],
            shards=2,
            batch_size=100,
            output=f"{at}/scored",
        )
        predict(spec, f"{at}/examples", predictions=f"{at}/scored", progress=Progress("predict"))


ORDER = ["ingest", "validate", "preprocess", "train_dcn_v2", "train_gbdt", "evaluate", "publish", "predict"]


def _examples(at, rows: pa.Table) -> None:
    """Writes all rows to each split. Ingest never writes such examples, and later steps must not rely on it."""
    with DatasetWriter(at / "examples", HEALTHY.schema) as writer:
        for split in SPLITS:
            writer.write(split, rows)


def test_every_step_accepts_or_rejects_degenerate_data(tmp_path):
    steps = Steps(tmp_path)
    healthy = tmp_path / "healthy"
    failures, rejected = [], {}
    for data, rows in DATA.items():
        at = tmp_path / data.replace(" ", "_")
        at.mkdir(exist_ok=True)
        _examples(at, rows)
        pa.csv.write_csv(rows, tmp_path / "rows.csv")
        for step in ORDER:
            before = {path.name for path in at.iterdir()}
            try:
                getattr(steps, step)(at)
            except TidemillError as error:
                rejected[data, step] = error.code
                left = {path.name for path in at.iterdir()} - before
                if any(name.endswith(".partial") for name in left):
                    failures.append(f"{step} on {data} data leaves {sorted(left)}")
            except Exception as error:
                failures.append(f"{step} on {data} data: {type(error).__name__}: {str(error)[:200]}")
            for path in healthy.iterdir():
                if not (at / path.name).exists():
                    copy = shutil.copytree if path.is_dir() else shutil.copy
                    copy(path, at / path.name)
            Dataset(at / "examples")  # raises if the step changed its input
    assert not failures, "\n".join(failures)
    assert not [step for data, step in rejected if data == "healthy"], rejected
    assert rejected["empty", "ingest"] is Code.EMPTY_INPUT
    assert rejected["one class", "ingest"] is Code.LABEL_ONE_CLASS
    assert rejected["all null", "preprocess"] is Code.FEATURE_ALL_NULL
    assert rejected["one class", "train_gbdt"] is rejected["one class", "train_dcn_v2"] is Code.LABEL_ONE_CLASS
    assert rejected["empty", "predict"] is Code.EMPTY_INPUT
