"""The `predict` step: raw rows in, Parquet shards with the key and scores out.

    part-00000-of-00004.parquet …    key columns, further columns, score (float32; of several labels score_<label> for
                                     each), in the order of the rows
    _SUCCESS                         JSON, written last: what scored what, and each file's rows, bytes, fingerprint

The predictions lie at the URI that the spec names. The step's artifact is that folder; where the orchestrator gives it
another path, a folder with a copy of `_SUCCESS` is left there, which names the URI.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tidemill import fingerprint, storage
from tidemill.artifacts.artifact import FileEntry
from tidemill.artifacts.examples import COMPRESSION, ROW_GROUP_ROWS, SPLITS, Dataset
from tidemill.errors import Code, TidemillError
from tidemill.runtime import Progress
from tidemill.serving.scorer import Scorer
from tidemill.steps.predict import PredictSpec

SUCCESS = "_SUCCESS"
_OWN_FILE = re.compile(r"_SUCCESS|part-\d+-of-\d+\.parquet")


@dataclass(frozen=True)
class PredictSummary:
    """What was written.

    Attributes:
        rows: Number of rows.
        shards: Number of Parquet files.
        uri: The folder.
        fingerprint: Of the predictions' content.
    """

    rows: int
    shards: int
    uri: str
    fingerprint: str


def predict(spec: PredictSpec, examples: str, *, predictions: str, progress: Progress) -> PredictSummary:
    """Scores the split `predict` of the examples, or all splits in order where there is none.

    The same rows, model and settings again return the predictions that are there. Other predictions at the same URI are
    replaced; a folder that holds anything else is refused.

    Args:
        spec: Model, key, further columns, shards, and where to write.
        examples: Folder of the raw examples.
        predictions: The artifact's path; see the module.
        progress: Where to report.

    Raises:
        TidemillError: `empty-input`, `missing-column`, `feature-type`, `no-model`, or `invalid-value` where the folder
            to write holds other files, or a column is called like a score.
    """
    data = Dataset(examples)
    splits = ["predict"] if "predict" in data.splits else [s for s in SPLITS if s in data.splits]
    rows = sum(data.rows(split) for split in splits)
    if not rows:
        raise TidemillError(Code.EMPTY_INPUT, "predict.source", "no rows", "give at least one row to score")
    carried = _carried(spec, data)
    _check_output(spec.output)
    progress.phase("load the model")
    with Scorer(spec.model) as scorer:
        scorer.check(list(data.columns))
        _check_names(carried, scorer)
        inputs = fingerprint.of_json([json.loads(spec.model_dump_json()), data.fingerprint, scorer.fingerprint])
        manifest = _finished(spec.output, inputs)
        if manifest is None:
            facts = {"inputs": inputs, "uri": spec.output, "examples": data.fingerprint}
            facts["model"] = {"uri": spec.model, "experiment": spec.experiment, "fingerprint": scorer.fingerprint}
            manifest = _score_all(spec, scorer, data, splits, carried, rows, facts, predictions, progress)
    _leave_pointer(manifest, spec.output, predictions)
    return PredictSummary(manifest["rows"], len(manifest["files"]), spec.output, manifest["fingerprint"])


def _carried(spec: PredictSpec, data: Dataset) -> list[str]:
    names = list(dict.fromkeys([*spec.key, *spec.columns]))
    if missing := [name for name in names if name not in data.columns]:
        got = f"{', '.join(map(repr, missing))}, not among {', '.join(data.columns)}"
        raise TidemillError(Code.MISSING_COLUMN, "predict.columns", got, "name columns that the query returns")
    return names


def _check_names(carried: list[str], scorer: Scorer) -> None:
    if taken := next((name for name in scorer.outputs if name in carried), None):
        want = "rename the column in the query; the prediction takes this name"
        raise TidemillError(Code.INVALID_VALUE, "predict.columns", f"a column called {taken!r}", want)


def _check_output(uri: str) -> None:
    """Refuses a folder with files that no prediction wrote, because replacing it would remove them."""
    path = storage.local_path(uri)
    if path is not None and path.is_dir():
        names = [p.name for p in path.iterdir()]
    else:
        names = [f.uri.rsplit("/", 1)[-1] for f in storage.list_files(storage.join(uri, "**"))]
    if foreign := sorted(name for name in names if not _OWN_FILE.fullmatch(name)):
        got = f"{uri!r}, which holds {foreign[0]!r} and is no folder of predictions"
        raise TidemillError(Code.INVALID_VALUE, "output", got, "name a folder that is new or holds predictions alone")


def _finished(uri: str, inputs: str) -> dict | None:
    """The manifest of whole predictions that were made of the same inputs."""
    target = storage.join(uri, SUCCESS)
    if not storage.exists(target):
        return None
    manifest = json.loads(storage.read_text(target))
    sizes = {f.uri.rsplit("/", 1)[-1]: f.bytes for f in storage.list_files(storage.join(uri, "*.parquet"))}
    whole = sizes == {f["name"]: f["bytes"] for f in manifest["files"]}
    return manifest if whole and manifest["inputs"] == inputs else None


def _score_all(spec, scorer, data, splits, carried, rows, facts, predictions, progress) -> dict:
    local = storage.local_path(spec.output)
    beside = Path(predictions) if local is None else local
    partial = beside.with_name(f".{beside.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir(parents=True)
    try:
        tables = _scored(spec, scorer, data, splits, carried)
        scores = [pa.field(name, pa.float32()) for name in scorer.outputs]
        schema = pa.schema([*(data.schema().field(name) for name in carried), *scores])
        files = _write_shards(partial, tables, schema.remove_metadata(), rows, spec.shards, progress)
        manifest = {
            "format": 1,
            "rows": rows,
            "columns": {field.name: str(field.type) for field in schema},
            **facts,
            "fingerprint": fingerprint.of_json([[f.name, f.fingerprint] for f in files]),
            "files": [asdict(f) for f in files],
        }
        progress.phase("publish")
        _publish(partial, manifest, spec.output)
    finally:
        storage.remove_folder(partial)
    return manifest


def _scored(
    spec: PredictSpec, scorer: Scorer, data: Dataset, splits: list[str], carried: list[str]
) -> Iterator[pa.Table]:
    for split in splits:
        for batch, scores in scorer.batches(data, split, carried, spec.batch_size):
            columns = [*(batch.column(name) for name in carried), *(pa.array(column) for column in scores.T)]
            yield pa.Table.from_arrays(columns, [*carried, *scorer.outputs])


def _write_shards(
    folder: Path, tables: Iterator[pa.Table], schema: pa.Schema, rows: int, shards: int, progress: Progress
) -> list[FileEntry]:
    """Writes the rows in order into files of equal length, to within one row. A file may have no rows."""
    entries, rest, done = [], schema.empty_table(), 0
    for shard in range(shards):
        name = f"part-{shard:05d}-of-{shards:05d}.parquet"
        end = (shard + 1) * rows // shards
        size = end - done
        with pq.ParquetWriter(folder / name, schema, compression=COMPRESSION) as writer:
            while done < end:
                wanted = min(ROW_GROUP_ROWS, end - done)
                parts, have = [rest], rest.num_rows
                while have < wanted:
                    parts.append(next(tables).cast(schema))
                    have += parts[-1].num_rows
                table = pa.concat_tables(parts)
                writer.write_table(table.slice(0, wanted))
                rest, done = table.slice(wanted), done + wanted
                progress.rows(done, rows, "score")
        entries.append(FileEntry.of(folder, name, rows=size))
    return entries


def _publish(folder: Path, manifest: dict, uri: str) -> None:
    """Brings the shards to their place, `_SUCCESS` last. Locally the whole folder is renamed."""
    target = storage.local_path(uri)
    if target is None:
        storage.remove_folder(uri, first=SUCCESS)
        storage.upload_folder(folder, uri)
        storage.write_text(storage.join(uri, SUCCESS), _text(manifest))
        return
    (folder / SUCCESS).write_text(_text(manifest), encoding="utf-8")
    old = target.with_name(f".{target.name}.{uuid.uuid4().hex}.old")
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        os.rename(target, old)
    os.rename(folder, target)
    storage.remove_folder(old)


def _leave_pointer(manifest: dict, uri: str, predictions: str) -> None:
    target, pointer = storage.local_path(uri), Path(predictions)
    if target is not None and target.resolve() == pointer.resolve():
        return
    partial = pointer.with_name(f"{pointer.name}.partial")
    storage.remove_folder(partial)
    partial.mkdir(parents=True)
    (partial / SUCCESS).write_text(_text(manifest), encoding="utf-8")
    if pointer.is_dir():
        shutil.rmtree(pointer)
    else:
        pointer.unlink(missing_ok=True)
    os.replace(partial, pointer)


def _text(manifest: dict) -> str:
    return json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
