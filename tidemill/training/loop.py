"""The training loop of the Keras families: deterministic, and resumable at every step.

An interrupted training that goes on from a checkpoint ends with the same bits as one that was not interrupted, because
the checkpoint holds everything that the rest depends on: weights, optimizer, random states, the sum of the losses, the
history, the best weights, and the position in an order of rows that is a function of seed and epoch.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from tidemill.errors import Code, TidemillError
from tidemill.step import Preempted
from tidemill.training.input import Layout, Waited, read_labels, shuffled
from tidemill.training.metrics import measure_labels
from tidemill.training.optimizers import Updates
from tidemill.training.threads import default_threads

if TYPE_CHECKING:
    from tidemill.models.parts.base import Run

CHECK_STEPS = 50
"""Steps between two looks at the loss."""


def prepare(seed: int, threads: int | None) -> None:
    """Seeds Keras, NumPy and TensorFlow, makes TensorFlow's ops deterministic and sets its threads.

    Threads can only be set before TensorFlow first runs; in a process where it has, they stay.
    """
    threads = threads or default_threads()
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def network_inputs(network: keras.Model, ids: tf.Tensor, numbers: tf.Tensor) -> dict[str, tf.Tensor]:
    """Those of the two tensors that the network has an input for."""
    return {name: value for name, value in (("ids", ids), ("numbers", numbers)) if name in network.input}


def fit(
    network: keras.Model,
    tables: Sequence[keras.Variable],
    layout: Layout,
    run: Run,
    predict: Callable[[str], np.ndarray],
) -> int:
    """Trains a network on the train split.

    Args:
        network: From the inputs of `network_inputs` to logits [batch, labels].
        tables: Its embedding tables, of which a step updates the rows of its batch alone.
        layout: The features and labels.
        run: Data and settings.
        predict: Gives the probabilities [rows, labels] of a split with the network's present weights.

    Returns:
        The number of epochs that the weights have seen: the best where early stopping is on, else the last.

    Raises:
        TidemillError: `training-diverged`.
        Preempted: SIGTERM has come, and a checkpoint is written.
    """
    trainer = _Trainer(network, tables, layout, run, predict)
    trainer.restore()
    while not trainer.done():
        trainer.epoch()
    return trainer.finish()


class _Trainer:
    """The state of a training that goes on."""

    def __init__(
        self,
        network: keras.Model,
        tables: Sequence[keras.Variable],
        layout: Layout,
        run: Run,
        predict: Callable[[str], np.ndarray],
    ):
        self.layout, self.run, self.predict = layout, run, predict
        self.training, self.history = run.training, run.history
        self.stop_metric = self.training.early_stopping and self.training.early_stopping.metric
        self.rows = run.data.rows("train")
        self.batches = math.ceil(self.rows / self.training.batch_size)
        self.valid_labels = read_labels(run.data, "valid", layout.labels) if run.data.rows("valid") else np.empty(0)
        steps = self.training.epochs * self.batches
        updates = Updates(self.training.optimizer, steps, network.trainable_variables, tables)
        self.loss_sum = tf.Variable(0.0, dtype=tf.float64, name="loss_sum")
        self.weights = [variable.value for variable in network.variables]
        self.optimizer_state = updates.variables
        self.best: list[np.ndarray] = []
        self.place, self.batch, self.seen, self.seconds = 0, 0, 0, 0.0
        self._step = train_step(network, updates, layout, self.training.positive_weight, self.loss_sum)

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
                self._step(rows.ids, rows.numbers, rows.labels)
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
        try:
            valid = self._measured() if len(self.valid_labels) else {}
        except Preempted:
            self._checkpoint(what)
            raise
        share = waited.seconds / max(time.monotonic() - begun, 1e-9)
        self.history.add({"log_loss": loss}, valid, self.seconds, self.seen / self.seconds, share)
        if self.stop_metric and self.history.best(self.stop_metric) == self.place:
            self.best = [variable.numpy() for variable in self.weights]
        self.place, self.batch, self.seen, self.seconds = self.place + 1, 0, 0, 0.0
        self.loss_sum.assign(0.0)
        if self.run.notice.given or self.run.checkpoints.due(self._steps):
            self._checkpoint(what)
            self.run.notice.check()

    def finish(self) -> int:
        """Puts the best weights in place."""
        if not self.best:
            return self.place
        for variable, value in zip(self.weights, self.best, strict=True):
            variable.assign(value)
        return self.history.best(self.stop_metric) + 1

    def restore(self) -> None:
        """Goes on from the newest checkpoint, if there is one."""
        found = self.run.checkpoints.newest()
        if found is None:
            return
        state, arrays = found
        for name, variables in self._variables().items():
            for i, variable in enumerate(variables):
                variable.assign(arrays[f"{name}/{i}"])
        self.best = [arrays[f"best/{i}"] for i in range(len(self.weights))] if "best/0" in arrays else []
        self.place, self.batch, self.seen, self.seconds = (state[k] for k in ("place", "batch", "seen", "seconds"))
        self.history.restore(state["history"])
        self.run.progress.phase(f"goes on from epoch {self.place + 1}, batch {self.batch + 1}")

    def _measured(self) -> dict[str, float]:
        return measure_labels(self.layout.labels, self.valid_labels, self.predict("valid"))

    def _variables(self) -> dict[str, list]:
        return {"weights": self.weights, "optimizer": self.optimizer_state, "loss": [self.loss_sum]}

    def _checkpoint(self, what: str) -> None:
        self._check_loss(what)
        groups = self._variables().items()
        arrays = {f"{name}/{i}": variable.numpy() for name, group in groups for i, variable in enumerate(group)}
        arrays |= {f"best/{i}": value for i, value in enumerate(self.best)}
        position = {"place": self.place, "batch": self.batch, "seen": self.seen, "seconds": self.seconds}
        self.run.checkpoints.save(self._steps, position | {"history": self.history.entries}, arrays)

    @property
    def _steps(self) -> int:
        """Grows with every step."""
        return self.place * self.batches + self.batch

    def _check_loss(self, what: str) -> float:
        """The mean loss of the epoch so far."""
        total = float(self.loss_sum.numpy())
        if not math.isfinite(total):
            raise TidemillError(
                Code.TRAINING_DIVERGED,
                f"training, {what}, batch {self.batch}",
                f"a train loss of {total}",
                "lower training.optimizer.learning_rate, and give numeric features transform: zscore",
                {"epoch": self.place + 1, "batch": self.batch, "learning_rate": self.training.optimizer.learning_rate},
            )
        return total / max(1, self.seen)


def train_step(
    network: keras.Model, updates: Updates, layout: Layout, positive_weight: float, loss_sum: tf.Variable
) -> Callable:
    """A compiled step that updates the weights and adds the batch's loss, the mean over its rows and labels, times its
    rows, to `loss_sum`. The penalties of the layers count for the gradient, not for the loss that is reported."""
    signature = [
        tf.TensorSpec([None, len(layout.ids)], tf.int32),
        tf.TensorSpec([None, len(layout.numbers)], tf.float32),
        tf.TensorSpec([None, len(layout.labels)], tf.float32),
    ]

    @tf.function(input_signature=signature)
    def step(ids: tf.Tensor, numbers: tf.Tensor, labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            logits = network(network_inputs(network, ids, numbers), training=True)
            losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, tf.cast(logits, tf.float32))
            if positive_weight != 1:
                losses *= 1 + (positive_weight - 1) * labels
            loss = tf.reduce_mean(losses)
            total = tf.add_n([loss, *network.losses])
        updates.apply(tape.gradient(total, updates.trained))
        loss_sum.assign_add(tf.cast(loss, tf.float64) * tf.cast(tf.shape(labels)[0], tf.float64))

    return step
