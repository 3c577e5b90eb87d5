"""The `evaluate` step: measures one model and applies the gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tidemill.experiment.evaluation import Evaluation
from tidemill.section import Column, Labels
from tidemill.steps.core.context import TrainingPlanContext
from tidemill.steps.core.spec import StepCode, StepSpec

CODE = StepCode("evaluate", libraries=("numpy", "pyarrow", "scipy", "tensorflow", "tensorflow-transform"))


class EvaluateSpec(StepSpec):
    """The settings of one `evaluate` step."""

    step: Literal["evaluate"] = "evaluate"
    experiment: str
    """The experiment's name."""
    labels: Labels
    key: list[Column]
    evaluation: Evaluation
    baseline: str | None
    """URI of the published model to compare with."""


def plan(context: TrainingPlanContext, members: Sequence[str]) -> EvaluateSpec:
    """Plans the step for one model.

    Args:
        context: The planning context.
        members: Names of the members that the model consists of. Their libraries score the rows.
    """
    experiment = context.experiment
    families = [model for model in experiment.models if model.name in members]
    return EvaluateSpec(
        code=CODE.fingerprint(),
        libraries=CODE.versions(*(library for family in families for library in family.libraries)),
        experiment=experiment.name,
        labels=context.labels,
        key=experiment.key,
        evaluation=experiment.evaluation,
        baseline=context.baseline,
    )
