"""The `train` step: trains one model and exports it for serving."""

from __future__ import annotations

from typing import Literal

from tidemill.experiment.models import MemberConfig
from tidemill.experiment.source import Split
from tidemill.experiment.training import Training
from tidemill.section import Column, Labels, Section
from tidemill.steps.core.context import TrainingPlanContext
from tidemill.steps.core.spec import StepCode, StepSpec

CODE = StepCode("train", libraries=("numpy", "pyarrow", "scipy", "tensorflow", "tensorflow-transform"))


class Fold(Section):
    """The part of the train split that one training run leaves out and scores."""

    index: int
    """Number of this fold, from 0."""
    of: int
    """Number of folds."""
    column: Column | None
    """Raw column whose equal values stay in one fold. None: each row is assigned by itself."""
    seed: int


class TrainSpec(StepSpec):
    """The settings of one `train` step."""

    step: Literal["train"] = "train"
    experiment: str
    """The experiment's name, which is the name of the folder with its logs."""
    model: MemberConfig
    training: Training
    """The section `training`, without `folds`. Its `retries` and `checkpoint_*` rerun the step but do not change the
    result."""
    labels: Labels
    split: Split
    fold: Fold | None = None


def plan(context: TrainingPlanContext) -> list[TrainSpec]:
    """Plans one step for each member."""
    return [_plan_member(context, model) for model in context.experiment.models]


def _plan_member(context: TrainingPlanContext, model: MemberConfig) -> TrainSpec:
    experiment = context.experiment
    # A fold has its own section, and a step without one does not read this setting.
    training = experiment.training_of(model).model_copy(update={"folds": None})
    if training.warm_start == "previous":
        training = training.model_copy(update={"warm_start": context.warm_start})
    return TrainSpec(
        code=CODE.fingerprint(),
        libraries=CODE.versions(*model.libraries, *(("jax", "jaxlib") if training.backend == "jax" else ())),
        experiment=experiment.name,
        model=model.model_copy(update={"training": {}}),
        training=training,
        labels=context.labels,
        split=experiment.split,
    )


def plan_folds(context: TrainingPlanContext) -> list[TrainSpec]:
    """Plans one step for each member and fold. Plans none if there are several labels: they have no cross-validation.

    Rows that the split keeps together are in one fold.
    """
    if len(context.labels) > 1:
        return []
    split, number = context.experiment.split, context.folds
    column = split.column if split.by == "hash" else None
    seed = context.experiment.training.seed
    folds = [Fold(index=index, of=number, column=column, seed=seed) for index in range(number)]
    return [spec.model_copy(update={"fold": fold}) for spec in plan(context) for fold in folds]
