"""Training steps from fixed weights, by the framework of this process or in a process that uses JAX.

    python -m tests.training.frameworks JOB.json

runs steps and trainings in one process with JAX, because each process imports JAX and compiles again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from tidemill.artifacts.examples import Dataset
from tidemill.errors import TidemillError
from tidemill.experiment.training import Training
from tidemill.models.core import backend
from tidemill.models.core.inputs import Layout, Rows
from tidemill.models.core.registry import new_model, parse_config
from tidemill.models.core.sizes import table_sizes, within_budget
from tidemill.training.defaults import resolve

LAYOUT = Layout(("a", "b", "c"), (50, 7, 50), ("x", "y"), ("label",))
BATCH, LAST = 16, 9
_DCN = {"family": "dcn_v2", "cross_layers": 1, "deep": [8], "embedding_dim": 4}
CASES: dict[str, dict[str, Any]] = {
    "adam with all settings, penalty and weights": {
        "model": _DCN | {"l2_embedding": 0.1},
        "training": {
            "positive_weight": 3.0,
            "optimizer": {
                "name": "adam", "learning_rate": 0.05, "clip_norm": 0.05, "schedule": "cosine", "warmup_steps": 2,
                "weight_decay": 0.1,
            },
        },
        "last": LAST,
    },
    "adagrad with two layers of tables": {
        "model": {"family": "deepfm", "deep": [8], "embedding_dim": 4},
        "training": {"optimizer": {"name": "adagrad", "learning_rate": 0.05}},
    },
    "sgd with tables of two sizes that are shared and cut": {
        "model": _DCN | {"shared_embeddings": [["a", "c"]], "embedding_dims": {"b": 8}},
        "training": {"optimizer": {"name": "sgd", "learning_rate": 0.05, "clip_norm": 0.5}},
        "bytes": 600,
    },
    "a schedule without dense weights": {
        "model": {"family": "lr"},
        "columns": ["a", "b"],
        "training": {"optimizer": {"schedule": "linear"}},
    },
    "no tables": {"model": _DCN, "columns": ["x", "y"]},
}  # fmt: skip
DROPOUT = {"model": _DCN | {"cross_layers": 0, "dropout": 0.3}, "columns": ["x", "y"], "last": LAST}
ONE_DEVICE = {"batch_size": BATCH - 1}
"""A batch size that two devices do not divide. The batches are the same."""


def batches(layout: Layout, last: int) -> list[Rows]:
    """Draws batches in which some ids occur several times and some never. The last one has `last` rows."""
    draw = np.random.default_rng(0)
    rows_of_batches = []
    for rows in (BATCH,) * 4 + (last,):
        ids = np.stack([draw.integers(0, n, rows) for n in layout.num_ids] or [np.empty(rows)], axis=1)
        numbers = draw.normal(size=(rows, len(layout.numbers)))
        labels = draw.integers(0, 2, (rows, len(layout.labels))).astype(np.float32)
        rows_of_batches.append(Rows(ids.astype(np.int32)[:, : len(layout.ids)], numbers.astype(np.float32), labels))
    return rows_of_batches


def run_steps(case: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns the weights by path after the batches, and `loss`, `scores` of the last batch, and `devices`."""
    from tidemill.models.core.neural import NeuralModel, logits_of, tables_of
    from tidemill.training.networks import select_stepper

    columns = case.get("columns", LAYOUT.columns)
    ids = [i for i, name in enumerate(LAYOUT.ids) if name in columns]
    layout = Layout(
        tuple(LAYOUT.ids[i] for i in ids),
        tuple(LAYOUT.num_ids[i] for i in ids),
        tuple(name for name in LAYOUT.numbers if name in columns),
        LAYOUT.labels,
    )
    config = parse_config(case["model"])
    training, _ = resolve(Training(**{"batch_size": BATCH, "threads": 1} | case.get("training", {})), config, BATCH)
    stepper_class = select_stepper()
    stepper_class.prepare(0, 1)
    model = new_model(config, layout)
    assert isinstance(model, NeuralModel)
    sizes = table_sizes(model.config, layout)
    if "bytes" in case:
        sizes = within_budget(sizes, [np.arange(n)[::-1] for n in layout.num_ids], case["bytes"], "budget")
        assert sizes.slots
    network = model.network = model.build(sizes, precision=training.precision)
    draw = np.random.default_rng(1)
    for variable in network.trainable_variables:
        variable.assign(draw.normal(size=variable.shape, scale=0.3))
    rows = batches(layout, case.get("last", BATCH))  # frameworks compile again for another number of rows
    stepper = stepper_class(logits_of(network), tables_of(network), layout, training, len(rows))
    for batch in rows:
        stepper.step(batch)
    loss = stepper.loss_sum()
    stepper.publish()
    weights = {variable.path.replace("/", "."): variable.numpy() for variable in network.trainable_variables}
    scores = model.predict_rows(rows[-1])
    return weights | {"loss": np.array(loss), "scores": scores, "devices": np.array(stepper.devices)}


def assert_close(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Compares two results of `run_steps`, except the number of devices."""
    assert set(got) == set(expected)
    for path in set(expected) - {"devices"}:
        np.testing.assert_allclose(got[path], expected[path], atol=3e-5, rtol=1e-4, err_msg=path)


def run_in_jax(folder: Path, job: dict[str, Any], devices: int = 2) -> Path:
    """Runs a job in a process that uses JAX, and returns the folder of its results."""
    # Compiling without optimization takes half the time, and the small networks of tests do not need it.
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    env = os.environ | {"XLA_FLAGS": f"{flags} --xla_llvm_disable_expensive_passes=true"}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    (folder / "job.json").write_text(json.dumps(job | {"folder": str(folder)}))
    subprocess.run([sys.executable, "-m", __name__, str(folder / "job.json")], env=env, check=True)
    return folder


def _run_job(job: dict[str, Any]) -> None:
    backend.select("jax", 1)
    folder = Path(job["folder"])
    for name, case in job["steps"].items():
        np.savez(folder / f"{name}.npz", **run_steps(case))
    results = {}
    for name, training in job["trainings"].items():
        results[name] = _train(name, job["shop"], folder, training)
    results |= {"resumed": _resume(job["shop"], folder, job["resumed"])} if "resumed" in job else {}
    if "warm_start" in job:
        np.save(folder / "warm_start.npy", _warm_start(job["shop"], folder, **job["warm_start"]))
    (folder / "results.json").write_text(json.dumps(results))


def _train(name: str, artifacts: str, folder: Path, training: dict[str, Any]) -> dict[str, Any]:
    """Runs the train step, and returns the summary or the error."""
    from tests.training.conftest import Shop

    try:
        model, settings = training["model"], training["training"]
        return vars(Shop.at(Path(artifacts), folder).train(model, name, backend="jax", **settings))
    except TidemillError as error:
        return error.to_dict()
    except Exception:
        return {"traceback": traceback.format_exc()}


def _resume(artifacts: str, folder: Path, model: dict[str, Any]) -> list[str]:
    """Returns the fingerprints of an uninterrupted fit and of one that was interrupted and resumed."""
    from tests.training.conftest import Shop, Stop, StopAfter

    whole, resumed = (Shop.at(Path(artifacts), folder / name) for name in ("whole", "interrupted"))
    # JAX compiles once, because the batch size divides the rows.
    settings = {"backend": "jax", "epochs": 2, "batch_size": 60, "early_stopping": {"metric": "auc", "patience": 1}}
    fingerprints = [whole.fit(model, **settings)[0].fingerprint()]
    try:
        resumed.fit(model, progress=StopAfter(30), checkpoint_seconds=1e-9, **settings)
    except Stop:
        fingerprints.append(resumed.fit(model, **settings)[0].fingerprint())
    return fingerprints


def _warm_start(artifacts: str, folder: Path, model: dict[str, Any], published: str) -> np.ndarray:
    """Returns the scores of the valid rows by a model that starts with published weights."""
    from tests.training.conftest import Shop

    shop = Shop.at(Path(artifacts), folder / "warm_start")
    fitted, _ = shop.fit_from(model, published, backend="jax", batch_size=60)
    return fitted.predict(Dataset(shop.transformed), "valid")


if __name__ == "__main__":
    _run_job(json.loads(Path(sys.argv[1]).read_text()))
