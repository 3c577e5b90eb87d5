"""Measures how `ingest`, `validate` and the leakage gate grow with the number of columns.

    python benchmarks/wide.py                  # ingest and validate: 200 and 2,000 columns, 300 rows
    python benchmarks/wide.py --gate           # the leakage gate: 200 and 2,000 columns, 200,000 rows

Ten times the columns may take at most 15 times the CPU seconds. A third of the columns are text, a third whole numbers
and a third fractions. Each measurement runs in a fresh process. The numbers of columns take turns, and the table has
the medians.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import processes
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tidemill.artifacts.examples import Dataset, DatasetWriter
from tidemill.data import source_record
from tidemill.data.ingest import ingest
from tidemill.experiment.source import Drift, Leakage, Source, Split
from tidemill.runtime import Progress
from tidemill.steps.ingest import IngestSpec
from tidemill.steps.validate import ValidateSpec
from tidemill.validation import columns as columns_
from tidemill.validation import leakage, scan
from tidemill.validation.validate import validate

LIMIT = 15.0
"""Largest ratio of the CPU seconds at ten times the columns."""
WORDS = pa.array([f"v{index}" for index in range(55)])


def rows(columns: int, count: int, seed: int = 0) -> pa.Table:
    """Returns rows with a label `y` and the columns `x0`, `x1` …, which depend on it a little."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, count)
    values: dict[str, pa.Array] = {"y": pa.array(label)}
    for index in range(columns - 1):
        drawn = rng.integers(0, 50, count) + label * rng.integers(0, 5)
        if index % 3 == 0:
            values[f"x{index}"] = pa.DictionaryArray.from_arrays(pa.array(drawn), WORDS).cast(pa.string())
        elif index % 3 == 1:
            values[f"x{index}"] = pa.array(drawn)
        else:
            values[f"x{index}"] = pa.array((drawn + rng.random(count).round(3)).astype(np.float64))
    return pa.table(values)


def write_source(work: Path, columns: int, count: int, kind: str) -> None:
    """Writes `work/rows.csv` or `work/rows.parquet`."""
    work.mkdir(parents=True, exist_ok=True)
    if kind == "csv":
        pa.csv.write_csv(rows(columns, count), work / "rows.csv")
    else:
        pq.write_table(rows(columns, count), work / "rows.parquet")


def write_examples(work: Path, columns: int, count: int) -> None:
    """Writes `work/examples` with all rows in train, in chunks, so that memory is not the limit."""
    chunk, schema = 10_000, rows(columns, 1).schema
    with DatasetWriter(work / "examples", schema, ("train", "valid", "test")) as writer:
        for start in range(0, count, chunk):
            writer.write("train", rows(columns, min(chunk, count - start), seed=start))


def run_ingest(work: Path, kind: str) -> int:
    """Ingests `work/rows.*` into `work/examples`. Returns the number of columns."""
    source = Source.model_validate({"tables": {"t": {"uri": str(work / f"rows.{kind}")}}})
    record = source_record.record(source)
    source_record.save_record(str(work / "root"), record)
    spec = IngestSpec(
        code="1",
        stage="train",
        source=source,
        source_fingerprint=record.fingerprint,
        labels=["y"],
        key=[],
        columns=None,
        split=Split(),
        schema_text=None,
    )
    ingest(
        spec,
        str(work / "root"),
        examples=str(work / "examples"),
        quarantine=str(work / "quarantine.jsonl"),
        progress=Progress("ingest"),
    )
    return len(Dataset(work / "examples").columns)


def run_validate(work: Path) -> int:
    """Validates `work/examples`. Returns the number of anomalies."""
    summary = validate(
        _validate_spec(),
        work / "examples",
        statistics=work / "statistics",
        schema=work / "schema",
        anomalies=work / "anomalies",
        report=work / "validation.html",
        progress=Progress("validate"),
    )
    return summary.anomalies


def run_gate(work: Path) -> float:
    """Runs the leakage gate on `work/examples`. Returns the strength of the strongest feature."""
    dataset, spec = Dataset(work / "examples"), _validate_spec()
    columns = columns_.resolve(spec, dataset.schema(), None)
    label = next(c for c in columns if c.role == "label")
    with scan.connect(work) as connection:
        report = leakage.measure(connection, dataset, label, columns, None, spec.leakage, Progress("validate"))
    return report.alone[0].auc


def _validate_spec() -> ValidateSpec:
    return ValidateSpec(
        code="1",
        labels=["y"],
        key=[],
        features=None,
        feature_columns=None,
        split_column=None,
        schema_text=None,
        drift=Drift(),
        leakage=Leakage(),
        previous=None,
    )


def compare(name: str, calls: list[tuple], sizes: list[int], repeats: int) -> bool:
    """Measures the calls in turns and prints a line for each and their ratio.

    Returns:
        Whether the ratio is within the limit.
    """
    usages: list[list[processes.Usage]] = [[] for _ in calls]
    for _ in range(repeats):
        for index, call in enumerate(calls):
            usages[index].append(processes.measure(*call))
    cpu = [statistics.median(u.cpu for u in each) for each in usages]
    whole = [statistics.median(u.process_cpu for u in each) for each in usages]
    for size, seconds, process, each in zip(sizes, cpu, whole, usages, strict=True):
        peak = max(u.peak_gib for u in each)
        print(f"{name}, {size:,} columns: {seconds:.2f} CPU s, with imports {process:.2f}, peak {peak:.2f} GiB")
    ratio = cpu[1] / cpu[0]
    print(f"{name}: {ratio:.1f} times the CPU seconds, with imports {whole[1] / whole[0]:.1f}", flush=True)
    return ratio <= LIMIT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--columns", type=int, nargs=2, default=[200, 2000])
    parser.add_argument("--rows", type=int, help="defaults to 300, and to 200,000 with --gate")
    parser.add_argument("--format", choices=["csv", "parquet"], default="csv")
    parser.add_argument("--gate", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, help="folder to keep rows in; defaults to a temporary one")
    args = parser.parse_args()
    count = args.rows or (200_000 if args.gate else 300)
    with tempfile.TemporaryDirectory() as temporary:
        folders = [(args.work or Path(temporary)) / f"{columns}x{count}" for columns in args.columns]
        for folder, columns in zip(folders, args.columns, strict=True):
            if args.gate and not (folder / "examples" / "manifest.json").exists():
                processes.measure("wide:write_examples", folder, columns, count)
            elif not args.gate:
                write_source(folder, columns, count, args.format)
        if args.gate:
            holds = compare("gate", [("wide:run_gate", f) for f in folders], args.columns, args.repeats)
        else:
            calls = [("wide:run_ingest", f, args.format) for f in folders]
            holds = compare("ingest", calls, args.columns, args.repeats)
            holds &= compare("validate", [("wide:run_validate", f) for f in folders], args.columns, args.repeats)
    if not holds:
        sys.exit(f"more than {LIMIT:g} times the CPU seconds")


if __name__ == "__main__":
    main()
