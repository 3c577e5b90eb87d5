"""The training loop of neural models, independent of the framework: deterministic, and resumable at every step.

A training run that was interrupted and resumes from a checkpoint ends with the same bits as an uninterrupted one. The
checkpoint holds everything that the rest depends on: weights, optimizer, random states, the sum of the losses, the
history, the best weights, and the position in an order of rows that depends only on seed and epoch.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable

import numpy as np

from tidemill.auc_and_log_loss import measure_labels
from tidemill.errors import Code, TidemillError
from tidemill.models.core.inputs import Layout, read_labels
from tidemill.runtime import Preempted
from tidemill.training.defaults import known
from tidemill.training.fit_context import FitContext
from tidemill.training.input import TimedBatches, shuffled
from tidemill.training.stepper import Stepper

CHECK_STEPS = 50
"""Number of steps between two checks of the loss."""
_BEST = "best"


def count_steps(context: FitContext) -> int:
    """Returns the maximum number of steps of a training run, which learning rate schedules span.

    With `negative_rate` the number is approximate.
    """
    rows = context.data.rows("train")
    if context.training.negative_rate < 1:
        label = context.data.metadata["labels"][0]
        positives = context.data.read("train", [label])[label].to_numpy().sum()
        rows = positives + (rows - positives) * context.training.negative_rate
    return known(context.training.epochs) * math.ceil(rows / known(context.training.batch_size))


def fit(stepper: Stepper, layout: Layout, context: FitContext, predict: Callable[[str], np.ndarray]) -> int:
    """Trains a network on the train split. Its final weights are published to the network.

    Args:
        stepper: The network's stepper.
        layout: The features and labels.
        context: Data and settings.
        predict: Returns the probabilities [rows, labels] of a split with the weights that the stepper published last.

    Returns:
        The number of epochs that the weights have seen: the best epoch with early stopping, else the last.

    Raises:
        TidemillError: `training-diverged`.
        Preempted: SIGTERM arrived and a checkpoint is written.
    """
    trainer = _Trainer(stepper, layout, context, predict)
    trainer.restore()
    while not trainer.done():
        trainer.run_epoch()
    return trainer.finish()


class _Trainer:
    """The state of a training run.

    Attributes:
        epoch: The current epoch, from 0.
        batch: Number of batches of the epoch so far.
        seen: Number of rows of the epoch so far.
        seconds: Time spent on the epoch so far, also before an interruption.
        best: The weights of the best epoch, for early stopping.
        valid_seconds: Time that measuring the valid split took last.
        resumed_rows: Rows that earlier processes trained on, in all epochs.
    """

    def __init__(self, stepper: Stepper, layout: Layout, context: FitContext, predict: Callable[[str], np.ndarray]):
        self.stepper, self.layout, self.context, self.predict = stepper, layout, context, predict
        self.training, self.history = context.training, context.history
        self.stopping = self.training.early_stopping
        self.rows = context.data.rows("train")
        self.epochs, self.batch_size = known(self.training.epochs), known(self.training.batch_size)
        self.batches = math.ceil(self.rows / self.batch_size)
        has_valid = context.data.rows("valid") > 0
        self.valid_labels = read_labels(context.data, "valid", layout.labels) if has_valid else np.empty(0)
        self.best: list[np.ndarray] = []
        self.epoch, self.batch, self.seen, self.seconds = 0, 0, 0, 0.0
        self.valid_seconds = 0.0
        self.resumed_rows = 0

    def done(self) -> bool:
        """Returns whether all epochs are finished or early stopping applies."""
        if self.epoch >= self.epochs:
            return True
        if not self.stopping:
            return False
        best = self.history.best(self.stopping.metric)
        return best is not None and self.epoch - 1 - best >= known(self.stopping.patience)

    def run_epoch(self) -> None:
        """Trains the rest of the current epoch, and measures the valid split."""
        phase = f"epoch {self.epoch + 1}/{self.epochs}"
        size = self.batch_size
        resumed = time.monotonic()
        started = resumed - self.seconds
        stream = shuffled(
            self.context.data, "train", self.layout,
            batch_size=size, seed=self.training.seed, epoch=self.epoch, first_batch=self.batch,
            negative_rate=self.training.negative_rate,
        )  # fmt: skip
        timed = TimedBatches(stream)
        with contextlib.closing(stream):
            for rows in timed:
                self.stepper.step(rows)
                self.batch += 1
                self.seen += len(rows)
                earlier = self.epoch * self.rows - self.resumed_rows
                self.context.progress.rows(min(self.batch * size, self.rows), self.rows, phase, earlier=earlier)
                if self.batch % CHECK_STEPS == 0:
                    self.history.add_loss(self._steps, self._check_loss(phase))
                if self.batch < self.batches:
                    self.seconds = time.monotonic() - started
                    self._checkpoint_if_due(phase)
        self.seconds = time.monotonic() - started
        loss = self._check_loss(phase)  # waits for the last step
        self.stepper.publish()
        valid = self._measure_valid(phase) if len(self.valid_labels) else {}
        share = timed.seconds / max(time.monotonic() - resumed, 1e-9)
        self.history.add({"log_loss": loss}, valid, self.seconds, self.seen / self.seconds, share)
        self.context.progress.metrics({"log_loss": loss}, valid, phase)
        if self.stopping and self.history.best(self.stopping.metric) == self.epoch:
            self.best = self.stepper.weights()
        self.epoch, self.batch, self.seen, self.seconds = self.epoch + 1, 0, 0, 0.0
        self.stepper.reset()
        self._checkpoint_if_due(phase)

    def finish(self) -> int:
        """Publishes the best weights and returns the number of epochs that they have seen."""
        if self.best:
            self.stepper.set_weights(self.best)
        self.stepper.publish()
        best = self.history.best(self.stopping.metric) if self.stopping and self.best else None
        return self.epoch if best is None else best + 1

    def restore(self) -> None:
        """Restores the newest checkpoint, if there is one."""
        checkpoint = self.context.checkpoints.newest()
        if checkpoint is None:
            return
        state, arrays = checkpoint
        groups: dict[str, list[np.ndarray]] = {}
        for key in sorted(arrays, key=lambda key: int(key.rpartition("/")[2])):
            groups.setdefault(key.rpartition("/")[0], []).append(arrays[key])
        self.best = groups.pop(_BEST, [])
        self.stepper.restore(groups)
        self.epoch, self.batch, self.seen, self.seconds = (state[k] for k in ("epoch", "batch", "seen", "seconds"))
        self.resumed_rows = self.epoch * self.rows + self.seen
        self.history.restore(state["history"])
        self.context.progress.phase(f"resumes at epoch {self.epoch + 1}, batch {self.batch + 1}")

    def _measure_valid(self, phase: str) -> dict[str, float]:
        # No checkpoint can be taken while it measures.
        self._checkpoint_if_due(phase, ahead=self.valid_seconds)
        started = time.monotonic()
        try:
            scores = self.predict("valid")
        except Preempted:
            self._checkpoint(phase)
            self.context.checkpoints.wait()
            raise
        self.valid_seconds = time.monotonic() - started
        return measure_labels(self.layout.labels, self.valid_labels, scores)

    def _checkpoint_if_due(self, phase: str, ahead: float = 0.0) -> None:
        """Starts to write a checkpoint if one is due. On SIGTERM, waits until it is complete and stops."""
        preempted = self.context.notice.received
        if preempted or self.context.checkpoints.due(self._position, ahead):
            self._checkpoint(phase)
        if preempted:
            self.context.checkpoints.wait()
            self.context.notice.check()

    def _checkpoint(self, phase: str) -> None:
        self._check_loss(phase)
        position = {"epoch": self.epoch, "batch": self.batch, "seen": self.seen, "seconds": self.seconds}
        state = position | {"history": list(self.history.entries)}
        self.context.checkpoints.save(self._position, state, self._snapshot)

    def _snapshot(self) -> dict[str, np.ndarray]:
        groups = self.stepper.state() | {_BEST: self.best}
        return {f"{name}/{i}": value for name, group in groups.items() for i, value in enumerate(group)}

    @property
    def _position(self) -> int:
        """A number that grows with each step and each pass over the valid split."""
        return self.epoch * (self.batches + 1) + self.batch

    @property
    def _steps(self) -> int:
        """The number of steps so far, in all epochs."""
        return self.epoch * self.batches + self.batch

    def _check_loss(self, phase: str) -> float:
        """Returns the mean loss of the epoch so far."""
        total = self.stepper.loss_sum()
        if not math.isfinite(total):
            raise TidemillError(
                Code.TRAINING_DIVERGED,
                f"training, {phase}, batch {self.batch}",
                f"a train loss of {total}",
                "lower training.optimizer.learning_rate, and set transform: zscore for numeric features",
                {"epoch": self.epoch + 1, "batch": self.batch, "learning_rate": self.training.optimizer.learning_rate},
            )
        return total / max(1, self.seen)
