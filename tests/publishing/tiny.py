"""A small SavedModel with the signature that `train` exports, and folders to publish it from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from tidemill import storage
from tidemill.artifacts import artifact
from tidemill.metric_definitions import METRICS
from tidemill.steps.publish import PublishSpec

RAW_COLUMNS = [{"name": "city", "dtype": "string"}, {"name": "x", "dtype": "float32"}, {"name": "id", "dtype": "int64"}]


def save_tiny_model(path: Path, bias: float = -1.0, columns: list[dict] = RAW_COLUMNS) -> None:
    """Writes a SavedModel: score = sigmoid(1.2 x + bias + 0.5 [city = Lyon]). A missing x counts as 0."""
    import tensorflow as tf

    dtypes = {"string": tf.string, "float32": tf.float32, "int64": tf.int64}
    names = {c["name"]: c.get("input", c["name"]) for c in columns}

    class Tiny(tf.Module):
        def __init__(self):
            super().__init__()
            self.bias = tf.Variable(bias)

        def score(self, raw):
            x, city = raw[names["x"]], raw[names["city"]]
            logit = 1.2 * tf.where(tf.math.is_nan(x), 0.0, x) + self.bias + 0.5 * tf.cast(city == b"Lyon", tf.float32)
            return {"score": tf.sigmoid(logit)}

    module = Tiny()
    specs = {n: tf.TensorSpec([None], dtypes[c["dtype"]], name=n) for c, n in zip(columns, names.values(), strict=True)}
    function = tf.function(module.score, input_signature=[specs]).get_concrete_function()
    tf.saved_model.save(module, str(path), signatures={"serving_default": function})
    (path / "assets.extra").mkdir()
    (path / "assets.extra" / "raw_columns.json").write_text(json.dumps(columns))


def tiny_score(x: np.ndarray, city: list, bias: float = -1.0) -> np.ndarray:
    """Returns the scores of the model, computed by NumPy."""
    lyon = np.array([c == "Lyon" for c in city])
    return 1 / (1 + np.exp(-(1.2 * np.nan_to_num(x) + bias + 0.5 * lyon)))


def member(folder: Path, serving: Path, name: str, value: float | None, blessed: bool = True, metric: str = "auc"):
    """Writes the folders of a model and of its evaluation, with the entries that `publish` reads."""
    about = {"name": name, "family": "tiny", "model_fingerprint": f"weights-of-{name}"}
    model, evaluation = folder / f"{name}-model", folder / f"{name}-evaluation"
    with artifact.write_folder(model, about) as target:
        shutil.copytree(serving, target / "Format-Serving")
        storage.write_json(target / "model.json", about)
    reasons = ["auc 0.6000 is at least 0.5"] if blessed else ["auc 0.6000 is below 0.9"]
    facts = {**about, "blessed": blessed, "reasons": reasons, "objective": metric, "objective_value": value}
    estimate = {"value": 0.6, "low": 0.5, "high": 0.7}
    document = {
        **facts,
        "experiment": "rain",
        "label": "late",
        "objective": {"metric": metric, "value": value},
        "confidence": 0.95,
        "resamples": 100,
        "test": {"rows": 100, "positives": 30, "metrics": dict.fromkeys(METRICS, estimate), "baseline": None},
        "curves": {
            "model": {"roc": [[0, 0, 1], [1, 1, 0]], "precision_recall": [], "calibration": []},
            "baseline": None,
        },
    }
    with artifact.write_folder(evaluation, facts) as target:
        storage.write_json(target / "metrics.json", document)
        (target / "report.html").write_text(f"<p>{name}</p>")
        (target / ("BLESSED" if blessed else "NOT_BLESSED")).write_text("\n".join(reasons))
    return str(model), str(evaluation)


def publish_spec(run: str = "run-1") -> PublishSpec:
    """Returns the spec of the step for the experiment `rain`."""
    return PublishSpec(code="test", experiment="rain", run_fingerprint=run, objective="auc", lineage={"code": "test"})
