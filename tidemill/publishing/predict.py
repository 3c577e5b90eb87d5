"""The `predict` step: scores raw rows with a published model and writes Parquet shards.

Each shard has the key columns, other chosen columns, and the scores as float32: `score`, or `score_<label>` for each of
several labels. Without a key it has all columns, because only they say which row a score belongs to. Rows keep their
order. `_SUCCESS` is written last; it lists the model, the inputs and the shards.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tidemill import fingerprint, storage
from tidemill.artifacts import predictions as layout
from tidemill.artifacts.artifact import FileEntry
from tidemill.artifacts.examples import COMPRESSION, MALFORMED, ROW_GROUP_ROWS, SPLITS, Dataset
from tidemill.errors import Code, TidemillError
from tidemill.runtime import Progress
from tidemill.serving.scorer import Scorer
from tidemill.steps.predict import PredictSpec

_PUBLISH_ATTEMPTS = 5


@dataclass(frozen=True)
class PredictSummary:
    """The result of the step: the written predictions.

    Attributes:
        rows: Number of rows.
        shards: Number of Parquet files.
        uri: The folder.
        fingerprint: Of the content.
    """

    rows: int
    shards: int
    uri: str
    fingerprint: str


@dataclass(frozen=True)
class _PredictionRows:
    """The rows to score.

    Attributes:
        data: The examples.
        splits: The splits to score, in order.
        columns: Columns to copy into the predictions.
        count: Number of rows.
    """

    data: Dataset
    splits: list[str]
    columns: list[str]
    count: int


def predict(spec: PredictSpec, examples: str, *, progress: Progress, summary: str | None = None) -> PredictSummary:
    """Scores the split `predict` of the examples or, if there is no such split, all splits in order.

    If predictions of the same rows, model and settings exist at the URI, they are returned. Other predictions there are
    replaced. A folder with other files is refused.

    Args:
        spec: Model, key, columns to copy, number of shards, and the URI to write.
        examples: Folder of the raw examples.
        progress: Receives phases and rows.
        summary: File for a Markdown text about the predictions. Defaults to no text.

    Raises:
        TidemillError: `missing-column`, `feature-type`, `no-model`; `invalid-value` if the folder holds
            other files or a column has the name of a score.
    """
    rows = _rows(spec, Dataset(examples))
    _check_output(spec.output)
    progress.phase("load the model")
    with Scorer(spec.model) as scorer:
        scorer.check(list(rows.data.columns))
        _check_names(rows.columns, scorer)
        settings, malformed = json.loads(spec.model_dump_json()), rows.data.metadata.get(MALFORMED, {})
        inputs = fingerprint.of_json([settings, rows.data.fingerprint, malformed, scorer.fingerprint])
        manifest = layout.read(spec.output)
        if manifest is None or manifest["inputs"] != inputs:
            manifest = _score_all(spec, scorer, rows, inputs, progress)
    if summary is not None:
        text = f"{manifest['rows']:,} rows in {len(manifest['files'])} files at `{spec.output}`"
        counts = [f"{count:,} malformed rows of {name}" for name, count in malformed.items()]
        left_out = f"; {', '.join(counts)} are left out" if counts else ""
        storage.write_text(summary, f"{text}, scored by `{spec.model}`{left_out}\n")
    return PredictSummary(manifest["rows"], len(manifest["files"]), spec.output, manifest["fingerprint"])


def _rows(spec: PredictSpec, data: Dataset) -> _PredictionRows:
    splits = ["predict"] if "predict" in data.splits else [s for s in SPLITS if s in data.splits]
    count = sum(data.rows(split) for split in splits)
    columns = list(dict.fromkeys([*spec.key, *spec.columns] if spec.key else data.columns))
    if missing := [name for name in columns if name not in data.columns]:
        got = f"{', '.join(map(repr, missing))}, not among {', '.join(data.columns)}"
        raise TidemillError(Code.MISSING_COLUMN, "predict.columns", got, "name columns that the query returns")
    return _PredictionRows(data, splits, columns, count)


def _check_names(columns: Sequence[str], scorer: Scorer) -> None:
    if taken := next((name for name in scorer.outputs if name in columns), None):
        want = "rename the column in the query; the prediction uses this name"
        raise TidemillError(Code.INVALID_VALUE, "predict.columns", f"a column named {taken!r}", want)


def _check_output(uri: str) -> None:
    """Refuses a folder with files that no prediction wrote, because replacing the folder would remove them."""
    path = storage.local_path(uri)
    if path is not None and path.is_dir():
        names = [p.name for p in path.iterdir()]
    else:
        names = [storage.name_of(f.uri) for f in storage.list_files(storage.join(uri, "**"))]
    if foreign := sorted(name for name in names if not layout.is_own_file(name)):
        got = f"{uri!r}, which holds {foreign[0]!r} and is not a folder of predictions"
        raise TidemillError(Code.INVALID_VALUE, "output", got, "name a new folder or one with only predictions")


def _score_all(
    spec: PredictSpec, scorer: Scorer, rows: _PredictionRows, inputs: str, progress: Progress
) -> layout.PredictionsManifest:
    """Writes the shards into a temporary folder and publishes them."""
    target = storage.local_path(spec.output) or Path(tempfile.gettempdir(), "predictions")
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir(parents=True)
    try:
        scores = [pa.field(name, pa.float32()) for name in scorer.outputs]
        schema = pa.schema([*(rows.data.schema().field(name) for name in rows.columns), *scores]).remove_metadata()
        files = _write_shards(partial, _scored(spec, scorer, rows), schema, rows.count, spec.shards, progress)
        manifest: layout.PredictionsManifest = {
            "format": 1,
            "rows": rows.count,
            "malformed": rows.data.metadata.get(MALFORMED, {}),
            "columns": {field.name: str(field.type) for field in schema},
            "inputs": inputs,
            "uri": spec.output,
            "examples": rows.data.fingerprint,
            "model": {"uri": spec.model, "experiment": spec.experiment, "fingerprint": scorer.fingerprint},
            "fingerprint": fingerprint.of_json([[f.name, f.fingerprint] for f in files]),
            "files": [asdict(f) for f in files],
        }
        progress.phase("publish")
        existing = layout.read(spec.output)
        if existing is not None and existing["inputs"] == inputs:
            return existing  # by another run
        _publish(partial, manifest, spec.output)
    finally:
        storage.remove_folder(partial)
    return manifest


def _scored(spec: PredictSpec, scorer: Scorer, rows: _PredictionRows) -> Iterator[pa.Table]:
    """Yields the copied columns with their scores, batch by batch."""
    for split in rows.splits:
        for batch, scores in scorer.batches(rows.data, split, rows.columns, spec.batch_size):
            columns = [*(batch.column(name) for name in rows.columns), *(pa.array(column) for column in scores.T)]
            yield pa.Table.from_arrays(columns, [*rows.columns, *scorer.outputs])


def _write_shards(
    folder: Path, tables: Iterator[pa.Table], schema: pa.Schema, rows: int, shards: int, progress: Progress
) -> list[FileEntry]:
    """Writes the rows in order into files whose lengths differ by at most one row. A file may be empty."""
    entries, rest, done = [], schema.empty_table(), 0
    for shard in range(shards):
        path = folder / f"shard-{shard}"
        start, end = done, (shard + 1) * rows // shards
        with pq.ParquetWriter(path, schema, compression=COMPRESSION) as writer:
            while done < end:
                size = min(ROW_GROUP_ROWS, end - done)
                pending, pending_rows = [rest], rest.num_rows
                while pending_rows < size:
                    pending.append(next(tables).cast(schema))
                    pending_rows += pending[-1].num_rows
                table = pa.concat_tables(pending)
                writer.write_table(table.slice(0, size))
                rest, done = table.slice(size), done + size
                progress.rows(done, rows, "score")
        name = layout.shard_name(shard, shards, fingerprint.of_file(path))
        os.rename(path, folder / name)
        entries.append(FileEntry.of(folder, name, rows=end - start))
    return entries


def _publish(folder: Path, manifest: layout.PredictionsManifest, uri: str) -> None:
    """Moves the shards to their URI, in the place of what is there. On a local disk the whole folder is renamed."""
    target = storage.local_path(uri)
    if target is None:
        _publish_objects(folder, manifest, uri)
        return
    storage.write_json(folder / layout.SUCCESS, manifest)
    target.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            os.rename(folder, target)
            return
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        old = target.with_name(f".{target.name}.{uuid.uuid4().hex}.old")
        with contextlib.suppress(FileNotFoundError):  # another run replaces it at the same moment
            os.rename(target, old)
            storage.remove_folder(old)


def _publish_objects(folder: Path, manifest: layout.PredictionsManifest, uri: str) -> None:
    """Uploads the shards, `_SUCCESS` last. If several runs do so at the same moment, those of the last one stay."""
    names = [entry["name"] for entry in manifest["files"]]
    for _ in range(_PUBLISH_ATTEMPTS):
        storage.remove_folder(uri, first=layout.SUCCESS, keep=names)
        storage.upload_folder(folder, uri)
        storage.write_json(storage.join(uri, layout.SUCCESS), manifest)
        if layout.read(uri) == manifest or not _has_success(uri, manifest):
            return
        # Another run has removed shards of this one, or added its own, and has not written its `_SUCCESS` yet.
    got, want = f"{uri!r}, which other runs keep writing to", "give each run an output of its own"
    raise TidemillError(Code.INVALID_VALUE, "output", got, want)


def _has_success(uri: str, manifest: layout.PredictionsManifest) -> bool:
    try:
        return storage.read_json(storage.join(uri, layout.SUCCESS)) == manifest
    except FileNotFoundError:
        return False
