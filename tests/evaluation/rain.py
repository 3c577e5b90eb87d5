"""Examples of the experiment `rain`, models trained on them, and the `evaluate` step on both."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tidemill import storage
from tidemill.artifacts import artifact
from tidemill.artifacts.examples import Dataset, DatasetWriter
from tidemill.evaluation.evaluate import EvaluationSummary, evaluate
from tidemill.experiment.evaluation import Evaluation
from tidemill.experiment.training import Training
from tidemill.models.core.booster import GbdtModel
from tidemill.models.core.inputs import Layout
from tidemill.models.gbdt import Gbdt
from tidemill.runtime import Progress
from tidemill.steps.evaluate import EvaluateSpec
from tidemill.training.boosting import fit_trees
from tidemill.training.checkpoint import Checkpoints
from tidemill.training.fit_context import FitContext
from tidemill.training.history import History

CITIES = ("Lyon", "Porto", "Oslo", None)
FEATURES = [{"name": "city", "kind": "id", "num_ids": 4}, {"name": "x", "kind": "number"}]


@dataclass(frozen=True)
class Rain:
    """Paths of raw examples, and of the same examples transformed."""

    examples: str
    transformed: str


def make_rain(folder: Path, sizes: dict[str, int], seed: int = 0, one_class: tuple[str, ...] = ()) -> Rain:
    """Writes examples with the columns id (key), city (with nulls), x, wet and late.

    The label is `late`, which depends on x and city; it is 0 in all rows of the splits `one_class`.
    """
    rng = np.random.default_rng(seed)
    raw_schema = pa.schema(
        [("id", pa.int64()), ("city", pa.string()), ("x", pa.float64()), ("wet", pa.bool_()), ("late", pa.int8())]
    )
    schema = pa.schema([("city", pa.int32()), ("x", pa.float32()), ("late", pa.float32())])
    rain = Rain(str(folder / "examples"), str(folder / "transformed"))
    metadata = {"labels": ["late"], "features": FEATURES, "transform_fingerprint": "none"}
    with (
        DatasetWriter(rain.examples, raw_schema, tuple(sizes)) as raw,
        DatasetWriter(rain.transformed, schema, tuple(sizes), metadata) as transformed,
    ):
        start = 0
        for split, rows in sizes.items():
            x = rng.normal(size=rows)
            city = rng.choice(4, rows, p=[0.5, 0.3, 0.15, 0.05])
            logit = 1.2 * x - 1.0 + 0.5 * (city == 0)
            late = (
                np.zeros(rows, int) if split in one_class else (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(int)
            )
            ids = np.arange(start, start + rows)
            start += rows
            columns = [
                ids,
                pa.array([CITIES[c] for c in city], pa.string()),
                x,
                pa.array(x > 0.3),
                late.astype(np.int8),
            ]
            raw.write(split, pa.table(columns, raw_schema.names))
            transformed.write(
                split, pa.table([city.astype(np.int32), x.astype(np.float32), late.astype(np.float32)], schema.names)
            )
    return rain


def make_model(
    folder: Path, rain: Rain, name: str = "gbdt", rounds: int = 20, columns: tuple[str, ...] = ("city", "x")
) -> str:
    """Trains a gradient-boosting model, and writes its folder as `train` does, without the files for serving."""
    data = Dataset(rain.transformed)
    features = [f for f in FEATURES if f["name"] in columns]
    config = Gbdt(family="gbdt", name=name, rounds=rounds, min_data_in_leaf=5, num_leaves=8)
    training = Training(early_stopping=None, threads=1)
    fitted = GbdtModel(config, Layout.of(features, ["late"]))
    path, facts = folder / name, {"family": "gbdt", "name": name}
    with artifact.write_folder(path, facts) as target:
        history = History(target / "logs", "round")
        checkpoints = Checkpoints(str(folder / "root"), name, 60.0)
        kept = fit_trees(fitted, FitContext(data, training, history, checkpoints, Progress("test")))
        history.close()
        fitted.save(target)
        history.save(target / "history.json", kept)
        facts["model_fingerprint"] = fitted.fingerprint()
        document = {
            **facts,
            "config": config.model_dump(mode="json"),
            "features": features,
            "labels": ["late"],
            "unit": "round",
        }
        storage.write_json(target / "model.json", document)
    return str(path)


def evaluate_spec(baseline: str | None = None, **evaluation: object) -> EvaluateSpec:
    """Returns the spec of the step, with settings of `evaluation`."""
    settings = Evaluation.model_validate(evaluation)
    return EvaluateSpec(
        code="test", experiment="rain", labels=["late"], key=["id"], evaluation=settings, baseline=baseline
    )


def run_evaluate(folder: Path, rain: Rain, model: str, spec: EvaluateSpec) -> EvaluationSummary:
    """Runs the step, which writes `evaluation` and `report.html` to the folder."""
    return evaluate(
        spec, rain.examples, rain.transformed, model,
        evaluation=str(folder / "evaluation"), report=str(folder / "report.html"), progress=Progress("evaluate"),
    )  # fmt: skip


def read_metrics(evaluation: str | Path) -> dict:
    """Returns `metrics.json`. Fails if it has NaN or infinities, which are not JSON."""

    def refuse(text: str) -> None:
        raise AssertionError(f"metrics.json holds {text}")

    return json.loads((Path(evaluation) / "metrics.json").read_text(), parse_constant=refuse)
