"""The component `evaluate`: measures one model and applies the gates."""

from kfp import dsl
from tidemill.components import CPU_IMAGE, component


@component(CPU_IMAGE)
def evaluate(
    spec: str,
    root: str,
    examples: dsl.Input[dsl.Dataset],
    transformed: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
):
    """Measures a model on the test split, overall and by slice, and blesses it if it passes the gates.

    Args:
        spec: URI of the spec with the slices, the gates and the baseline, from `plan_training`.
        root: URI of the folder for records of failures.
        examples: The examples of `ingest`. They hold the slice columns and the rows that the baseline scores.
        transformed: The transformed examples of `preprocess`.
        model: The model of `train` or `ensemble`.
        evaluation: `metrics.json`, and `BLESSED` or `NOT_BLESSED` with the reasons.
        metrics: Metrics on the test split. For several labels, those of each label and their means.
        classification: ROC curve and confusion matrix on the test split. Empty for several labels.
        report: HTML page with metrics and plots.
    """
    import json
    from pathlib import Path

    from tidemill.evaluation.evaluate import evaluate as run
    from tidemill.runtime import step
    from tidemill.steps.evaluate import EvaluateSpec

    with step("evaluate", root=root, output=evaluation.uri, reports={"report.html": report.path}) as progress:
        summary = run(
            EvaluateSpec.read(spec),
            examples.path,
            transformed.path,
            model.path,
            evaluation=evaluation.path,
            report=report.path,
            progress=progress,
        )
    evaluation.metadata.update(
        kind="evaluation", fingerprint=summary.fingerprint, blessed=summary.blessed, reasons=summary.reasons
    )
    values = {name: value for name, value in summary.metrics.items() if value is not None}
    for name, value in values.items():
        metrics.log_metric(name, value)
    Path(metrics.path).write_text(json.dumps(values), encoding="utf-8")
    if summary.roc:
        fpr, tpr, thresholds = zip(*summary.roc, strict=True)
        classification.log_roc_curve(list(fpr), list(tpr), list(thresholds))
    if summary.confusion:
        classification.log_confusion_matrix(["0", "1"], summary.confusion)
    Path(classification.path).write_text(json.dumps(classification.metadata), encoding="utf-8")
