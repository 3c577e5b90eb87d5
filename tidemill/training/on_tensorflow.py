"""Training steps by TensorFlow, on one GPU or the CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tidemill.experiment.training import Training
from tidemill.models.core.inputs import Layout, Rows
from tidemill.models.core.layers import looked_up_by
from tidemill.models.core.network import network_inputs
from tidemill.training.optimizers import Updates
from tidemill.training.stepper import Stepper
from tidemill.training.threads import default_threads


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


def scorer(network: keras.Model) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A network as a compiled function from ids [rows, id features] int32 and numbers [rows, number features] float32
    to probabilities [rows, labels] float32."""

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.float32)])
    def scores(ids: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
        return network(_inputs(network, ids, numbers), training=False)

    return lambda ids, numbers: scores(ids, numbers).numpy()


class Steps(Stepper):
    """The steps of a network.

    Args:
        network: From its inputs to logits [batch, labels].
        tables: Its embedding tables, of which a step updates the rows of its batch alone.
        layout: The features and labels.
        training: Optimizer, weights of rows, and whether XLA compiles.
        steps: Number of steps of the whole training, over which a schedule goes.
    """

    def __init__(
        self, network: keras.Model, tables: Sequence[keras.Variable], layout: Layout, training: Training, steps: int
    ):
        self._updates = Updates(training.optimizer, steps, network.trainable_variables, tables)
        self._loss_sum = tf.Variable(0.0, dtype=tf.float64)
        self._weights = [variable.value for variable in network.variables]
        self._network, self._tables, self._positive_weight = network, tables, training.positive_weight
        gradients = self._compiled_gradients if training.xla else self._gradients
        signature = [
            tf.TensorSpec([None, len(layout.ids)], tf.int32),
            tf.TensorSpec([None, len(layout.numbers)], tf.float32),
            tf.TensorSpec([None, network.output.shape[1]], tf.float32),
        ]

        @tf.function(input_signature=signature)
        def step(ids: tf.Tensor, numbers: tf.Tensor, labels: tf.Tensor) -> None:
            loss, found = gradients(ids, numbers, labels)
            self._updates.apply(found)
            self._loss_sum.assign_add(tf.cast(loss, tf.float64) * tf.cast(tf.shape(labels)[0], tf.float64))

        self._step = step

    def step(self, rows: Rows) -> None:
        self._step(rows.ids, rows.numbers, rows.labels)

    def loss_sum(self) -> float:
        return float(self._loss_sum.numpy())

    def reset(self) -> None:
        self._loss_sum.assign(0.0)

    def publish(self) -> None:
        """The network has them always."""

    def weights(self) -> list[np.ndarray]:
        return [variable.numpy() for variable in self._weights]

    def set_weights(self, weights: list[np.ndarray]) -> None:
        for variable, value in zip(self._weights, weights, strict=True):
            variable.assign(value)

    def state(self) -> dict[str, list[np.ndarray]]:
        return {name: [variable.numpy() for variable in group] for name, group in self._state().items()}

    def restore(self, state: dict[str, list[np.ndarray]]) -> None:
        for name, group in self._state().items():
            for variable, value in zip(group, state[name], strict=True):
                variable.assign(value)

    def _state(self) -> dict[str, list[tf.Variable]]:
        return {"weights": self._weights, "optimizer": self._updates.variables, "loss": [self._loss_sum]}

    def _total(self, ids: tf.Tensor, numbers: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The batch's loss, and the loss with the penalties of the layers, which count for the gradient."""
        logits = tf.cast(self._network(_inputs(self._network, ids, numbers), training=True), tf.float32)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
        if self._positive_weight != 1:
            losses *= 1 + (self._positive_weight - 1) * labels
        loss = tf.reduce_mean(losses)
        return loss, tf.add_n([loss, *self._network.losses])

    def _gradients(self, ids: tf.Tensor, numbers: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, list]:
        """The loss, and the gradients of what is trained."""
        with tf.GradientTape() as tape:
            loss, total = self._total(ids, numbers, labels)
        return loss, tape.gradient(total, self._updates.trained)

    def _compiled_gradients(self, ids: tf.Tensor, numbers: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, list]:
        """The same, computed by XLA. It knows no gradient of some rows of a table, so that of the rows is taken, and
        made one of the table outside."""
        of_tables = {id(table.value) for table in self._tables}
        places_of: dict[int, list[int]] = {}

        @tf.function(jit_compile=True)
        def compiled(ids: tf.Tensor, numbers: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, list, list, list]:
            looked_up: list[tuple[tf.Tensor, tf.Tensor]] = []
            places_of.clear()
            with tf.GradientTape() as tape:

                def look_up(variable: keras.Variable, places: tf.Tensor) -> tf.Tensor:
                    rows = tf.stop_gradient(tf.gather(variable.value, places))
                    tape.watch(rows)
                    places_of.setdefault(id(variable.value), []).append(len(looked_up))
                    looked_up.append((places, rows))
                    return rows

                with looked_up_by(look_up):
                    loss, total = self._total(ids, numbers, labels)
            dense = [v for v in self._updates.trained if id(v) not in of_tables]
            of_dense, of_rows = tape.gradient(
                total, [dense, [rows for _, rows in looked_up]], unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            return loss, of_dense, of_rows, [places for places, _ in looked_up]

        loss, of_dense, of_rows, places = compiled(ids, numbers, labels)
        rest, found = iter(of_dense), []
        for variable in self._updates.trained:
            if id(variable) not in of_tables:
                found.append(next(rest))
                continue
            calls = places_of[id(variable)]
            values = tf.concat([tf.reshape(of_rows[call], [-1, variable.shape[1]]) for call in calls], axis=0)
            indices = tf.concat([tf.reshape(places[call], [-1]) for call in calls], axis=0)
            found.append(tf.IndexedSlices(values, indices, tf.shape(variable)))
        return loss, found


def _inputs(network: keras.Model, ids: tf.Tensor, numbers: tf.Tensor) -> dict[str, tf.Tensor]:
    """The network's inputs, of known widths."""
    given = network_inputs(network, ids, numbers)
    return {name: tf.ensure_shape(value, network.input[name].shape) for name, value in given.items()}
