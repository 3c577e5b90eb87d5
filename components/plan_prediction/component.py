"""The component `plan_prediction`: plans batch prediction."""

from kfp import dsl
from tidemill.components import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def plan_prediction(
    experiment: str,
    root: str,
    ingest: dsl.OutputPath(str),
    predict: dsl.OutputPath(str),
    model_version: str = "latest",
    output: str = "",
):
    """Turns an experiment into the specs of the prediction steps, and finds the published model.

    Do not cache this step. It notices changed source files and newer published models.

    Args:
        experiment: The experiment file's text, YAML or JSON, with the SQL and the transform module inline.
        root: URI of the folder for source records, models and predictions.
        model_version: Version of the published model, or `latest`.
        output: URI of the folder for the predictions. Empty: a new folder below `root`.
        ingest: Spec of `ingest`.
        predict: Spec of `predict`.
    """
    from pathlib import Path

    from tidemill.experiment import parse
    from tidemill.planning import plan_prediction as run
    from tidemill.runtime import step

    with step("plan_prediction"):
        specs = run(parse(experiment), root, model_version, output)
    Path(ingest).write_text(specs["ingest"], encoding="utf-8")
    Path(predict).write_text(specs["predict"], encoding="utf-8")
