"""Measures all families on real flights and on synthetic Criteo rows: the metrics on the test split and the speed.

    python benchmarks/families.py                      # both, Criteo with a million rows
    python benchmarks/families.py --data flights --pipeline cross_validate    # with the ensembles

Runs the experiments of the examples with all families as members, without gates. The settings were chosen on other
Criteo rows than those measured. The true probabilities of the Criteo rows are known. The column "above" is the relative
distance of a family's log loss from the log loss of the true probabilities on the test rows, which a model can beat
only by chance.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tidemill.artifacts.examples import Dataset
from tidemill.auc_and_log_loss import log_loss

TRUTH = "p"
EXAMPLES = Path(__file__).parents[1] / "examples"
DEEP = ("wide_deep", "deepfm", "dcn_v2", "dlrm")
NEURAL = {
    "lr": {},
    "fm": {"embedding_dim": 8},
    **{family: {"embedding_dim": 16, "deep": [256, 128]} for family in DEEP},
    "final_mlp": {"embedding_dim": 16, "first": [256, 128], "second": [256, 128]},
    "mmoe": {"embedding_dim": 16, "experts": 4, "expert": [256, 128], "tower": [64]},
}
SETTINGS = {
    "flights": {"training": {"epochs": 6, "batch_size": 2048}, "gbdt": {"num_leaves": 63, "learning_rate": 0.05}},
    "criteo": {
        "min_count": 500,
        "buckets": 20,
        # A million rows are few for so many ids, so regularization decides the result.
        "networks": {"embedding_dim": 8, "l2_embedding": 0.02},
        "families": {
            **{family: {"deep": [128, 64], "dropout": 0.3} for family in DEEP},
            "deepfm": {"embedding_dim": 4, "deep": [256, 128], "dropout": 0.3},
            "final_mlp": {"first": [128, 64], "second": [128, 64], "dropout": 0.3, "l2_embedding": 0.01},
            "mmoe": {"expert": [128, 64], "dropout": 0.3},
        },
        "training": {
            "epochs": 6,
            "batch_size": 1024,
            "optimizer": {"name": "adam", "learning_rate": 4e-3, "schedule": "cosine", "weight_decay": 0.4},
        },
        "gbdt": {"num_leaves": 127, "rounds": 500},
    },
}


def experiment(data: str, families: list[str], folder: Path, rows: int, seed: int) -> None:
    """Writes the experiment and its data."""
    settings = SETTINGS[data]
    text = yaml.safe_load((EXAMPLES / data / "experiment.yaml").read_text())
    shared, by_family = settings.get("networks", {}), settings.get("families", {})
    neural = [{"family": name} | NEURAL[name] | shared | by_family.get(name, {}) for name in families if name in NEURAL]
    text["models"] = neural + [{"family": "gbdt"} | settings["gbdt"]] * ("gbdt" in families)
    text["training"] = settings["training"] | {"early_stopping": {"metric": "log_loss"}}
    text["evaluation"] = {"objective": "log_loss"}
    if data == "criteo":
        sys.path.insert(0, str(EXAMPLES / "criteo"))
        from generate import generate

        generate(rows, folder / "data", seed=seed, files=4, probabilities=True)
        clicks = text["source"]["tables"]["clicks"]
        clicks["uri"], clicks["columns"][TRUTH] = str(folder / "data" / "*.tsv"), "DOUBLE"
        # Each number is two features: a bucket (one bucket is for missing values) and a logarithm.
        logs = {f"n{i}": f"ln(1 + greatest(i{i}, 0)) AS n{i}" for i in range(1, 14)}
        text["source"]["sql"] = f"SELECT *, {', '.join(logs.values())} FROM clicks"
        for feature in text["features"].values():
            if feature["kind"] == "categorical":
                feature["vocabulary"] = {"min_count": settings["min_count"]}
            else:
                feature["transform"] = {"bucketize": settings["buckets"]}
        text["features"] |= {name: {"kind": "numeric", "transform": "zscore"} for name in logs}
    else:
        for name in ("flights.sql", "predict.sql"):
            (folder / name).write_text((EXAMPLES / data / name).read_text())
    (folder / "experiment.yaml").write_text(yaml.safe_dump(text, sort_keys=False))


def run(folder: Path, pipeline: str) -> list[dict]:
    """Runs the pipeline, and returns the records of its steps."""
    command = [sys.executable, "-m", "tidemill.cli.main", "run", str(folder / "experiment.yaml"), "--plain"]
    done = subprocess.run(
        [*command, "--root", str(folder / "root"), "--pipeline", pipeline], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    record = max((folder / "root" / "runs").glob("*/run.json"))
    return json.loads(record.read_text())["steps"]


def best_log_loss(steps: list[dict]) -> float | None:
    """Returns the log loss of the true probabilities on the test rows, or None if they are unknown."""
    uri = next(step["outputs"]["examples"]["uri"] for step in steps if step["name"] == "ingest")
    examples = Dataset(Path(uri))
    if TRUTH not in examples.schema().names:
        return None
    rows = examples.read("test", ["label", TRUTH])
    return log_loss(rows["label"].to_numpy(), rows[TRUTH].to_numpy())


def table(steps: list[dict], best: float | None) -> None:
    """Prints a line for each model, the best first."""
    lines = []
    trained = {step["name"].removeprefix("train-"): step for step in steps if step["name"].startswith("train-")}
    for step in steps:
        if "evaluation" not in step.get("outputs", {}):
            continue
        document = json.loads(Path(step["outputs"]["evaluation"]["uri"], "metrics.json").read_text())
        metrics = {name: document["test"]["metrics"][name]["value"] for name in ("auc", "log_loss")}
        above = "" if best is None else f"{metrics['log_loss'] / best - 1:.2%}"
        time = speed = ""
        if document["name"] in trained:
            step = trained[document["name"]]
            history = json.loads(Path(step["outputs"]["model"]["uri"], "history.json").read_text())
            time = f"{step['seconds']:.0f}"
            speed = f"{sum(e['rows_per_second'] for e in history['entries']) / len(history['entries']):,.0f}"
        line = f"{document['name']} | {metrics['auc']:.4f} | {metrics['log_loss']:.4f} | {above} | {time} | {speed}"
        lines.append((metrics["log_loss"], line))
    header = ("model", "test AUC", "test log loss", "above", "seconds", "rows per second")
    print("| " + " | ".join(header) + " |\n|" + " --- |" * len(header))
    for _, line in sorted(lines):
        print(f"| {line} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--families", nargs="+", choices=[*NEURAL, "gbdt"], default=[*NEURAL, "gbdt"])
    parser.add_argument("--rows", type=int, default=1_000_000, help="number of Criteo rows")
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of the Criteo rows; the settings were chosen with seed 0"
    )
    parser.add_argument("--pipeline", choices=["train", "cross_validate"], default="train")
    args = parser.parse_args()
    for data in args.data:
        with tempfile.TemporaryDirectory() as folder:
            experiment(data, args.families, Path(folder), args.rows, args.seed)
            steps = run(Path(folder), args.pipeline)
            best = best_log_loss(steps)
            suffix = "" if best is None else f": the true probabilities have a log loss of {best:.4f} on the test rows"
            print(f"\n{data}{suffix}\n", flush=True)
            table(steps, best)


if __name__ == "__main__":
    main()
