"""The nested pipeline `published_model`: an artifact of a published version."""

from typing import NamedTuple

from kfp import dsl


class PublishedVersion(NamedTuple):
    """The outputs of `published_model`."""

    model: dsl.Model


@dsl.pipeline(name="tidemill-published-model")
def published_model(uri: str) -> PublishedVersion:
    """Makes an artifact of a published version, without a copy of its files.

    Kubeflow finds the URI of an import only among the parameters of the pipeline around it, hence this pipeline.

    Args:
        uri: The output `uri` of `publish`.

    Returns:
        model: The published version: a SavedModel, and `tidemill/` with its lineage.
    """
    imported = dsl.importer(artifact_uri=uri, artifact_class=dsl.Model, reimport=False)
    return PublishedVersion(imported.output)
