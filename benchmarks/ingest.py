"""Measures ingest against DuckDB's own copy of the same rows to the same Parquet.

    python benchmarks/ingest.py                    # 2 million rows in Criteo's format
    python benchmarks/ingest.py --rows 400000 --format csv

Both read the same files with the same declared types, and write Parquet with zstd and row groups of 65,536 rows. DuckDB
only copies. Ingest also proves that no value is changed, splits and shuffles the rows, checks the label and
fingerprints the examples. They take turns, each in a fresh process after its imports, and the table has the medians.
Ingest may take at most twice the wall and CPU seconds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import duckdb
import processes

from tidemill.artifacts.examples import ROW_GROUP_ROWS
from tidemill.data import source_record
from tidemill.data.ingest import ingest
from tidemill.experiment.source import Source, Split
from tidemill.runtime import Progress
from tidemill.steps.ingest import IngestSpec

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "criteo"))
LIMIT = 2.0
"""Largest ratio of the seconds."""
NUMBERS = [f"i{i}" for i in range(1, 14)]
TYPES = {"label": "TINYINT", **dict.fromkeys(NUMBERS, "BIGINT"), **{f"c{i}": "VARCHAR" for i in range(1, 27)}}
"""The declared types, for both."""
DELIMITERS = {"tsv": "\t", "csv": ","}


def generate_rows(folder: Path, rows: int, files: int, kind: str) -> None:
    """Writes the rows to `folder/part-*.tsv`, or with commas to `folder/part-*.csv`."""
    from generate import generate

    generate(rows, folder, seed=0, files=files)
    for path in folder.glob("*.tsv") if kind == "csv" else []:
        path.with_suffix(".csv").write_bytes(path.read_bytes().replace(b"\t", b","))
        path.unlink()


def source_of(folder: Path, kind: str) -> Source:
    """Returns the source of the rows."""
    table = {"uri": f"{folder}/*.{kind}", "format": kind, "header": False, "null": [""], "columns": TYPES}
    return Source.model_validate({"tables": {"clicks": table}})


def plan(work: Path, kind: str) -> str:
    """Records the source, as planning does before the step. Returns the record's fingerprint."""
    record = source_record.record(source_of(work / "rows", kind))
    source_record.save_record(str(work / "root"), record)
    return record.fingerprint


def run_ingest(work: Path, kind: str, fingerprint: str) -> int:
    """Runs the step. Returns the number of rows."""
    spec = IngestSpec(
        code="1",
        stage="train",
        source=source_of(work / "rows", kind),
        source_fingerprint=fingerprint,
        labels=["label"],
        key=[],
        columns=list(TYPES)[1:],
        split=Split(by="hash"),
        schema_text=None,
    )
    quarantine = str(work / "quarantine.jsonl")
    summary = ingest(
        spec, str(work / "root"), examples=str(work / "examples"), quarantine=quarantine, progress=Progress("ingest")
    )
    return sum(summary.rows.values())


def run_copy(work: Path, kind: str) -> int:
    """Copies the rows with DuckDB. Returns their number."""
    options = f"auto_detect = false, header = false, delim = '{DELIMITERS[kind]}', quote = '\"', nullstr = ''"
    target = f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP_ROWS})"
    query = f"SELECT * FROM read_csv('{work}/rows/*.{kind}', columns = {TYPES}, {options})"
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        return connection.execute(f"COPY ({query}) TO '{work}/copy.parquet' {target}").fetchall()[0][0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--format", choices=list(DELIMITERS), default="tsv")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, help="folder to keep the rows in; defaults to a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        if not list((work / "rows").glob(f"*.{args.format}")):
            processes.measure("ingest:generate_rows", work / "rows", args.rows, args.files, args.format)
        fingerprint = plan(work, args.format)
        calls = {"copy": ("ingest:run_copy", work, args.format)}
        calls["ingest"] = ("ingest:run_ingest", work, args.format, fingerprint)
        usages: dict[str, list[processes.Usage]] = {name: [] for name in calls}
        for _ in range(args.repeats):
            for name, call in calls.items():
                usages[name].append(processes.measure(*call))
    medians = {name: (_median(each, "wall"), _median(each, "cpu")) for name, each in usages.items()}
    for name, (wall, cpu) in medians.items():
        peak = max(usage.peak_gib for usage in usages[name])
        print(f"{name}: {usages[name][0].result:,} rows, {wall:.2f} s, {cpu:.2f} CPU s, peak {peak:.2f} GiB")
    ratios = [ours / theirs for ours, theirs in zip(medians["ingest"], medians["copy"], strict=True)]
    whole = _median(usages["ingest"], "process_cpu") / _median(usages["copy"], "process_cpu")
    print(f"ingest: {ratios[0]:.2f} times the wall and {ratios[1]:.2f} times the CPU seconds of copy")
    print(f"with the start of Python and all imports, {whole:.2f} times the CPU seconds")
    if max(ratios) > LIMIT:
        sys.exit(f"more than {LIMIT:g} times")


def _median(usages: list[processes.Usage], name: str) -> float:
    return statistics.median(getattr(usage, name) for usage in usages)


if __name__ == "__main__":
    main()
