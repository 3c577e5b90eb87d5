"""Measures the training of DCN-V2 by JAX, on all GPUs of the machine or on its CPU.

    python benchmarks/jax_training.py
    python benchmarks/jax_training.py --rows 200000 --batch 8192 --deep 64 32    # small, for a CPU

The network has embeddings of size 16, 3 cross layers and a deep network of widths 1024, 512 and 256. It is trained on
transformed synthetic Criteo rows in Parquet, as in the train step but without the export. The first epoch, which
compiles, is not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from transforms.work import LABEL

from tidemill.artifacts.examples import Dataset
from tidemill.experiment.training import Optimizer, Training
from tidemill.models.core import backend
from tidemill.models.core.inputs import Layout
from tidemill.models.core.registry import new_model
from tidemill.models.dcn_v2 import DcnV2
from tidemill.runtime import Progress
from tidemill.training.checkpoint import Checkpoints
from tidemill.training.fit_context import FitContext
from tidemill.training.history import History
from tidemill.training.train import fit


class Utilization(threading.Thread):
    """A thread that reads the utilization of all GPUs, in percent, from nvidia-smi twice a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[tuple[float, float]] = []
        self._ended = threading.Event()

    def run(self) -> None:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not self._ended.wait(0.5):
            percents = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            self.samples.append((time.monotonic(), statistics.mean(map(float, percents))))

    def mean(self, since: float) -> float | None:
        """Stops the thread, and returns the mean of the samples since then, or None without samples."""
        self._ended.set()
        values = [value for at, value in self.samples if at >= since]
        return round(statistics.mean(values), 1) if values else None


class Measured(Progress):
    """Records when the second epoch starts."""

    since = float("inf")

    def rows(self, done: int, total: int | None = None, what: str = "") -> None:
        if not what.startswith("epoch 1/"):
            self.since = min(self.since, time.monotonic())

    def phase(self, what: str) -> None:
        pass


def prepared(work: Path, rows: int) -> Dataset:
    """Returns the transformed rows. A separate process makes them, because TensorFlow does not release GPU memory."""
    code = "import sys; from pathlib import Path; from training_input import prepared; prepared(Path(sys.argv[1]), {})"
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code.format(rows), str(work)], env=env, check=True)
    return Dataset(work / f"transformed-{rows}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=128 * 65_536)
    parser.add_argument("--batch", type=int, default=65_536)
    parser.add_argument("--epochs", type=int, default=4, help="including the first, which is not measured")
    parser.add_argument("--deep", type=int, nargs="*", default=[1024, 512, 256])
    parser.add_argument("--precision", choices=["float32", "mixed_bfloat16"], default="float32")
    parser.add_argument("--backend", choices=["jax", "tensorflow"], default="jax")
    parser.add_argument("--work", type=Path, help="folder to keep rows in; defaults to a temporary one")
    args = parser.parse_args()
    if args.epochs < 2:
        parser.error(f"--epochs {args.epochs}: use at least 2; the first is not measured")
    training = Training(
        backend=args.backend, batch_size=args.batch, epochs=args.epochs, precision=args.precision,
        optimizer=Optimizer(name="adagrad", learning_rate=0.01), early_stopping=None,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        data = prepared(args.work or Path(temporary), args.rows)
        backend.select(training.backend, training.threads)
        config = DcnV2(family="dcn_v2", embedding_dim=16, cross_layers=3, deep=args.deep)
        model = new_model(config, Layout.of(data.metadata["features"], [LABEL]))
        history = History(Path(temporary) / "logs", "epoch")
        progress = Measured("train")
        gpus = Utilization() if shutil.which("nvidia-smi") else None
        if gpus:
            gpus.start()
        checkpoints = Checkpoints(temporary, "none", every_seconds=86_400)
        fit(model, FitContext(data, training, history, checkpoints, progress))
        history.close()
    entries = history.entries[1:]
    seconds = sum(entry["seconds"] for entry in entries)
    result = {
        "rows_per_second": round(len(entries) * args.rows / seconds),
        "input_share": round(sum(entry["input_share"] * entry["seconds"] for entry in entries) / seconds, 4),
        "gpu_utilization_percent": gpus.mean(progress.since) if gpus else None,
        "first_epoch_seconds": history.entries[0]["seconds"],
        "backend": args.backend,
        "devices": model.facts()["devices"],
        "rows": args.rows,
        "batch": args.batch,
        "precision": args.precision,
        "versions": model.versions(),
    }
    utilization = result["gpu_utilization_percent"]
    gpu_text = "GPU utilization unknown, without nvidia-smi" if utilization is None else f"GPUs {utilization}% busy"
    print(
        f"{result['rows_per_second']:,} rows per second on {result['devices']} device(s), "
        f"{result['input_share']:.1%} of the time waiting for rows; {gpu_text}"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
