"""The component `publish`: copies the best blessed model to the model store."""

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
    """Copies the best blessed model and its lineage to the model store. Fails if no model is blessed.

    Args:
        spec: Spec with the name, the objective and the lineage, from `plan_training`.
        root: URI of the folder that holds the model store. The version is `root/models/<name>/<version>/`.
        models: The models of `train` or `ensemble`.
        evaluations: The evaluations of these models, in any order.
        statistics: The statistics of `validate`, kept for later comparisons.
        published: The published version.
        leaderboard: HTML page that ranks the models.
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
    published.metadata.update(kind="published-model", version=summary.version, name=summary.name, family=summary.family)
