"""Publishes the best blessed member."""

from typing import List  # noqa: UP035 - kfp reads the annotation by this name

from kfp import dsl
from tidemill.components import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def publish(
    spec: str,
    root: str,
    models: dsl.Input[List[dsl.Model]],  # noqa: UP006
    evaluations: dsl.Input[List[dsl.Artifact]],  # noqa: UP006
    statistics: dsl.Input[dsl.Artifact],
    published: dsl.Output[dsl.Model],
    leaderboard: dsl.Output[dsl.HTML],
):
    """Puts the best blessed model into the model store, as a whole, with its lineage. Fails when none is blessed.

    Args:
        spec: Name, objective and lineage, from `plan_training`.
        root: URI of the folder below which models are published: `root/models/<name>/<version>/`.
        models: The models of `train`.
        evaluations: The evaluations of these models, in any order.
        statistics: The statistics of `validate`, kept for later comparisons.
        published: The published version.
        leaderboard: A page with all members.
    """
    from tidemill.publishing.publish import publish as run
    from tidemill.runtime import step
    from tidemill.steps.publish import PublishSpec

    with step("publish"):
        summary = run(
            PublishSpec.model_validate_json(spec),
            [model.path for model in models],
            [evaluation.path for evaluation in evaluations],
            root=root,
            statistics=statistics.path,
            report=leaderboard.path,
        )
    published.uri = summary.uri
    published.metadata.update(version=summary.version, name=summary.name, family=summary.family)
