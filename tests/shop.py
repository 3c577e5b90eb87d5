"""A small shop: rows whose label depends on the features, an experiment over them, and a folder to run it in."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import yaml

from tidemill.cli.main import main

ROWS = 3000


def shop_rows(rows: int = ROWS, seed: int = 0) -> pa.Table:
    """Returns rows whose `bought` depends on price, site and device. The price is missing in every twentieth row."""
    random = np.random.default_rng(seed)
    price = random.lognormal(2, 1, rows)
    site = random.integers(0, 12, rows)
    device = random.integers(0, 3, rows)
    logit = 1.5 - 0.8 * np.log(price) + 0.2 * site - 0.7 * device
    bought = random.random(rows) < 1 / (1 + np.exp(-logit))
    price = pa.array(np.round(price, 4), mask=np.arange(rows) % 20 == 0)
    columns = {"id": np.arange(rows), "price": price, "site": [f"site{s}" for s in site]}
    return pa.table(
        {**columns, "device": [("phone", "tablet", "desk")[d] for d in device], "bought": bought.astype(int)}
    )


def shop_experiment() -> dict:
    """Returns an experiment over `rows.csv` in the same folder, small enough to train in a second."""
    return {
        "name": "shop",
        "source": {"tables": {"rows": "rows.csv"}},
        "label": "bought",
        "key": ["id"],
        "split": {"by": "hash"},
        "features": {
            "price": {"kind": "numeric", "transform": "log"},
            "site": {"kind": "categorical"},
            "device": {"kind": "categorical"},
        },
        "models": [
            {"family": "dcn_v2", "deep": [8], "cross_layers": 1, "embedding_dim": 2},
            {"family": "gbdt", "rounds": 20, "num_leaves": 7, "min_data_in_leaf": 10},
        ],
        "training": {"epochs": 2, "batch_size": 256, "optimizer": {"learning_rate": 0.01}},
        "evaluation": {
            "slices": [["device"]],
            "gates": {"auc": {"min": 0.6}},
            "better_than_base_rate": False,  # after two epochs, dcn_v2 ranks well and is not calibrated
            "bootstrap": {"resamples": 20},
        },
        "predict": {"source": {"tables": {"rows": "rows.csv"}, "sql": "SELECT id, price, site, device FROM rows"}},
    }


@dataclass
class Workspace:
    """A folder with an experiment, its data and a root."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "experiment.yaml"

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def write(self, experiment: dict, rows: pa.Table | None = None) -> None:
        self.file.write_text(yaml.safe_dump(experiment, sort_keys=False))
        if rows is not None:
            pa.csv.write_csv(rows, self.folder / "rows.csv")

    def arguments(self, *more: str) -> list[str]:
        return ["run", str(self.file), "--root", str(self.root), "--plain", *more]

    def run(self, *more: str) -> subprocess.CompletedProcess[str]:
        """Runs the command in this process, so that all runs share one fork server with TensorFlow loaded."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(self.arguments(*more))
        return subprocess.CompletedProcess(["tidemill", *self.arguments(*more)], code, out.getvalue(), err.getvalue())

    def succeed(self, *more: str) -> dict[str, str]:
        """Runs the command, which must succeed, and returns the state of each step."""
        done = self.run(*more)
        assert done.returncode == 0, done.stdout + done.stderr
        return self.states()

    def start(self, *more: str) -> subprocess.Popen:
        """Starts the command in a new process."""
        command = [sys.executable, "-m", "tidemill.cli.main", *self.arguments(*more)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self, *more: str, when: Callable[[], bool]) -> None:
        """Runs the command in a new process until `when` returns True and kills it. Then no process of it is left."""
        process = self.start(*more)
        wait_for(lambda: when() or process.poll() is not None)
        assert process.poll() is None, "the run ended before it was killed"
        process.kill()
        process.wait()
        wait_for(lambda: not processes_with(str(self.root)))

    def last(self) -> dict:
        return json.loads(max((self.root / "runs").glob("*/run.json")).read_text())

    def states(self) -> dict[str, str]:
        return {step["name"]: step["state"] for step in self.last()["steps"]}

    def outputs(self, step: str) -> dict:
        return next(s["outputs"] for s in self.last()["steps"] if s["name"] == step)


def wait_for(condition, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.05)


def processes_with(text: str) -> list[str]:
    """Returns the command lines of the processes that contain `text`."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if text in command:
            found.append(command)
    return found
