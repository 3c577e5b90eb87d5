"""The `ensemble` step: combines the models of folds and members into one model."""

from __future__ import annotations

from typing import Literal

from tidemill.experiment.training import Ensemble
from tidemill.section import Column
from tidemill.steps.core.context import TrainingPlanContext
from tidemill.steps.core.spec import StepCode, StepSpec

CODE = StepCode(
    "ensemble",
    libraries=("numpy", "pyarrow", "scikit-learn", "scipy", "tensorflow", "tensorflow-transform"),
)


class EnsembleSpec(StepSpec):
    """The settings of one `ensemble` step."""

    step: Literal["ensemble"] = "ensemble"
    name: str
    """The ensemble's name in reports."""
    members: list[str]
    """Names of the members to combine."""
    folds: int
    """Number of models of each member."""
    label: Column
    """The label. An ensemble predicts only one."""
    ensemble: Ensemble


def plan(context: TrainingPlanContext) -> list[EnsembleSpec]:
    """Plans one step for each member, which combines the models of its folds, and one step that combines all members.

    A single member has no step that combines all. Several labels have no ensembles.
    """
    label, *others = context.labels
    if others:
        return []
    experiment = context.experiment

    def spec(name: str, members: list[str], method: Literal["mean", "rank_mean", "stack"]) -> EnsembleSpec:
        return EnsembleSpec(
            code=CODE.fingerprint(),
            libraries=CODE.versions(
                *(library for model in experiment.models if model.name in members for library in model.libraries)
            ),
            name=name,
            members=members,
            folds=context.folds,
            label=label,
            ensemble=Ensemble(method=method),
        )

    names = [model.name for model in experiment.models]
    of_folds = [spec(name, [name], "mean") for name in names]
    if len(names) == 1:
        return of_folds
    method = experiment.ensemble.method or ("mean" if experiment.split.by == "time" else "stack")
    return [*of_folds, spec("ensemble" if "ensemble" not in names else "all", names, method)]
