"""The ingest step: reads a source through its engine, checks the rows and writes examples.

Equal input produces byte-equal examples, unless the query uses random numbers or the clock, or sums floating-point
numbers over many rows: the last digit of such a sum depends on how threads share the work.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tidemill import fingerprint, storage
from tidemill.artifacts import model_columns
from tidemill.artifacts.examples import MALFORMED, NULL_WORDS, Dataset, DatasetWriter, finish_dataset
from tidemill.data.engines import engine_of
from tidemill.data.prefetch import prefetched
from tidemill.data.query_checks import SplitChecks, uneven_split
from tidemill.data.source_engine import ReadRequest, ResultColumns, SourceFacts, SourceRows
from tidemill.data.source_record import SourceRecord, load_record
from tidemill.runtime import Progress
from tidemill.steps.ingest import IngestSpec

_BATCHES_AHEAD = 4


@dataclass(frozen=True)
class IngestSummary:
    """The result of the step.

    Attributes:
        rows: Number of rows of each split.
        quarantined: Number of rows in the quarantine file.
        bytes_read: Size of the source files as stored, in bytes.
        fingerprint: Content fingerprint of the examples.
        uneven: A sentence if the shares of the splits are not the wanted ones, else an empty text.
    """

    rows: dict[str, int]
    quarantined: int
    bytes_read: int
    fingerprint: str
    uneven: str


def ingest(spec: IngestSpec, root: str, *, examples: str, quarantine: str, progress: Progress) -> IngestSummary:
    """Reads what the source record lists and writes examples.

    Memory does not grow with the number of rows. Temporary files are in a folder next to `examples`, which is removed.

    Args:
        spec: The settings. With the stage `predict`, all rows go to one split `predict` and no labels are checked.
        root: URI of the folder with the source record.
        examples: Path of the dataset to write.
        quarantine: Path of the JSON-lines file to write with the malformed rows, even if there are none or too many.
        progress: Receives phases and rows.

    Raises:
        TidemillError: one of `missing-file`, `source-changed`, `over-budget`, `unreadable-file`,
            `malformed-rows`, `sql-error`, `invalid-value`, `unsupported`, `missing-column`, `empty-input`,
            `label-null`, `label-type`, `label-one-class`, `duplicate-key`, `empty-split`, `feature-all-null`. Then no
            examples are written.
    """
    record = load_record(root, spec.source_fingerprint)
    engine = engine_of(spec.source.engine)
    engine.check_unchanged(record)
    work = Path(examples).with_name(Path(examples).name + ".work")
    storage.remove_folder(work)
    work.mkdir(parents=True)
    try:
        with engine.read(ReadRequest(spec, record, work, quarantine, progress)) as rows:
            _write(rows, spec, examples, progress)
    finally:
        storage.remove_folder(work)
    written = Dataset(examples)
    with open(quarantine, "rb") as file:
        quarantined = sum(1 for _ in file)
    counts = {name: written.rows(name) for name in written.splits}
    bytes_read = sum(file.bytes for file in record.files)
    uneven = uneven_split(spec.split, counts) if spec.stage == "train" else ""
    return IngestSummary(counts, quarantined, bytes_read, written.fingerprint, uneven)


def inspect(spec: IngestSpec, record: SourceRecord, progress: Progress, numbers: Sequence[str] = ()) -> ResultColumns:
    """Reads the tables as `ingest` does, and binds the query without running it.

    Labels and key are checked if one scan of one table gives their values, as without a query.

    Args:
        spec: The settings.
        record: The source record.
        progress: Receives phases.
        numbers: Columns that should be numbers. Defaults to none.

    Raises:
        TidemillError: As `ingest`, without what only the query's result shows.
    """
    with tempfile.TemporaryDirectory(prefix="tidemill-inspect-") as folder:
        request = ReadRequest(spec, record, Path(folder), str(Path(folder) / "quarantine"), progress)
        return engine_of(spec.source.engine).inspect(request, numbers)


def _write(rows: SourceRows, spec: IngestSpec, examples: str, progress: Progress) -> None:
    """Writes the examples, or adopts the shards that the engine writes itself."""
    exported = Path(examples).with_name(Path(examples).name + ".exported")
    storage.remove_folder(exported)
    exported.mkdir(parents=True)
    try:
        shards = rows.write_shards(exported)
        if shards is None:
            _write_batches(rows, spec, examples, progress)
        else:
            _adopt(rows, spec, exported, shards, progress)
            storage.remove_folder(Path(examples))
            exported.rename(examples)
    finally:
        storage.remove_folder(exported)


def _write_batches(rows: SourceRows, spec: IngestSpec, examples: str, progress: Progress) -> None:
    checks = SplitChecks(spec, rows.largest_group)
    metadata: dict[str, Any] = {}
    done, last = 0, None
    with DatasetWriter(examples, rows.schema, spec.splits, metadata) as writer:
        with contextlib.closing(prefetched(rows.batches(), _BATCHES_AHEAD)) as batches:
            for batch in batches:
                if (batch.split, batch.span) != last:
                    writer.cut(batch.split)
                last = batch.split, batch.span
                writer.write(batch.split, batch.rows)
                checks.add(batch.split, batch.rows)
                done += batch.rows.num_rows
                progress.rows(done, rows.total, "write")
        rows.check()
        checks.check()
        metadata.update(_metadata(spec, rows.facts()))


def _adopt(rows: SourceRows, spec: IngestSpec, folder: Path, shards: dict[str, list[str]], progress: Progress) -> None:
    """Checks shards that the engine has written, and writes their manifest."""
    progress.phase("check")
    checks = SplitChecks(spec, rows.largest_group)
    needed = list(dict.fromkeys([*(spec.columns or ()), *spec.labels]))
    for split, names in shards.items():
        for name in names:
            with pq.ParquetFile(folder / name) as file:
                for batch in file.iter_batches(columns=needed):
                    checks.add(split, batch)
    rows.check()
    checks.check()
    finish_dataset(folder, rows.schema, shards, _metadata(spec, rows.facts()))


def _metadata(spec: IngestSpec, facts: SourceFacts) -> dict[str, Any]:
    return {
        "labels": spec.labels,
        "key": spec.key,
        "source_fingerprint": spec.source_fingerprint,
        "spec_fingerprint": fingerprint.of_json(spec.model_dump(mode="json", by_alias=True)),
        "code": spec.code,
        NULL_WORDS: facts.null_words,
        MALFORMED: facts.malformed,
        model_columns.METADATA: facts.columns.model_dump(mode="json"),
    }
