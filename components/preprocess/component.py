"""The component `preprocess`: runs TensorFlow Transform over the examples."""

from kfp import dsl
from tidemill.components import CPU_IMAGE, component


@component(CPU_IMAGE)
def preprocess(
    spec: str,
    root: str,
    examples: dsl.Input[dsl.Dataset],
    schema: dsl.Input[dsl.Artifact],
    transform_graph: dsl.Output[dsl.Artifact],
    transformed: dsl.Output[dsl.Dataset],
):
    """Analyzes the train split with TensorFlow Transform and transforms every split.

    Args:
        spec: URI of the spec with the features or the transform module, and the engine, from `plan_training`.
        root: URI of the folder for records of failures, and for the analyzer cache if
            `compute.preprocess.analyzer_cache` is set.
        examples: The examples of `ingest`.
        schema: The schema of `validate`.
        transform_graph: The transform graph in TFX's layout, which `tft.TFTransformOutput` loads.
        transformed: Parquet shards of each split, in row order. Ids are int32, numbers are float32.
    """
    from tidemill.runtime import step
    from tidemill.steps.preprocess import PreprocessSpec
    from tidemill.transform.preprocess import preprocess as run

    with step("preprocess", root=root, output=transformed.uri) as progress:
        summary = run(
            PreprocessSpec.read(spec),
            examples.path,
            schema.path,
            transform_graph=transform_graph.path,
            transformed=transformed.path,
            progress=progress,
            root=root,
        )
    transformed.metadata.update(
        fingerprint=summary.fingerprint, rows=summary.rows, features=summary.features, notes=summary.notes
    )
