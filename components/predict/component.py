"""The component `predict`: scores rows with a published model."""

from kfp import dsl
from tidemill.components import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def predict(spec: str, examples: dsl.Input[dsl.Dataset], predictions: dsl.Output[dsl.Dataset]):
    """Scores raw rows with a published model, and writes the key columns and a score for each label.

    Args:
        spec: Spec with the model, the columns and the output folder, from `plan_prediction`.
        examples: The examples of `ingest`.
        predictions: Parquet shards and a `_SUCCESS` manifest.
    """
    from tidemill.publishing.predict import predict as run
    from tidemill.runtime import step
    from tidemill.steps.predict import PredictSpec

    with step("predict") as progress:
        summary = run(
            PredictSpec.model_validate_json(spec),
            examples.path,
            predictions=predictions.path,
            progress=progress,
        )
    predictions.uri = summary.uri
    predictions.metadata.update(
        kind="predictions", fingerprint=summary.fingerprint, rows=summary.rows, shards=summary.shards
    )
