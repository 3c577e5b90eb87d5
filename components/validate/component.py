"""The component `validate`: computes statistics and checks schema, drift and leakage."""

from kfp import dsl
from tidemill.components import CPU_IMAGE, component


@component(CPU_IMAGE)
def validate(
    spec: str,
    root: str,
    examples: dsl.Input[dsl.Dataset],
    statistics: dsl.Output[dsl.Artifact],
    schema: dsl.Output[dsl.Artifact],
    anomalies: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
):
    """Computes statistics of every split, and fails on schema anomalies, leakage, drift and unseen values.

    Args:
        spec: URI of the spec with the checks, from `plan_training`.
        root: URI of the folder for records of failures. A failed gate leaves the page and the anomalies there.
        examples: The examples of `ingest`.
        statistics: `Split-*/FeatureStats.pb` in the format of TensorFlow Data Validation.
        schema: Only `schema.pbtxt`: the given schema, or the schema inferred from the train split.
        anomalies: `Split-*/SchemaDiff.pb` in the format of TensorFlow Data Validation, and a readable `anomalies.json`.
        report: HTML page with the distributions.
    """
    from tidemill.runtime import step
    from tidemill.steps.validate import ValidateSpec
    from tidemill.validation.validate import validate as run

    reports = {"report.html": report.path, "anomalies": anomalies.path}
    with step("validate", root=root, output=report.uri, reports=reports) as progress:
        summary = run(
            ValidateSpec.read(spec),
            examples.path,
            statistics=statistics.path,
            schema=schema.path,
            anomalies=anomalies.path,
            report=report.path,
            progress=progress,
        )
    schema.metadata.update(fingerprint=summary.fingerprint)
    anomalies.metadata.update(count=summary.anomalies, drifted=summary.drifted, strongest=summary.strongest)
    anomalies.metadata.update(unseen=summary.unseen, outliers=summary.outliers, notes=summary.notes)
