"""The `predict` step: scores rows with a published model."""

from __future__ import annotations

from typing import Literal

from tidemill.section import Column
from tidemill.steps.core.context import PredictionPlanContext
from tidemill.steps.core.spec import StepCode, StepSpec

CODE = StepCode("predict", libraries=("numpy", "pyarrow", "tensorflow"))


class PredictSpec(StepSpec):
    """The settings of one `predict` step."""

    step: Literal["predict"] = "predict"
    experiment: str
    model: str
    """URI of the published version, `…/<name>/<version>`."""
    key: list[Column]
    columns: list[Column]
    """Raw columns to copy into the predictions, besides the key."""
    shards: int
    batch_size: int
    output: str
    """URI of the folder to write."""


def plan(context: PredictionPlanContext, output: str) -> PredictSpec:
    """Plans the step.

    Args:
        context: The planning context.
        output: URI of the folder to write.
    """
    experiment = context.experiment
    return PredictSpec(
        code=CODE.fingerprint(),
        libraries=CODE.versions(),
        experiment=experiment.name,
        model=context.model,
        key=experiment.key,
        columns=experiment.predict.columns,
        shards=experiment.predict.shards,
        batch_size=experiment.predict.batch_size,
        output=output,
    )
