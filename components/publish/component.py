"""The component `publish`: copies the best blessed model to the model store."""

from typing import List  # noqa: UP035 - kfp reads the annotation by this name

from kfp import dsl
from tidemill.components import CPU_IMAGE, component


@component(CPU_IMAGE)
def publish(
    spec: str,
    root: str,
    models: dsl.Input[List[dsl.Model]],  # noqa: UP006
    evaluations: dsl.Input[List[dsl.Artifact]],  # noqa: UP006
    statistics: dsl.Input[dsl.Artifact],
    uri: dsl.OutputPath(str),
    leaderboard: dsl.Output[dsl.HTML],
):
    """Copies the best blessed model and its lineage to the model store. Fails if no model is blessed.

    Args:
        spec: URI of the spec with the name, the objective and the lineage, from `plan_training`.
        root: URI of the folder that holds the model store, and records of failures. The version is
            `root/models/<name>/<version>/`.
        models: The models of `train` or `ensemble`.
        evaluations: The evaluations of these models, in any order.
        statistics: The statistics of `validate`, kept for later comparisons.
        uri: URI of the published version. The nested pipeline `published_model` turns it into an artifact.
        leaderboard: HTML page that ranks the models.
    """
    from pathlib import Path

    from tidemill.publishing.publish import publish as run
    from tidemill.runtime import step
    from tidemill.steps.publish import PublishSpec

    with step("publish", root=root, output=leaderboard.uri, reports={"leaderboard.html": leaderboard.path}):
        summary = run(
            PublishSpec.read(spec),
            [model.path for model in models],
            [evaluation.path for evaluation in evaluations],
            root=root,
            publisher=leaderboard.uri,
            statistics=statistics.path,
            report=leaderboard.path,
        )
    Path(uri).write_text(summary.uri, encoding="utf-8")
