"""Compares the preprocess step of both engines on the examples.

python -m tests.transform.conformance.step_comparison --rows 1000000         # random rows in Criteo's format
python -m tests.transform.conformance.step_comparison --examples FOLDER      # such rows, ingested before
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.transform.conformance.case import row_values
from tests.transform.conformance.compare import assert_same_artifact, far_values, less_exact_values
from tests.transform.preprocess_runs import spec, write_schema
from tidemill.artifacts.examples import Dataset
from tidemill.data.ingest import ingest
from tidemill.experiment import Experiment, load
from tidemill.planning import plan_training
from tidemill.runtime import Progress
from tidemill.steps.ingest import IngestSpec
from tidemill.transform.preprocess import preprocess

EXAMPLES = Path(__file__).parents[3] / "examples"


def flights() -> Experiment:
    """Returns the experiment of the flights example."""
    return load(EXAMPLES / "flights" / "experiment.yaml")


def criteo(rows: int, folder: Path) -> Experiment:
    """Returns the experiment of the Criteo example with random rows, which are written to a folder."""
    sys.path.insert(0, str(EXAMPLES / "criteo"))
    from generate import generate

    generate(rows, folder / "rows", files=2)
    experiment = load(EXAMPLES / "criteo" / "experiment.yaml")
    (name, table), *_ = experiment.source.tables.items()
    tables = {name: table.model_copy(update={"uri": str(folder / "rows" / "*.tsv")})}
    return experiment.model_copy(update={"source": experiment.source.model_copy(update={"tables": tables})})


def ingest_examples(experiment: Experiment, folder: Path) -> Path:
    """Runs the ingest step and returns the folder of the examples."""
    ingest_spec = IngestSpec.read(plan_training(experiment, str(folder / "root"))["ingest"])
    outputs = {"examples": str(folder / "raw"), "quarantine": str(folder / "quarantine.jsonl")}
    ingest(ingest_spec, str(folder / "root"), progress=Progress("ingest"), **outputs)
    return folder / "raw"


def assert_engines_agree(experiment: Experiment, folder: Path) -> None:
    """Ingests an experiment's rows, preprocesses them with both engines and compares the outputs."""
    for _ in run_both(experiment, ingest_examples(experiment, folder), folder):
        pass


def run_both(experiment: Experiment, examples: Path, folder: Path) -> Iterator[str]:
    """Runs the preprocess step with both engines and compares the outputs.

    Yields:
        A line for each engine with the seconds that it took.

    Raises:
        AssertionError: the outputs differ by more than allowed.
    """
    write_schema(folder / "schema", Dataset(examples).schema())
    fields = {"labels": experiment.label_columns(), "key": experiment.key, "features": experiment.features}
    for engine in ("beam", "local"):
        started = time.monotonic()
        preprocess(
            spec(**fields, engine=engine),
            str(examples),
            str(folder / "schema"),
            transform_graph=str(folder / engine / "graph"),
            transformed=str(folder / engine / "rows"),
            progress=Progress("preprocess"),
        )
        yield f"{engine}: {time.monotonic() - started:.1f} s"
    assert_same_step(experiment, Dataset(examples), folder / "beam", folder / "local")


def assert_same_step(experiment: Experiment, examples: Dataset, beam: Path, local: Path) -> None:
    """Asserts equal vocabularies, schemas, files and ids, and numbers near Beam's that are as exact as Beam's."""
    assert_same_artifact(beam / "graph", local / "graph", near=True)
    assert (local / "graph" / "features.json").read_bytes() == (beam / "graph" / "features.json").read_bytes()
    theirs, ours = Dataset(beam / "rows"), Dataset(local / "rows")
    assert {n: [f.name for f in s.files] for n, s in ours.splits.items()} == {
        n: [f.name for f in s.files] for n, s in theirs.splits.items()
    }
    train = examples.read("train", list(experiment.features))
    for split in theirs.splits:
        tables = [made.read(split) for made in (theirs, ours)]
        assert tables[0].schema == tables[1].schema
        raw = examples.read(split, list(experiment.features))
        wrong = [line for name in tables[0].column_names for line in _differing(name, experiment, train, raw, *tables)]
        assert not wrong, split + ": " + "\n".join(wrong)


def _differing(
    name: str, experiment: Experiment, train: pa.Table, raw: pa.Table, beam: pa.Table, local: pa.Table
) -> list[str]:
    theirs, ours = beam[name].to_numpy(), local[name].to_numpy()
    if theirs.dtype.kind != "f" or name not in experiment.features:
        return [] if np.array_equal(theirs, ours) else [f"{name}: {np.sum(theirs != ours)} of {len(ours)} differ"]
    feature, wrong = experiment.features[name], far_values(name, theirs, ours)
    if feature.transform == "zscore" and feature.missing == "mean":
        values = row_values(train, name)
        known = values[np.isfinite(values)]
        exact = (np.nan_to_num(row_values(raw, name), nan=known.mean()) - known.mean()) / known.std()
        wrong += less_exact_values(name, theirs, ours, exact)
    return wrong


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--examples", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.examples:
            experiment, examples = load(EXAMPLES / "criteo" / "experiment.yaml"), arguments.examples
        else:
            experiment = criteo(arguments.rows, folder)
            examples = ingest_examples(experiment, folder)
        for line in run_both(experiment, examples, folder):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
