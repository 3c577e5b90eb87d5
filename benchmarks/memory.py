"""Peak memory and seconds of the steps that read data, each in its own process, on synthetic rows in Criteo's format.

    python benchmarks/memory.py --rows 5000000

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
    from tidemill.data.ingest import ingest
    from tidemill.runtime import Progress
    from tidemill.steps.ingest import IngestSpec

    summary = ingest(
        IngestSpec.read(_specs(work)["ingest"]),
        str(work / "root"),
        examples=str(work / "examples"),
        quarantine=str(work / "quarantine.jsonl"),
        progress=Progress("ingest"),
    )
    if sum(summary.rows.values()) != rows:
        raise SystemExit(f"{summary.rows} are not {rows} rows")


def validate(work: Path, rows: int) -> None:
    """`work/examples` to `work/{statistics,schema,anomalies,validation.html}`."""
    from tidemill.runtime import Progress
    from tidemill.steps.validate import ValidateSpec
    from tidemill.validation.validate import validate

    validate(
        ValidateSpec.read(_specs(work)["validate"]),
        str(work / "examples"),
        statistics=str(work / "statistics"),
        schema=str(work / "schema"),
        anomalies=str(work / "anomalies"),
        report=str(work / "validation.html"),
        progress=Progress("validate"),
    )


def preprocess(work: Path, rows: int) -> None:
    """`work/examples` and `work/schema` to `work/{transform_graph,transformed}`."""
    from tidemill.runtime import Progress
    from tidemill.steps.preprocess import PreprocessSpec
    from tidemill.transform.preprocess import preprocess

    preprocess(
        PreprocessSpec.read(_specs(work)["preprocess"]),
        str(work / "examples"),
        str(work / "schema"),
        transform_graph=str(work / "transform_graph"),
        transformed=str(work / "transformed"),
        progress=Progress("preprocess"),
    )


STEPS: dict[str, Callable[[Path, int], None]] = {
    "generate": generate,
    "ingest": ingest,
    "validate": validate,
    "preprocess": preprocess,
}
"""What can be measured: functions of the work folder and the number of rows."""


def _specs(work: Path) -> dict[str, str]:
    from tidemill.experiment import load
    from tidemill.planning import plan_training

    experiment = load(Path(__file__).resolve().parents[1] / "examples" / "criteo" / "experiment.yaml")
    (name, table), *_ = experiment.source.tables.items()
    tables = {name: table.model_copy(update={"uri": str(work / "rows" / "*.tsv")})}
    source = experiment.source.model_copy(update={"tables": tables})
    return plan_training(experiment.model_copy(update={"source": source}), str(work / "root"))


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
    parser.add_argument("--steps", nargs="+", choices=list(STEPS)[1:], default=list(STEPS)[1:])
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
