"""The `publish` step: copies the best blessed model to the model store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from tidemill import version
from tidemill.steps.core.context import TrainingPlanContext, without_uris
from tidemill.steps.core.spec import StepCode, StepSpec

if TYPE_CHECKING:
    from tidemill.experiment import Experiment


CODE = StepCode("publish")


class PublishSpec(StepSpec):
    """The settings of one `publish` step."""

    step: Literal["publish"] = "publish"
    experiment: str
    run_fingerprint: str
    """Fingerprint of everything that decides the result: sources, specs and code."""
    objective: str
    lineage: dict[str, Any]
    """What planning knows of the lineage: experiment, source record's fingerprint, code versions and baseline."""


def plan(context: TrainingPlanContext, run_fingerprint: str, specs: Sequence[StepSpec]) -> PublishSpec:
    """Plans the step.

    Args:
        context: The planning context.
        run_fingerprint: Fingerprint of everything that decides the result.
        specs: Specs of the steps before this one. The lineage names their code.
    """
    experiment = context.experiment
    code = {spec.step: {"code": spec.code, "libraries": spec.libraries} for spec in specs}
    return PublishSpec(
        code=CODE.fingerprint(),
        libraries=CODE.versions(),
        experiment=experiment.name,
        run_fingerprint=run_fingerprint,
        objective=experiment.evaluation.objective,
        lineage={
            "experiment": _without_uris(experiment).model_dump(mode="json", by_alias=True, exclude_unset=True),
            "source_fingerprint": context.source_fingerprint,
            "code": {"version": version.__version__, "steps": code},
            "baseline": context.baseline,
        },
    )


def _without_uris(experiment: Experiment) -> Experiment:
    """Returns the experiment with sources that do not depend on where their files are."""
    changes: dict[str, Any] = {"source": without_uris(experiment.source)}
    if experiment.predict.source is not None:
        predict_source = without_uris(experiment.predict.source)
        changes["predict"] = experiment.predict.model_copy(update={"source": predict_source})
    return experiment.model_copy(update=changes)
