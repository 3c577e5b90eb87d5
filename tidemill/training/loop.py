"""The training loop of the Keras families, over any framework: deterministic, and resumable at every step.

An interrupted training that goes on from a checkpoint ends with the same bits as one that was not interrupted, because
the checkpoint holds everything that the rest depends on: weights, optimizer, random states, the sum of the losses, the
history, the best weights, and the position in an order of rows that is a function of seed and epoch.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tidemill.errors import Code, TidemillError
from tidemill.models.core.inputs import Layout, read_labels
from tidemill.runtime import Preempted
from tidemill.training.input import Waited, shuffled
from tidemill.training.metrics import measure_labels
from tidemill.training.stepper import Stepper

if TYPE_CHECKING:
    from tidemill.models.core.base import Run

CHECK_STEPS = 50
"""Steps between two looks at the loss."""
_BEST = "best"


def steps(run: Run) -> int:
    """The steps that a training takes at most (with `negative_rate` about so many), over which a schedule of the
    learning rate goes."""
    rows = run.data.rows("train")
    if run.training.negative_rate < 1:
        positives = run.data.read("train", [label := run.data.metadata["labels"][0]])[label].to_numpy().sum()
        rows = positives + (rows - positives) * run.training.negative_rate
    return run.training.epochs * math.ceil(rows / run.training.batch_size)


def fit(stepper: Stepper, layout: Layout, run: Run, predict: Callable[[str], np.ndarray]) -> int:
    """Trains a network on the train split. At the end its weights are in the network.

    Args:
        stepper: The network's steps.
        layout: The features and labels.
        run: Data and settings.
        predict: Gives the probabilities [rows, labels] of a split with the weights that the stepper published last.

    Returns:
        The number of epochs that the weights have seen: the best where early stopping is on, else the last.

    Raises:
        TidemillError: `training-diverged`.
        Preempted: SIGTERM has come, and a checkpoint is written.
    """
    trainer = _Trainer(stepper, layout, run, predict)
    trainer.restore()
    while not trainer.done():
        trainer.epoch()
    return trainer.finish()


class _Trainer:
    """The state of a training that goes on."""

    def __init__(self, stepper: Stepper, layout: Layout, run: Run, predict: Callable[[str], np.ndarray]):
        self.stepper, self.layout, self.run, self.predict = stepper, layout, run, predict
        self.training, self.history = run.training, run.history
        self.stop_metric = self.training.early_stopping and self.training.early_stopping.metric
        self.rows = run.data.rows("train")
        self.batches = math.ceil(self.rows / self.training.batch_size)
        self.valid_labels = read_labels(run.data, "valid", layout.labels) if run.data.rows("valid") else np.empty(0)
        self.best: list[np.ndarray] = []
        self.place, self.batch, self.seen, self.seconds = 0, 0, 0, 0.0

    def done(self) -> bool:
        """Whether all epochs are through or early stopping ends them."""
        if self.place >= self.training.epochs:
            return True
        if not self.stop_metric:
            return False
        best = self.history.best(self.stop_metric)
        return best is not None and self.place - 1 - best >= self.training.early_stopping.patience

    def epoch(self) -> None:
        """Trains the rest of the present epoch, and measures the valid split."""
        what = f"epoch {self.place + 1}/{self.training.epochs}"
        size = self.training.batch_size
        begun = time.monotonic()
        started = begun - self.seconds
        stream = shuffled(
            self.run.data, "train", self.layout,
            batch_size=size, seed=self.training.seed, epoch=self.place, first_batch=self.batch,
            negative_rate=self.training.negative_rate,
        )  # fmt: skip
        waited = Waited(stream)
        with contextlib.closing(stream):
            for rows in waited:
                self.stepper.step(rows)
                self.batch += 1
                self.seen += len(rows)
                self.run.progress.rows(min(self.batch * size, self.rows), self.rows, what)
                if self.batch % CHECK_STEPS == 0:
                    self.history.add_loss(self._steps, self._check_loss(what))
                if self.run.notice.given or (self.batch < self.batches and self.run.checkpoints.due(self._steps)):
                    self.seconds = time.monotonic() - started
                    self._checkpoint(what)
                    self.run.notice.check()
        self.seconds = time.monotonic() - started
        loss = self._check_loss(what)  # waits for the last step
        self.stepper.publish()
        try:
            valid = self._measured() if len(self.valid_labels) else {}
        except Preempted:
            self._checkpoint(what)
            raise
        share = waited.seconds / max(time.monotonic() - begun, 1e-9)
        self.history.add({"log_loss": loss}, valid, self.seconds, self.seen / self.seconds, share)
        if self.stop_metric and self.history.best(self.stop_metric) == self.place:
            self.best = self.stepper.weights()
        self.place, self.batch, self.seen, self.seconds = self.place + 1, 0, 0, 0.0
        self.stepper.reset()
        if self.run.notice.given or self.run.checkpoints.due(self._steps):
            self._checkpoint(what)
            self.run.notice.check()

    def finish(self) -> int:
        """Puts the best weights in place."""
        if self.best:
            self.stepper.set_weights(self.best)
        self.stepper.publish()
        return self.history.best(self.stop_metric) + 1 if self.best else self.place

    def restore(self) -> None:
        """Goes on from the newest checkpoint, if there is one."""
        found = self.run.checkpoints.newest()
        if found is None:
            return
        state, arrays = found
        groups: dict[str, list[np.ndarray]] = {}
        for key in sorted(arrays, key=lambda key: int(key.rpartition("/")[2])):
            groups.setdefault(key.rpartition("/")[0], []).append(arrays[key])
        self.best = groups.pop(_BEST, [])
        self.stepper.restore(groups)
        self.place, self.batch, self.seen, self.seconds = (state[k] for k in ("place", "batch", "seen", "seconds"))
        self.history.restore(state["history"])
        self.run.progress.phase(f"goes on from epoch {self.place + 1}, batch {self.batch + 1}")

    def _measured(self) -> dict[str, float]:
        return measure_labels(self.layout.labels, self.valid_labels, self.predict("valid"))

    def _checkpoint(self, what: str) -> None:
        self._check_loss(what)
        groups = self.stepper.state() | {_BEST: self.best}
        arrays = {f"{name}/{i}": value for name, group in groups.items() for i, value in enumerate(group)}
        position = {"place": self.place, "batch": self.batch, "seen": self.seen, "seconds": self.seconds}
        self.run.checkpoints.save(self._steps, position | {"history": self.history.entries}, arrays)

    @property
    def _steps(self) -> int:
        """Grows with every step."""
        return self.place * self.batches + self.batch

    def _check_loss(self, what: str) -> float:
        """The mean loss of the epoch so far."""
        total = self.stepper.loss_sum()
        if not math.isfinite(total):
            raise TidemillError(
                Code.TRAINING_DIVERGED,
                f"training, {what}, batch {self.batch}",
                f"a train loss of {total}",
                "lower training.optimizer.learning_rate, and give numeric features transform: zscore",
                {"epoch": self.place + 1, "batch": self.batch, "learning_rate": self.training.optimizer.learning_rate},
            )
        return total / max(1, self.seen)
