"""The pipeline `batch_predict`: scores rows with a published model."""

from typing import NamedTuple

from kfp import dsl
from tidemill.components.ingest.component import ingest
from tidemill.components.plan_prediction.component import plan_prediction
from tidemill.components.predict.component import predict
from tidemill.pipelines.nested.written_predictions.pipeline import written_predictions
from tidemill.pipelines.training_tasks import set_requests, set_small_requests


class BatchPredict(NamedTuple):
    """The outputs of `batch_predict`."""

    predictions: dsl.Dataset


@dsl.pipeline(name="tidemill-batch-predict")
def batch_predict(experiment: str, root: str, model_version: str = "latest", output: str = "") -> BatchPredict:
    """Scores the rows of the experiment's `predict.source` with a published model.

    Args:
        experiment: The experiment file's text. `tidemill validate --resolved FILE` prints it with its SQL inline.
        root: URI of the folder with the published models, for example gs://bucket/tidemill.
        model_version: Version of the model, or `latest`.
        output: URI of the folder for the predictions. Empty: a new folder below `root`.

    Returns:
        predictions: Parquet shards and a `_SUCCESS` manifest.
    """
    plan = plan_prediction(experiment=experiment, root=root, model_version=model_version, output=output)
    set_small_requests(plan.set_caching_options(False).set_display_name("Plan"))
    rows = ingest(spec=plan.outputs["ingest"], root=root).set_display_name("Ingest")
    set_requests(rows, plan, "ingest")
    scored = predict(spec=plan.outputs["predict"], root=root, examples=rows.outputs["examples"])
    set_requests(scored.set_display_name("Predict"), plan, "predict")
    predictions = written_predictions(uri=scored.outputs["uri"]).set_display_name("Predictions")
    return BatchPredict(predictions.outputs["predictions"])
