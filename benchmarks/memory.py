"""Peak memory and seconds of the steps that read data, each in its own process, on synthetic rows in Criteo's format.

    python benchmarks/memory.py --rows 5000000 --steps ingest

Each step's line says its wall seconds, its CPU seconds and its process's peak resident memory (`ru_maxrss`). Steps run
in the order given; each finds below `--work` what the ones before it wrote.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "criteo"))


def generate(work: Path, rows: int) -> None:
    """Writes the rows to `work/rows`, four files."""
    from generate import generate

    generate(rows, work / "rows", seed=0, files=4)


def ingest(work: Path, rows: int) -> None:
    """`work/rows` to `work/examples`."""
    from tidemill.data import sources
    from tidemill.data.ingest import ingest
    from tidemill.specs import IngestSpec
    from tidemill.step import Progress

    experiment = _experiment(work)
    record = sources.record(experiment.source)
    sources.save_record(str(work / "root"), record)
    spec = IngestSpec(
        code="benchmark",
        stage="train",
        source=experiment.source,
        source_fingerprint=record.fingerprint,
        label=experiment.label,
        key=experiment.key,
        columns=experiment.feature_columns(),
        split=experiment.split,
        schema_text=None,
    )
    summary = ingest(
        spec,
        str(work / "root"),
        examples=str(work / "examples"),
        quarantine=str(work / "quarantine.jsonl"),
        progress=Progress("ingest"),
    )
    if sum(summary.rows.values()) != rows:
        raise SystemExit(f"{summary.rows} are not {rows} rows")


STEPS: dict[str, Callable[[Path, int], None]] = {"generate": generate, "ingest": ingest}
"""What can be measured: functions of the work folder and the number of rows."""


def _experiment(work: Path):
    from tidemill.experiment import load

    experiment = load(Path(__file__).resolve().parents[1] / "examples" / "criteo" / "experiment.yaml")
    (name, table), *_ = experiment.source.tables.items()
    tables = {name: table.model_copy(update={"uri": str(work / "rows" / "*.tsv")})}
    return experiment.model_copy(update={"source": experiment.source.model_copy(update={"tables": tables})})


def measure(step: str, work: Path, rows: int) -> dict:
    """Runs a step in a fresh process.

    Returns:
        `step`, `rows`, `seconds`, `cpu_seconds` and `peak_gib`.
    """
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(step, work, rows, queue))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"{step} ended with exit code {process.exitcode}")
    return queue.get()


def _run(step: str, work: Path, rows: int, queue: multiprocessing.SimpleQueue) -> None:
    started = time.perf_counter()
    STEPS[step](work, rows)
    seconds = time.perf_counter() - started
    usage = resource.getrusage(resource.RUSAGE_SELF)
    queue.put(
        {
            "step": step,
            "rows": rows,
            "seconds": round(seconds, 1),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "peak_gib": round(usage.ru_maxrss / 2**20, 2),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--steps", nargs="+", choices=[s for s in STEPS if s != "generate"], default=["ingest"])
    parser.add_argument("--work", type=Path, help="folder to keep rows and artifacts in; defaults to a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        steps = [] if (work / "rows" / "truth.json").exists() else ["generate"]
        for step in [*steps, *args.steps]:
            print(json.dumps(measure(step, work, args.rows)), flush=True)


if __name__ == "__main__":
    main()
