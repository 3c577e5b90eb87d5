"""Log loss on test of models with default settings, and of LightGBM and scikit-learn on the same rows.

    python benchmarks/defaults.py DIR NAME...      # reads DIR/NAME/experiment.yaml

Each experiment is run with several seeds, with the models `gbdt`, `dcn_v2` and `lr` and nothing else changed. The
references read the examples that its ingest step wrote, so they see the same rows and splits:

- LightGBM: learning rate 0.05, early stopping after 50 rounds on valid, categories as pandas' categories of train,
  missing values as they are.
- Logistic regression of scikit-learn: C 1, at most 1,000 iterations.
- MLPClassifier(early_stopping=True) of scikit-learn, its defaults.

For the last two, numbers have the mean of train where they are missing and are standardized, and categories are
one-hot. An interval is of the mean difference in log loss over the test rows: the 2.5th and 97.5th percentiles of 1,000
bootstrap samples of rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import yaml
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import tidemill
from tidemill.artifacts.examples import Dataset
from tidemill.experiment import Experiment, load

MODELS = ("gbdt", "dcn_v2", "lr")
SAMPLES = 1000
_MISSING = "(missing)"


def log_losses(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the log loss of each row."""
    scores = np.clip(scores.astype(np.float64), 1e-7, 1 - 1e-7)
    return -np.where(labels > 0, np.log(scores), np.log1p(-scores))


def read_frames(examples: Dataset, experiment: Experiment) -> tuple[dict[str, pd.DataFrame], list[str], list[str]]:
    """Returns the rows by split, and the names of the numeric and of the categorical columns."""
    kinds = {name: feature.kind for name, feature in (experiment.features or {}).items()}
    numeric = [name for name, kind in kinds.items() if kind == "numeric"]
    categorical = [name for name, kind in kinds.items() if kind == "categorical"]
    label = experiment.label_columns()[0]
    frames = {}
    for split in ("train", "valid", "test"):
        frame = examples.read(split, [*numeric, *categorical, label]).to_pandas()
        frame[label] = frame[label].astype(int)
        frame[numeric] = frame[numeric].astype(float)
        for name in categorical:
            frame[name] = frame[name].astype("string").fillna(_MISSING).astype(str)
        frames[split] = frame.rename(columns={label: "label"})
    return frames, numeric, categorical


def score_lightgbm(
    frames: dict[str, pd.DataFrame], numeric: list[str], categorical: list[str], seed: int
) -> np.ndarray:
    data = {split: frame[numeric].copy() for split, frame in frames.items()}
    for name in categorical:
        known = sorted(set(frames["train"][name]) - {_MISSING})
        for split, frame in frames.items():
            data[split][name] = pd.Categorical(frame[name], categories=known)
    for frame in data.values():
        frame.columns = [f"c{i}" for i in range(frame.shape[1])]
    train = lightgbm.Dataset(data["train"], frames["train"]["label"], free_raw_data=False)
    valid = lightgbm.Dataset(data["valid"], frames["valid"]["label"], reference=train, free_raw_data=False)
    parameters = {"objective": "binary", "learning_rate": 0.05, "verbosity": -1, "seed": seed, "num_threads": 2}
    stop = lightgbm.early_stopping(50, verbose=False)
    booster = lightgbm.train(parameters, train, 2000, valid_sets=[valid], callbacks=[stop])
    return np.asarray(booster.predict(data["test"]))


def score_sklearn(
    model: LogisticRegression | MLPClassifier,
    frames: dict[str, pd.DataFrame],
    numeric: list[str],
    categorical: list[str],
) -> np.ndarray:
    numbers = make_pipeline(SimpleImputer(strategy="mean"), StandardScaler())
    categories = OneHotEncoder(handle_unknown="ignore")
    encoder = ColumnTransformer([("numbers", numbers, numeric), ("categories", categories, categorical)])
    pipeline = make_pipeline(encoder, model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline.fit(frames["train"], frames["train"]["label"])
    return pipeline.predict_proba(frames["test"])[:, 1]


def run_tidemill(file: Path, root: Path, seed: int) -> tuple[dict[str, np.ndarray], Dataset]:
    """Runs an experiment with default settings. Returns the scores of the test rows by model, and the examples."""
    from tidemill.models.core.registry import load_model

    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    content["models"] = [{"family": family} for family in MODELS]
    content.setdefault("training", {})["seed"] = seed
    copy = file.with_name(f".defaults-{seed}.yaml")
    copy.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    try:
        run = tidemill.run(copy, root=root)
    except tidemill.RunFailed as failed:  # by a gate, after all models are trained
        run = failed.result
        if any(not _outputs(run.folder).get(f"train-{family}") for family in MODELS):
            raise
    finally:
        copy.unlink()
    outputs = _outputs(run.folder)
    transformed = Dataset(outputs["preprocess"]["transformed"]["uri"])
    scores = {}
    for family in MODELS:
        folder = outputs[f"train-{family}"]["model"]["uri"]
        scores[family] = load_model(folder).predict(transformed, "test")[:, 0]
        print(f"  {file.parent.name}, seed {seed}: {family} {describe(Path(folder))}", flush=True)
    return scores, Dataset(outputs["ingest"]["examples"]["uri"])


def _outputs(run: Path) -> dict[str, dict[str, dict[str, str]]]:
    return {step["name"]: step["outputs"] for step in json.loads((run / "run.json").read_text())["steps"]}


def describe(folder: Path) -> str:
    document = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    training, config = document["training"], document["config"]
    if document["family"] == "gbdt":
        return f"{document['kept']} rounds, {config['num_leaves']} leaves, {config['min_data_in_leaf']} rows a leaf"
    return f"{document['kept']} of {training['epochs']} epochs, batches of {training['batch_size']}"


def difference(ours: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Returns the bootstrap interval of the mean difference of two losses over the rows."""
    rng, delta = np.random.default_rng(0), ours - reference
    means = [delta[rng.integers(0, len(delta), len(delta))].mean() for _ in range(SAMPLES)]
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--root", type=Path, help="folder for the runs; defaults to a temporary one")
    args = parser.parse_args()
    failures = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.names:
            failures += measure(args.folder / name / "experiment.yaml", args.root or Path(temporary), args.seeds)
    if failures:
        sys.exit("; ".join(failures))


def measure(file: Path, root: Path, seeds: int) -> list[str]:
    """Prints the log losses of one experiment. Returns what is worse than its reference allows."""
    losses: dict[str, list[np.ndarray]] = {}
    for seed in range(seeds):
        scores, examples = run_tidemill(file, root, seed)
        frames, numeric, categorical = read_frames(examples, load(file))
        labels = frames["test"]["label"].to_numpy()
        sides = frames, numeric, categorical
        mlp = MLPClassifier(early_stopping=True, random_state=seed)
        scores |= {"LightGBM": score_lightgbm(*sides, seed), "MLP": score_sklearn(mlp, *sides)}
        if seed == 0:
            scores["logistic"] = score_sklearn(LogisticRegression(max_iter=1000), *sides)
        for name, score in scores.items():
            losses.setdefault(name, []).append(log_losses(labels, score))
    rows = {name: np.mean(each, axis=0) for name, each in losses.items()}  # the mean over seeds, for each row
    mean = {name: float(loss.mean()) for name, loss in rows.items()}
    name, base = (
        file.parent.name,
        float(log_losses(labels, np.full(len(labels), frames["train"]["label"].mean())).mean()),
    )
    cells = ", ".join(f"{key} {value:.4f}" for key, value in mean.items())
    print(f"{name}: {cells}, base rate {base:.4f}", flush=True)
    neural = min(("logistic", "MLP"), key=mean.__getitem__)
    failures = []
    for family, reference, factor in (("gbdt", "LightGBM", 1.02), ("lr", "logistic", 1.02), ("dcn_v2", neural, 1.0)):
        low, high = difference(rows[family], rows[reference])
        ok = mean[family] <= factor * mean[reference] or low <= 0
        print(
            f"  {family} - {reference}: {mean[family] / mean[reference] - 1:+.1%}, [{low:+.4f}, {high:+.4f}]"
            f" {'ok' if ok else 'WORSE'}",
            flush=True,
        )
        failures += [] if ok else [f"{name}: {family} {mean[family]:.4f}, {reference} {mean[reference]:.4f}"]
    return failures


if __name__ == "__main__":
    main()
