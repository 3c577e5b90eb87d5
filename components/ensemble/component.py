"""The component `ensemble`: combines the models of folds and members into one model."""

from typing import List  # noqa: UP035 - kfp reads the annotation by this name

from kfp import dsl
from tidemill.components import GPU_IMAGE


@dsl.component(base_image=GPU_IMAGE, install_kfp_package=False)
def ensemble(
    spec: str,
    models: dsl.Input[List[dsl.Model]],  # noqa: UP006
    examples: dsl.Input[dsl.Dataset],
    transformed: dsl.Input[dsl.Dataset],
    transform_graph: dsl.Input[dsl.Artifact],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
):
    """Combines the models of folds and members into one model, exports it for serving, and compares the members.

    Args:
        spec: Spec with the members and the method, from `plan_training`.
        models: The models of `train`, one for each member and fold, in any order. Models of other members are ignored.
        examples: The examples of `ingest`. The step replays some of them through the exported model.
        transformed: The transformed examples of `preprocess`.
        transform_graph: The transform graph of `preprocess`, which becomes part of the exported model.
        model: A model with the layout of `train`'s, and the members' models below `members/`.
        metrics: Metrics on the valid split, and out-of-fold metrics on the train split.
        report: HTML page that compares the members over folds.
    """
    import json
    from pathlib import Path

    from tidemill.ensembling.ensemble import ensemble as run
    from tidemill.runtime import step
    from tidemill.steps.ensemble import EnsembleSpec

    with step("ensemble") as progress:
        summary = run(
            EnsembleSpec.model_validate_json(spec),
            [each.path for each in models],
            examples.path,
            transformed.path,
            transform_graph.path,
            model=model.path,
            report=report.path,
            progress=progress,
        )
    model.metadata.update(fingerprint=summary.fingerprint, name=summary.name, family="ensemble")
    values = {f"valid_{k}": v for k, v in summary.valid.items()}
    values |= {f"out_of_fold_{k}": v for k, v in summary.out_of_fold.items()}
    for name, value in values.items():
        metrics.log_metric(name, value)
    Path(metrics.path).write_text(json.dumps(values), encoding="utf-8")
