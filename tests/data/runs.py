"""Ingest of small sources, for tests."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tidemill.artifacts.examples import Dataset
from tidemill.data import source_record
from tidemill.data.ingest import IngestSummary, ingest
from tidemill.data.quarantine import Quarantine
from tidemill.data.source_files import SourceFile
from tidemill.data.staging import StagingFolder
from tidemill.data.tables import load_table
from tidemill.duckdb_session import connect
from tidemill.experiment.source import Source, Split, Table
from tidemill.runtime import Progress
from tidemill.steps.ingest import IngestSpec


@dataclass(frozen=True)
class IngestRun:
    """Outputs of one ingest."""

    summary: IngestSummary
    dataset: Dataset
    quarantine: list[dict]

    def rows(self, *splits: str) -> list[dict]:
        """Returns the rows of the splits in order. Defaults to all splits."""
        return [row for s in splits or self.dataset.splits for row in self.dataset.read(s).to_pylist()]

    def sorted(self) -> list[dict]:
        return sorted(self.rows(), key=lambda row: json.dumps(row, default=str))


class Runner:
    """Plans and runs ingest below a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.root = str(folder / "root")
        self.examples = folder / "out" / "examples"
        self.quarantine = folder / "out" / "quarantine.jsonl"

    def write(self, name: str, content: str | bytes) -> str:
        path = self.folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    def spec(self, tables: dict, *, sql: str | None = None, source: dict | None = None, **fields) -> IngestSpec:
        source_section = Source(tables=tables, sql=sql, **(source or {}))
        record = source_record.record(source_section)
        source_record.save_record(self.root, record)
        fields = {"stage": "train", "labels": ["y"], "key": [], "columns": None, "schema_text": None, **fields}
        split = Split(**fields.pop("split", {}))
        stripped = {name: table.model_copy(update={"uri": ""}) for name, table in source_section.tables.items()}
        source_section = source_section.model_copy(update={"tables": stripped})
        return IngestSpec(code="1", source=source_section, source_fingerprint=record.fingerprint, split=split, **fields)

    def run(self, tables: dict, **fields) -> IngestRun:
        return self.ingest(self.spec(tables, **fields))

    def ingest(self, spec: IngestSpec) -> IngestRun:
        self.examples.parent.mkdir(exist_ok=True)
        summary = ingest(
            spec,
            self.root,
            examples=str(self.examples),
            quarantine=str(self.quarantine),
            progress=Progress("ingest"),
        )
        return IngestRun(summary, Dataset(self.examples), self.quarantined())

    def quarantined(self) -> list[dict]:
        return [json.loads(line) for line in self.quarantine.read_text().splitlines()]

    def read(self, tables: dict, sql: str, **fields) -> list[dict]:
        """Returns the sorted rows of a query, ingested with the stage `predict`."""
        return self.run(tables, sql=sql, stage="predict", labels=[], **fields).sorted()


def rows(count: int) -> str:
    """Returns CSV text with the columns id, x and a label y of both classes."""
    lines = ["id,x,y"] + [f"{i},{i * 0.5},{(i * 7 // 3) % 2}" for i in range(count)]
    return "\n".join(lines) + "\n"


def table(count: int) -> pa.Table:
    """Returns the same rows as an Arrow table."""
    ids = list(range(count))
    return pa.table({"id": ids, "x": [i * 0.5 for i in ids], "y": [(i * 7 // 3) % 2 for i in ids]})


def read_table(folder: Path, files: dict[str, bytes], **options) -> tuple[pa.Table, list[dict]]:
    """Reads files as one table without a query.

    Args:
        folder: An empty or new folder.
        files: The bytes of each file by name, which may have partition folders.
        **options: The table's section.

    Returns:
        The table's rows as the query sees them, and the malformed rows.
    """
    work = folder / "work"
    work.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    sources = [SourceFile(table="t", uri=str(folder / n), bytes=len(c), version=n) for n, c in files.items()]
    with contextlib.closing(connect(work)) as connection:
        quarantine = Quarantine(connection)
        load_table(connection, "t", Table(uri="", **options), sources, StagingFolder(work), quarantine)
        found = connection.sql("FROM main.t").to_arrow_table()
        quarantine.write(work / "quarantine.jsonl")
    return found, [json.loads(line) for line in (work / "quarantine.jsonl").read_text().splitlines()]
