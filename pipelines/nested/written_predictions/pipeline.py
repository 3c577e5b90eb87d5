"""The nested pipeline `written_predictions`: an artifact of predictions."""

from typing import NamedTuple

from kfp import dsl


class WrittenPredictions(NamedTuple):
    """The outputs of `written_predictions`."""

    predictions: dsl.Dataset


@dsl.pipeline(name="tidemill-written-predictions")
def written_predictions(uri: str) -> WrittenPredictions:
    """Makes an artifact of written predictions, without a copy of their files.

    Kubeflow finds the URI of an import only among the parameters of the pipeline around it, hence this pipeline.

    Args:
        uri: The output `uri` of `predict`.

    Returns:
        predictions: Parquet shards and a `_SUCCESS` manifest.
    """
    imported = dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset, reimport=True)
    return WrittenPredictions(imported.output)
