"""The component `plan_prediction`: plans batch prediction."""

from kfp import dsl
from tidemill.components import CPU_IMAGE, component


@component(CPU_IMAGE)
def plan_prediction(
    experiment: str,
    root: str,
    ingest: dsl.OutputPath(str),
    predict: dsl.OutputPath(str),
    ingest_cpu: dsl.OutputPath(str),
    ingest_memory: dsl.OutputPath(str),
    predict_cpu: dsl.OutputPath(str),
    predict_memory: dsl.OutputPath(str),
    summary: dsl.Output[dsl.Markdown],
    model_version: str = "latest",
    output: str = "",
):
    """Turns an experiment into the specs of the prediction steps, and finds the published model.

    Do not cache this step. It notices changed source files and newer published models.

    Args:
        experiment: The experiment file's text, YAML or JSON, with the SQL and the transform module inline.
        root: URI of the folder for source records, specs, models, predictions and records of failures.
        model_version: Version of the published model, or `latest`.
        output: URI of the folder for the predictions. Empty: a new folder below `root`.
        ingest: URI of the spec of `ingest`.
        predict: URI of the spec of `predict`.
        ingest_cpu: CPU cores of `ingest`.
        ingest_memory: Memory of `ingest`.
        predict_cpu: CPU cores of `predict`.
        predict_memory: Memory of `predict`.
        summary: What was planned: the source, the model and where the specs are.
    """
    from pathlib import Path

    from tidemill.experiment import parse
    from tidemill.planning import plan_prediction as run
    from tidemill.runtime import step

    with step("plan_prediction", root=root, output=summary.uri):
        specs = run(parse(experiment), root, model_version, output)
    paths = {"ingest": ingest, "predict": predict, "summary": summary.path}
    paths |= {"ingest_cpu": ingest_cpu, "ingest_memory": ingest_memory}
    paths |= {"predict_cpu": predict_cpu, "predict_memory": predict_memory}
    for name, path in paths.items():
        Path(path).write_text(specs[name], encoding="utf-8")
