"""The component `train`: trains one model and exports it for serving."""

from kfp import dsl
from tidemill.components import GPU_IMAGE, component


@component(GPU_IMAGE)
def train(
    spec: str,
    root: str,
    examples: dsl.Input[dsl.Dataset],
    transformed: dsl.Input[dsl.Dataset],
    transform_graph: dsl.Input[dsl.Artifact],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """Trains one model, exports it for serving, and checks that the export returns the scores of the trained model.

    Args:
        spec: URI of the spec with the family, the hyperparameters and the training settings, from `plan_training`.
        root: URI of the folder for checkpoints and records of failures.
        examples: The examples of `ingest`. The step replays some of them through the exported model.
        transformed: The transformed examples of `preprocess`.
        transform_graph: The transform graph of `preprocess`, which becomes part of the exported model.
        model: `model.keras` or `model.txt`, `model.json`, TensorBoard logs, and `Format-Serving/`, a SavedModel from
            raw rows to scores.
        metrics: Metrics on the valid split, the training speed, and the share of the time that training waited for
            checkpoints.
    """
    import json
    from pathlib import Path

    from tidemill.runtime import step
    from tidemill.steps.train import TrainSpec

    with step("train", root=root, output=model.uri) as progress:
        from tidemill.training.train import train as run

        summary = run(
            TrainSpec.read(spec),
            examples.path,
            transformed.path,
            transform_graph.path,
            root=root,
            model=model.path,
            progress=progress,
        )
    model.metadata.update(fingerprint=summary.fingerprint, name=summary.name, family=summary.family)
    values = {f"valid_{k}": v for k, v in summary.valid.items() if v is not None}
    values["rows_per_second"] = summary.rows_per_second
    values["checkpoint_blocked_share"] = round(summary.checkpoint_blocked_share, 4)
    if summary.input_share is not None:
        values["input_share"] = round(summary.input_share, 4)
    for name, value in values.items():
        metrics.log_metric(name, value)
    Path(metrics.path).write_text(json.dumps(values), encoding="utf-8")
