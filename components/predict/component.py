"""The component `predict`: scores rows with a published model."""

from kfp import dsl
from tidemill.components import CPU_IMAGE, component


@component(CPU_IMAGE)
def predict(
    spec: str,
    root: str,
    examples: dsl.Input[dsl.Dataset],
    uri: dsl.OutputPath(str),
    summary: dsl.Output[dsl.Markdown],
):
    """Scores raw rows with a published model, and writes the key columns and a score for each label. Without
    a key, it writes all columns.

    Args:
        spec: URI of the spec with the model, the columns and the output folder, from `plan_prediction`.
        root: URI of the folder for records of failures.
        examples: The examples of `ingest`.
        uri: URI of the folder with Parquet shards and a `_SUCCESS` manifest. The nested pipeline `written_predictions`
            turns it into an artifact.
        summary: The number of rows, the model, and where the predictions are.
    """
    from pathlib import Path

    from tidemill.publishing.predict import predict as run
    from tidemill.runtime import step
    from tidemill.steps.predict import PredictSpec

    with step("predict", root=root, output=summary.uri) as progress:
        result = run(PredictSpec.read(spec), examples.path, summary=summary.path, progress=progress)
    Path(uri).write_text(result.uri, encoding="utf-8")
    summary.metadata.update(fingerprint=result.fingerprint, rows=result.rows, shards=result.shards)
