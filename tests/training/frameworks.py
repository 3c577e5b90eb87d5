"""The same steps by any framework, from the same weights: in this process, or by `python -m` in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tidemill.experiment.training import Training
from tidemill.models import parse_config
from tidemill.models.core import backend
from tidemill.models.core.inputs import Layout, Rows
from tidemill.models.core.registry import open_model
from tidemill.models.core.sizes import table_sizes, within_budget
from tidemill.runtime import ERROR_FILE

LAYOUT = Layout(("a", "b", "c"), (50, 7, 50), ("x", "y"), ("label",))
BATCH, LAST = 64, 37
SMALL = {"deep": [16, 8], "embedding_dim": 4}
_TOLD = {"clip_norm": 0.05, "schedule": "cosine", "warmup_steps": 2, "weight_decay": 0.1}
CASES: dict[str, dict] = {
    f"{name}{', and all settings' * bool(told)}": {
        "model": {"family": "dcn_v2"} | SMALL,
        "training": {"optimizer": {"name": name, "learning_rate": 0.05} | told},
    }
    for name in ("adam", "adagrad", "sgd")
    for told in ({}, _TOLD)
} | {
    "two layers of tables": {"model": {"family": "deepfm"} | SMALL},
    "nothing but tables": {"model": {"family": "lr"}, "columns": ["a", "b"]},
    "a schedule of nothing but tables": {
        "model": {"family": "lr"},
        "columns": ["a", "b"],
        "training": {"optimizer": {"schedule": "linear"}},
    },
    "no tables": {"model": {"family": "dcn_v2"} | SMALL, "columns": ["x", "y"]},
    "penalty": {"model": {"family": "dcn_v2", "l2_embedding": 0.1} | SMALL},
    "sizes": {"model": {"family": "deepfm", "embedding_dims": {"a": 8}} | SMALL},
    "shared": {"model": {"family": "dcn_v2", "shared_embeddings": [["a", "c"]]} | SMALL},
    "cut": {"model": {"family": "dcn_v2"} | SMALL, "bytes": 800},
    "weighted": {"model": {"family": "dlrm", "bottom": [8]} | SMALL, "training": {"positive_weight": 3.0}},
}
DROPOUT = {"model": {"family": "dcn_v2", "dropout": 0.3, "l2_embedding": 0.1} | SMALL}


def batches(layout: Layout) -> list[Rows]:
    """Some batches with few ids, and a smaller one at the end."""
    draw = np.random.default_rng(0)
    found = []
    for rows in (BATCH,) * 5 + (LAST,):
        ids = np.stack([draw.integers(0, n, rows) for n in layout.num_ids] or [np.empty(rows)], axis=1)
        numbers = draw.normal(size=(rows, len(layout.numbers)))
        labels = draw.integers(0, 2, (rows, len(layout.labels))).astype(np.float32)
        found.append(Rows(ids.astype(np.int32)[:, : len(layout.ids)], numbers.astype(np.float32), labels))
    return found


def trained(case: dict) -> dict[str, np.ndarray]:
    """Weights by path after the batches, the sum of losses as `loss`, the scores of the last batch as `scores`, and the
    number of `devices`."""
    from tidemill.models.core.neural import logits_of, tables_of
    from tidemill.training.networks import select_stepper

    columns = case.get("columns", LAYOUT.columns)
    kept = [place for place, name in enumerate(LAYOUT.ids) if name in columns]
    layout = Layout(
        tuple(LAYOUT.ids[p] for p in kept),
        tuple(LAYOUT.num_ids[p] for p in kept),
        tuple(name for name in LAYOUT.numbers if name in columns),
        LAYOUT.labels,
    )
    training = Training(**{"batch_size": BATCH, "threads": 1} | case.get("training", {}))
    stepper_class = select_stepper()
    stepper_class.prepare(0, 1)
    model = open_model(parse_config(case["model"]), layout)
    found = table_sizes(model.config, layout)
    if "bytes" in case:
        found = within_budget(found, [np.arange(n)[::-1] for n in layout.num_ids], case["bytes"], "budget")
        assert found.slots
    network = model.network = model.build(found, precision=training.precision)
    draw = np.random.default_rng(1)
    for variable in network.trainable_variables:
        variable.assign(draw.normal(size=variable.shape, scale=0.3))
    rows = batches(layout)
    steps = stepper_class(logits_of(network), tables_of(network), layout, training, len(rows))
    for batch in rows:
        steps.step(batch)
    loss = steps.loss_sum()
    steps.publish()
    weights = {variable.path.replace("/", "."): variable.numpy() for variable in network.trainable_variables}
    return weights | {
        "loss": np.array(loss),
        "scores": model.predict_rows(rows[-1]),
        "devices": np.array(steps.devices),
    }


def by_jax(cases: dict[str, dict], folder: Path, devices: int = 1) -> dict[str, dict[str, np.ndarray]]:
    """The same for some cases, by JAX in one process with this number of devices of the CPU."""
    env = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-m", __name__, json.dumps(list(cases.values())), str(folder)]
    subprocess.run(command, env=env, check=True)
    return {name: dict(np.load(folder / f"{place}.npz")) for place, name in enumerate(cases)}


def train_step_told(spec: str, paths: list[str], root: str, model: str, events: str, error: str) -> None:
    """The train step. Its error goes to a file."""
    from tests.training.test_resume import train_step

    os.environ[ERROR_FILE] = error
    train_step(spec, paths, root, model, events)


if __name__ == "__main__":
    backend.select("jax", 1)
    for number, one in enumerate(json.loads(sys.argv[1])):
        np.savez(Path(sys.argv[2]) / f"{number}.npz", **trained(one))
