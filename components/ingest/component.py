"""The component `ingest`: reads tables, runs the query and writes examples."""

from kfp import dsl
from tidemill.components import CPU_IMAGE, component


@component(CPU_IMAGE)
def ingest(spec: str, root: str, examples: dsl.Output[dsl.Dataset], quarantine: dsl.Output[dsl.Artifact]):
    """Reads tables, runs the query over them and writes the rows as examples, divided into splits.

    Args:
        spec: URI of the spec with the source, the split and the columns, from `plan_training` or `plan_prediction`.
        root: URI of the folder that holds the source record, and records of failures.
        examples: Parquet shards of each split and a manifest.
        quarantine: The malformed rows, one JSON object per line with file, line and reason.
    """
    from tidemill.data.ingest import ingest as run
    from tidemill.runtime import step
    from tidemill.steps.ingest import IngestSpec

    with step("ingest", root=root, output=examples.uri) as progress:
        summary = run(
            IngestSpec.read(spec),
            root,
            examples=examples.path,
            quarantine=quarantine.path,
            progress=progress,
        )
    examples.metadata.update(fingerprint=summary.fingerprint, rows=summary.rows, bytes_read=summary.bytes_read)
    if summary.uneven:
        print(summary.uneven)
        examples.metadata["notes"] = {"split": [summary.uneven]}
    quarantine.metadata.update(rows=summary.quarantined)
