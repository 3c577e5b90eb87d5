"""Test AUC on the flights example, by the time split and by a random split, beside a plain LightGBM script.

    python benchmarks/flights_auc.py

Runs the experiment through the compiled pipeline, once a split, without gates. The plain script trains LightGBM on
the same rows and columns of the same splits, read from the run's examples, with the label in pandas categories and
missing values left as they are: what one would write in a notebook.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

FLIGHTS = Path(__file__).parents[1] / "examples" / "flights"
LEAST = {"time": {"dcn_v2": 0.68, "gbdt": 0.68}, "random": {"dcn_v2": 0.73, "gbdt": 0.75}}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--splits", nargs="+", choices=LEAST, default=list(LEAST))
    splits = arguments.parse_args().splits
    missed = 0
    print("| split | model | test AUC | 95% interval | asked for | seconds |\n| --- | --- | --- | --- | --- | --- |")
    for split in splits:
        with tempfile.TemporaryDirectory() as folder:
            steps = run(split, Path(folder))
            for model, least in LEAST[split].items():
                metrics = Path(steps[f"evaluate-{model}"]["outputs"]["evaluation"]["uri"], "metrics.json")
                auc = json.loads(metrics.read_text())["test"]["metrics"]["auc"]
                low, high = auc["low"], auc["high"]
                missed += auc["value"] < least
                seconds = steps[f"train-{model}"]["seconds"]
                row = f"{auc['value']:.4f} | {low:.4f} to {high:.4f} | {least} | {seconds:.0f}"
                print(f"| {split} | {model} | {row} |", flush=True)
            started = time.monotonic()
            auc = plain_lightgbm(steps["ingest"]["outputs"]["examples"]["uri"])
            print(f"| {split} | plain LightGBM script | {auc:.4f} | | | {time.monotonic() - started:.0f} |", flush=True)
    return 1 if missed else 0


def run(split: str, folder: Path) -> dict[str, dict]:
    """Runs the train pipeline on a copy of the example with another split; returns the steps of the run by name."""
    experiment = yaml.safe_load((FLIGHTS / "experiment.yaml").read_text())
    experiment["evaluation"]["gates"] = {}
    if split == "random":
        experiment["split"] = {"by": "random", "fractions": experiment["split"]["fractions"]}
    for name in ("flights.sql", "predict.sql"):
        (folder / name).write_text((FLIGHTS / name).read_text())
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))
    command = [sys.executable, "-m", "tidemill.cli.main", "run", str(folder / "experiment.yaml"), "--plain"]
    done = subprocess.run([*command, "--root", str(folder / "root")], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    record = next((folder / "root" / "runs").glob("*/run.json"))
    return {step["name"]: step for step in json.loads(record.read_text())["steps"]}


def plain_lightgbm(examples: str) -> float:
    """Test AUC of LightGBM on the raw columns of the example's features."""
    import lightgbm
    from sklearn.metrics import roc_auc_score

    from tidemill.artifacts.examples import Dataset
    from tidemill.experiment import load

    experiment = load(FLIGHTS / "experiment.yaml")
    columns = experiment.feature_columns()
    dataset = Dataset(examples)
    frames = {split: dataset.read(split, [*columns, "late"]).to_pandas() for split in ("train", "valid", "test")}
    for column in ("carrier", "origin", "dest"):
        kinds = frames["train"][column].astype("category").dtype
        for frame in frames.values():
            frame[column] = frame[column].where(frame[column].isin(kinds.categories)).astype(kinds)
    train, valid = (lightgbm.Dataset(frames[s][columns], frames[s]["late"]) for s in ("train", "valid"))
    settings = {
        "objective": "binary",
        "num_leaves": 63,
        "learning_rate": 0.05,
        "metric": "auc",
        "verbose": -1,
        "seed": 0,
    }
    stop = lightgbm.early_stopping(50, verbose=False)
    booster = lightgbm.train(settings, train, 500, [valid], callbacks=[stop])
    return roc_auc_score(frames["test"]["late"], booster.predict(frames["test"][columns]))


if __name__ == "__main__":
    sys.exit(main())
