"""The component `ensemble`: combines the models of folds and members into one model."""

from kfp import dsl
from tidemill.components import GPU_IMAGE, component


@component(GPU_IMAGE)
def ensemble(
    spec: str,
    root: str,
    models: dsl.Input[dsl.Artifact],
    examples: dsl.Input[dsl.Dataset],
    transformed: dsl.Input[dsl.Dataset],
    transform_graph: dsl.Input[dsl.Artifact],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
):
    """Combines the models of folds and members into one model, exports it for serving, and compares the members.

    Args:
        spec: URI of the spec with the members and the method, from `plan_training`.
        root: URI of the folder for records of failures.
        models: The models of `pack_models`, one for each member and fold. Models of other members are ignored.
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
    from tidemill.ensembling.pack import packed_models
    from tidemill.runtime import step
    from tidemill.steps.ensemble import EnsembleSpec

    with step("ensemble", root=root, output=model.uri, reports={"report.html": report.path}) as progress:
        summary = run(
            EnsembleSpec.read(spec),
            packed_models(models.path),
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
