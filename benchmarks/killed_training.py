"""Kills a training with a large embedding table at random moments, resumes it, and compares it with an undisturbed one.

    python benchmarks/killed_training.py
    python benchmarks/killed_training.py --gib 0.01 --rows 500000 --batch 256 --seconds 2    # small, for a test

First, a process trains undisturbed. Then processes train the same network in another root. Each is killed by SIGKILL
at a random moment between a quarter and two and a quarter of `--seconds` after its first step, and the next one resumes
from the checkpoint that it finds. The last one is not killed. The script fails if a kill lost more than `--seconds` of
work and the time of one write, if the weights of the two trainings differ in any bit, or if checkpoints blocked the
undisturbed training for more than 5% of the time.

With Adam a checkpoint has three times the bytes of the table. The process needs memory for twice that: the state, and
its copy that is being written.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tidemill.artifacts.examples import Dataset, DatasetWriter
from tidemill.experiment.training import Optimizer, Training
from tidemill.models.core.inputs import Layout
from tidemill.models.core.registry import new_model
from tidemill.models.dcn_v2 import DcnV2
from tidemill.runtime import Progress
from tidemill.training.checkpoint import Checkpoints
from tidemill.training.fit_context import FitContext
from tidemill.training.history import History
from tidemill.training.train import BLOCKED_SHARE, fit

DIM = 64
LABEL = "label"
_RESUMED = re.compile(r"resumes at epoch (\d+), batch (\d+)")


class Log(Progress):
    """Writes the position after each step, and what checkpoints cost so far, as lines of JSON.

    A position is a list of the epoch and the number of rows of the epoch, both of which only grow.
    """

    def __init__(self, path: Path, checkpoints: Checkpoints, args: argparse.Namespace):
        super().__init__("train")
        self._log, self._checkpoints = path.open("a", encoding="utf-8"), checkpoints
        self._batch, self._pace, self._last = args.batch, args.pace, time.monotonic()

    def rows(self, done: int, total: int | None = None, phase: str = "") -> None:
        time.sleep(max(0.0, self._last + self._pace - time.monotonic()))
        self._last = time.monotonic()
        epoch = int(phase.removeprefix("epoch ").partition("/")[0])
        self._line({"position": [epoch, done]})

    def phase(self, name: str) -> None:
        if match := _RESUMED.fullmatch(name):
            self._line({"resumed": [int(match[1]), (int(match[2]) - 1) * self._batch]})

    def _line(self, event: dict[str, Any]) -> None:
        saved = self._checkpoints
        event |= {"at": time.monotonic(), "write_seconds": saved.write_seconds, "blocked": saved.blocked_share()}
        self._log.write(json.dumps(event) + "\n")
        self._log.flush()


def write_rows(path: Path, rows: int, ids: int) -> None:
    """Writes transformed rows of one id feature and one number, with a label that depends on both."""
    draw = np.random.default_rng(0)
    item, number = draw.integers(0, ids, rows, np.int32), draw.normal(size=rows).astype(np.float32)
    label = draw.random(rows) < 1 / (1 + np.exp(-number - np.sin(item)))
    table = pa.table({"item": item, "number": number, LABEL: label.astype(np.int8)})
    features = [{"name": "item", "kind": "id", "num_ids": ids}, {"name": "number", "kind": "number"}]
    with DatasetWriter(path, table.schema, metadata={"features": features, "labels": [LABEL]}) as writer:
        writer.write("train", table)


def train(work: Path, root: Path, args: argparse.Namespace) -> None:
    """Trains in this process, with checkpoints in `root`, and prints the result as JSON."""
    training = Training(
        epochs=args.epochs, batch_size=args.batch, early_stopping=None, checkpoint_seconds=args.seconds,
        optimizer=Optimizer(name=args.optimizer, learning_rate=1e-3),
    )  # fmt: skip
    data = Dataset(work / "rows")
    config = DcnV2(family="dcn_v2", embedding_dim=DIM, cross_layers=1, deep=[64])
    model = new_model(config, Layout.of(data.metadata["features"], [LABEL]))
    checkpoints = Checkpoints(str(root), "training", args.seconds)
    progress = Log(root / f"{time.monotonic_ns()}.jsonl", checkpoints, args)
    history = History(root / "logs", "epoch")
    with checkpoints:
        fit(model, FitContext(data, training, history, checkpoints, progress))
        blocked, write_seconds = checkpoints.blocked_share(), checkpoints.write_seconds
        seconds = sum(entry["seconds"] for entry in history.entries)
        losses = [entry["train"]["log_loss"] for entry in history.entries]
        fingerprint = model.fingerprint()
    result = {"fingerprint": fingerprint, "losses": losses, "seconds": seconds}
    print(json.dumps(result | {"blocked": blocked, "write_seconds": write_seconds}))


def start(root: Path, args: argparse.Namespace) -> tuple[subprocess.Popen[str], Path]:
    """Starts a process that trains. Returns it when it has done its first step, and its log."""
    command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--work", str(args.work)]
    before = set(root.glob("*.jsonl"))
    env = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
    process = subprocess.Popen([*command, "--child", str(root)], env=env, stdout=subprocess.PIPE, text=True)
    while True:
        logs = set(root.glob("*.jsonl")) - before
        if logs and any("position" in event for event in read_log(min(logs))):
            return process, min(logs)
        if process.poll() is not None:
            raise SystemExit(f"a training ended with exit code {process.returncode} before its first step")
        time.sleep(0.05)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Returns the events of a log. The last line of a killed process may be incomplete."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Waits for a training and returns its result."""
    output, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"a training ended with exit code {process.returncode}")
    return json.loads(str(output).splitlines()[-1])


def kill(root: Path, args: argparse.Namespace, draw: random.Random) -> tuple[float, list[dict[str, Any]]]:
    """Trains, and kills the process at a random moment. Returns the moment, and the process's log."""
    process, log = start(root, args)
    time.sleep(args.seconds * draw.uniform(0.25, 2.25))
    if process.poll() is not None:
        raise SystemExit("the training ended before the kill; use more --epochs")
    os.kill(process.pid, signal.SIGKILL)
    at = time.monotonic()
    process.wait()
    return at, read_log(log)


def lost_seconds(killed_at: float, events: list[dict[str, Any]], resumed: list[int] | None) -> float:
    """Returns how long before the kill the killed process was at the position at which the next one resumed."""
    steps = [event for event in events if "position" in event]
    # A process that wrote no checkpoint itself lost everything since its first step.
    reached = [event["at"] for event in steps if resumed is not None and event["position"] <= resumed]
    return killed_at - max([steps[0]["at"], *reached])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=1.0, help="size of the embedding table")
    parser.add_argument("--optimizer", choices=["adam", "adagrad", "sgd"], default="adam")
    parser.add_argument("--seconds", type=float, default=Training().checkpoint_seconds, help="checkpoint_seconds")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=4, help="the training must take longer than all kills")
    parser.add_argument("--pace", type=float, default=0.0, help="shortest seconds of a step, for a machine with others")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--work", type=Path, help="folder for rows and checkpoints; defaults to a temporary one")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return train(args.work, args.child, args)
    with tempfile.TemporaryDirectory() as temporary:
        args.work = args.work or Path(temporary)
        write_rows(args.work / "rows", args.rows, round(args.gib * 2**30 / DIM / 4))
        measure(args)


def measure(args: argparse.Namespace) -> None:
    """Runs the trainings, prints what they lost, and checks it."""
    whole_root, root = (args.work / name for name in ("whole", "killed"))
    for folder in (whole_root, root):
        folder.mkdir()
    whole = finished(start(whole_root, args)[0])
    print(f"undisturbed: {whole['seconds']:.0f} s, blocked {whole['blocked']:.2%}", flush=True)
    print(f"             slowest write {whole['write_seconds']:.1f} s", flush=True)
    if not args.kills:
        return check_blocked(whole)
    draw = random.Random(args.seed)
    kills = [kill(root, args, draw) for _ in range(args.kills)]
    process, log = start(root, args)
    last = finished(process)
    logs = [*(events for _, events in kills), read_log(log)]
    slowest = max(
        whole["write_seconds"], last["write_seconds"], *(e["write_seconds"] for events in logs for e in events)
    )
    limit = max(args.seconds, slowest) + slowest
    failures = []
    for i, (at, events) in enumerate(kills):
        resumed = next((event["resumed"] for event in logs[i + 1] if "resumed" in event), None)
        lost, ran = lost_seconds(at, events, resumed), at - next(e["at"] for e in events if "position" in e)
        print(f"kill {i + 1}: after {ran:.1f} s, lost {lost:.1f} s of at most {limit:.1f} s, resumed at {resumed}")
        if lost > limit:
            failures.append(f"kill {i + 1} lost {lost:.1f} s")
    print(f"slowest write {slowest:.1f} s; last training blocked {last['blocked']:.2%}")
    if (last["fingerprint"], last["losses"]) != (whole["fingerprint"], whole["losses"]):
        failures.append("the weights differ")
    else:
        print(f"weights and losses are equal bit by bit: {last['fingerprint']}")
    if failures:
        raise SystemExit("; ".join(failures))
    check_blocked(whole)


def check_blocked(whole: dict[str, Any]) -> None:
    """Fails if checkpoints blocked the undisturbed training too long."""
    if whole["blocked"] > BLOCKED_SHARE:
        raise SystemExit(f"checkpoints blocked the undisturbed training for {whole['blocked']:.2%} of the time")


if __name__ == "__main__":
    main()
