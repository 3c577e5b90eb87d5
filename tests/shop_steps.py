"""The steps of the shop experiment as functions, without a pipeline."""

from __future__ import annotations

import json
from pathlib import Path

from tests.shop import Workspace
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

ORDER = ["ingest", "validate", "preprocess", "train_dcn_v2", "train_gbdt", "evaluate", "publish", "predict"]
"""The methods of `ShopSteps` in the order of the pipeline."""


class ShopSteps:
    """The steps of a workspace's experiment. Each reads its artifacts from a folder and writes its own there.

    Args:
        workspace: The workspace with the experiment and its rows.
    """

    def __init__(self, workspace: Workspace):
        self.root = str(workspace.root)
        self.experiment = load(workspace.file)
        self.published = ""

    def plan(self) -> dict[str, str]:
        return plan_training(self.experiment, self.root)

    def ingest(self, at: Path, examples: str = "ingested") -> None:
        from tidemill.data.ingest import ingest

        spec = IngestSpec.read(self.plan()["ingest"])
        names = {"examples": f"{at}/{examples}", "quarantine": f"{at}/quarantine"}
        ingest(spec, self.root, **names, progress=Progress("ingest"))

    def validate(self, at: Path) -> None:
        from tidemill.validation.validate import validate

        spec = ValidateSpec.read(self.plan()["validate"])
        names = {name: f"{at}/{name}" for name in ("statistics", "schema", "anomalies", "report")}
        validate(spec, f"{at}/examples", **names, progress=Progress("validate"))

    def preprocess(self, at: Path) -> None:
        from tidemill.transform.preprocess import preprocess

        spec = PreprocessSpec.read(self.plan()["preprocess"])
        names = {name: f"{at}/{name}" for name in ("transform_graph", "transformed")}
        preprocess(spec, f"{at}/examples", f"{at}/schema", **names, progress=Progress("preprocess"))

    def _train(self, at: Path, member: int) -> None:
        from tidemill.training.train import train

        spec = TrainSpec.read(json.loads(self.plan()["members"])[member]["train"])
        inputs = [f"{at}/{name}" for name in ("examples", "transformed", "transform_graph")]
        train(spec, *inputs, root=self.root, model=f"{at}/model{member}", progress=Progress("train"))

    def train_dcn_v2(self, at: Path) -> None:
        self._train(at, 0)

    def train_gbdt(self, at: Path) -> None:
        self._train(at, 1)

    def evaluate(self, at: Path) -> None:
        from tidemill.evaluation.evaluate import evaluate

        spec = EvaluateSpec.read(json.loads(self.plan()["members"])[1]["evaluate"])
        inputs = [f"{at}/{name}" for name in ("examples", "transformed", "model1")]
        names = {"evaluation": f"{at}/evaluation", "report": f"{at}/report"}
        evaluate(spec, *inputs, **names, progress=Progress("evaluate"))

    def publish(self, at: Path) -> None:
        from tidemill.publishing.publish import publish

        spec = PublishSpec.read(self.plan()["publish"])
        summary = publish(spec, [f"{at}/model1"], [f"{at}/evaluation"], root=self.root, statistics=f"{at}/statistics")
        self.published = self.published or summary.uri

    def predict(self, at: Path) -> None:
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
        predict(spec, f"{at}/examples", progress=Progress("predict"))
