"""The `ingest` step: reads tables, runs the query and writes examples."""

from __future__ import annotations

from typing import Literal

from tidemill.experiment.source import Source, Split
from tidemill.section import Column, Section


class SourceFile(Section):
    """One raw input file as planning saw it."""

    table: str
    """The table that the file belongs to."""
    uri: str
    """URI of the file, without glob characters. `pkg://` URIs and zip members keep their form."""
    bytes: int
    """Size as stored, in bytes."""
    version: str
    """The file's content version: a content fingerprint for local files, the generation for `gs://` objects."""


class SourceRecord(Section):
    """The raw input of a run. Kept at `ROOT/sources/<fingerprint>.json`, so that the run can be recomputed."""

    fingerprint: str
    files: list[SourceFile]


class IngestSpec(Section):
    """The settings of one `ingest` step."""

    code: str
    stage: Literal["train", "predict"]
    """`predict` needs no labels and writes all rows to one split named `predict`."""
    source: Source
    """The source with empty URIs. The step takes the files from the source record, so the key stays the same when the
    same bytes move to another URI."""
    source_fingerprint: str
    labels: list[Column]
    """Empty for `predict`."""
    key: list[Column]
    columns: list[Column] | None
    """Columns that the query must return. None: a transform module decides."""
    split: Split
    schema_text: str | None
    """The given schema as a text protocol buffer."""
