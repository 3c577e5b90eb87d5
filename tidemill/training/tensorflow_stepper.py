"""The stepper of TensorFlow: training steps on one GPU or the CPU.

Keras's optimizers add a gradient to the whole of a table, so that a step's time grows with the table. Here Keras's
optimizers update only the dense weights. Embedding tables have updates of their own, which touch only the rows in the
batch.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from tidemill.cpus import available_cpus
from tidemill.experiment.training import Optimizer, Training
from tidemill.models.core.backend import network_tensors
from tidemill.models.core.inputs import Layout, Rows
from tidemill.models.core.layers import looked_up_by
from tidemill.training.stepper import ADAGRAD_START, BETA_1, BETA_2, EPSILON, Stepper, dense_optimizer

Gradient = tf.Tensor | tf.IndexedSlices | None


class TensorFlowStepper(Stepper):
    """A stepper that runs on TensorFlow. Arguments as for `Stepper`."""

    def __init__(
        self, network: keras.Model, tables: Sequence[keras.Variable], layout: Layout, training: Training, steps: int
    ):
        self._updates = Updates(training.optimizer, steps, network.trainable_variables, tables)
        self._loss_sum = tf.Variable(tf.constant(0.0, tf.float64))
        self._weights = [variable.value for variable in network.variables]
        self._network, self._tables, self._positive_weight = network, tables, training.positive_weight
        compute_gradients = self._compiled_gradients if training.xla else self._gradients
        signature = [
            tf.TensorSpec([None, len(layout.ids)], tf.int32),
            tf.TensorSpec([None, len(layout.numbers)], tf.float32),
            tf.TensorSpec([None, len(layout.labels)], tf.float32),
        ]

        @tf.function(input_signature=signature)
        def step(ids: tf.Tensor, numbers: tf.Tensor, labels: tf.Tensor) -> None:
            loss, gradients = compute_gradients(ids, numbers, labels)
            self._updates.apply(gradients)
            self._loss_sum.assign_add(tf.cast(loss, tf.float64) * tf.cast(tf.shape(labels)[0], tf.float64))

        self._step: Callable[..., None] = step

    @staticmethod
    def prepare(seed: int, threads: int | None) -> None:
        """Seeds Keras, NumPy and TensorFlow, makes TensorFlow's ops deterministic and sets its threads.

        Threads can be set only before TensorFlow first runs. If it has run in this process, they stay as they are.
        """
        threads = threads or available_cpus()
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        keras.utils.set_random_seed(seed)
        tf.config.experimental.enable_op_determinism()

    def step(self, rows: Rows) -> None:
        self._step(rows.ids, rows.numbers, rows.labels)

    def loss_sum(self) -> float:
        return float(self._loss_sum.numpy())

    def reset(self) -> None:
        self._loss_sum.assign(0.0)

    def publish(self) -> None:
        """Does nothing: the steps change the network's own variables."""

    def weights(self) -> list[np.ndarray]:
        return [_to_host(variable) for variable in self._weights]

    def set_weights(self, weights: list[np.ndarray]) -> None:
        for variable, value in zip(self._weights, weights, strict=True):
            variable.assign(value)

    def state(self) -> dict[str, list[np.ndarray]]:
        return {name: [_to_host(variable) for variable in group] for name, group in self._state().items()}

    def restore(self, state: dict[str, list[np.ndarray]]) -> None:
        for name, group in self._state().items():
            for variable, value in zip(group, state[name], strict=True):
                variable.assign(value)

    def _state(self) -> dict[str, list[tf.Variable]]:
        return {"weights": self._weights, "optimizer": self._updates.variables, "loss": [self._loss_sum]}

    def _losses(self, ids: tf.Tensor, numbers: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the batch's loss, and the loss with the penalties of layers, which the gradient is taken of."""
        inputs = network_tensors(self._network, ids, numbers)
        logits = tf.cast(self._network(inputs, training=True), tf.float32)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
        if self._positive_weight != 1:
            losses *= 1 + (self._positive_weight - 1) * labels
        loss = tf.reduce_mean(losses)
        return loss, tf.add_n([loss, *self._network.losses])

    def _gradients(self, ids: tf.Tensor, numbers: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, Sequence[Gradient]]:
        """Returns the loss and the gradients of the trained variables."""
        with tf.GradientTape() as tape:
            loss, penalized = self._losses(ids, numbers, labels)
        return loss, tape.gradient(penalized, self._updates.trained)

    def _compiled_gradients(
        self, ids: tf.Tensor, numbers: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, Sequence[Gradient]]:
        """Does the same as `_gradients`, compiled by XLA.

        XLA has no sparse gradients. So it computes the gradients of the looked-up rows. Outside of the compiled
        function, they become sparse gradients of the tables.
        """
        tables = {id(table.value) for table in self._tables}
        lookups_of: dict[int, list[int]] = {}

        @tf.function(jit_compile=True)
        def compiled(ids: tf.Tensor, numbers: tf.Tensor, labels: tf.Tensor) -> tuple[Any, Any, Any, list[tf.Tensor]]:
            lookups: list[tuple[tf.Tensor, tf.Tensor]] = []
            lookups_of.clear()
            with tf.GradientTape() as tape:

                def look_up(table: keras.Variable, indices: tf.Tensor) -> tf.Tensor:
                    rows = tf.stop_gradient(tf.gather(table.value, indices))
                    tape.watch(rows)
                    lookups_of.setdefault(id(table.value), []).append(len(lookups))
                    lookups.append((indices, rows))
                    return rows

                with looked_up_by(look_up):
                    loss, penalized = self._losses(ids, numbers, labels)
            dense = [v for v in self._updates.trained if id(v) not in tables]
            sources = [dense, [rows for _, rows in lookups]]
            unconnected = tf.UnconnectedGradients.ZERO
            gradients: Any = tape.gradient(penalized, sources, unconnected_gradients=unconnected)
            dense_gradients, row_gradients = gradients
            return loss, dense_gradients, row_gradients, [indices for indices, _ in lookups]

        loss, dense_gradients, row_gradients, row_indices = cast(tuple, compiled(ids, numbers, labels))
        remaining = iter(dense_gradients)
        gradients: list[Gradient] = []
        for variable in self._updates.trained:
            if id(variable) not in tables:
                gradients.append(next(remaining))
                continue
            calls = lookups_of[id(variable)]
            values = tf.concat([tf.reshape(row_gradients[i], [-1, variable.shape[1]]) for i in calls], axis=0)
            indices = tf.concat([tf.reshape(row_indices[i], [-1]) for i in calls], axis=0)
            gradients.append(tf.IndexedSlices(values, indices, tf.shape(variable)))
        return loss, gradients


def _to_host(variable: tf.Variable) -> np.ndarray:
    """Copies a variable to host memory. Later steps do not change the copy.

    Reading copies a table, and for other variables, the next update changes a copy. `numpy()` would copy once more.
    """
    return np.asarray(variable.read_value())


class Updates:
    """The updates of one step to all trained variables.

    Args:
        config: The optimizer's section of the experiment.
        steps: Number of steps of the whole training run, which a schedule spans.
        variables: The network's trainable variables.
        tables: Those that are embedding tables.

    Attributes:
        trained: The variables to take gradients of.
    """

    def __init__(
        self, config: Optimizer, steps: int, variables: Sequence[keras.Variable], tables: Sequence[keras.Variable]
    ):
        table_ids = {id(table) for table in tables}
        self._is_table = [id(variable) in table_ids for variable in variables]
        self.trained = [variable.value for variable in variables]
        self._clip_norm = config.clip_norm
        dense = [variable for variable in variables if id(variable) not in table_ids]
        self._dense: Any = dense_optimizer(config, steps)
        self._dense.build(dense)
        self._tables = [_TABLE_UPDATES[config.name](table.value) for table in tables]

    @property
    def variables(self) -> list[tf.Variable]:
        """The optimizer's state, which checkpoints hold."""
        slots = [variable for table in self._tables for variable in table.state]
        return [variable.value for variable in self._dense.variables] + slots

    def apply(self, gradients: Sequence[Gradient]) -> None:
        """Changes the weights by the gradients of `trained`. A gradient is None if the loss does not depend on it."""
        gradients = [_deduplicated(g) if isinstance(g, tf.IndexedSlices) else g for g in gradients]
        if self._clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self._clip_norm)
        # The dense update increments the step, so the tables are updated first.
        rate, step = self._dense.learning_rate, tf.cast(self._dense.iterations.value + 1, tf.float32)
        table_gradients = [g for g, is_table in zip(gradients, self._is_table, strict=True) if is_table]
        for table, gradient in zip(self._tables, table_gradients, strict=True):
            if gradient is not None:  # None: the network does not use this table
                table.update(cast(tf.IndexedSlices, gradient), tf.cast(rate, tf.float32), step)
        dense_gradients = [g for g, is_table in zip(gradients, self._is_table, strict=True) if not is_table]
        self._dense.apply(dense_gradients)
        if not dense_gradients:
            # Keras does not count a step without gradients, but schedules and Adam's bias correction need it.
            self._dense.iterations.assign_add(1)


class _TableUpdate(abc.ABC):
    """The update of one embedding table."""

    def __init__(self, table: tf.Variable):
        self._table = table
        self.state: list[tf.Variable] = []

    @abc.abstractmethod
    def update(self, gradient: tf.IndexedSlices, rate: tf.Tensor, step: tf.Tensor) -> None:
        """Changes the rows of the gradient, which has each row once. `step` counts from 1."""

    def _slot(self, value: float, numbers: int = 1) -> tf.Variable:
        """Creates `numbers` floats for each float of the table. They are adjacent, to fetch a row from memory once."""
        rows, dim = cast(list[int], self._table.shape.as_list())
        slot = tf.Variable(tf.fill([rows, numbers * dim], tf.constant(value, self._table.dtype)), trainable=False)
        self.state.append(slot)
        return slot


class _Adagrad(_TableUpdate):
    """Adagrad (Duchi et al., 2011). It does not change rows without a gradient, so this equals the dense update."""

    def __init__(self, table: tf.Variable):
        super().__init__(table)
        self._squares = self._slot(ADAGRAD_START)

    def update(self, gradient: tf.IndexedSlices, rate: tf.Tensor, step: tf.Tensor) -> None:
        tf.raw_ops.ResourceSparseApplyAdagradV2(
            var=self._table.handle,
            accum=self._squares.handle,
            lr=rate,
            epsilon=EPSILON,
            grad=gradient.values,
            indices=gradient.indices,
        )


class _LazyAdam(_TableUpdate):
    """Adam (Kingma & Ba, 2015, arXiv:1412.6980) whose moments decay only when a row is in the batch.

    The bias correction uses the number of all steps.
    """

    def __init__(self, table: tf.Variable):
        super().__init__(table)
        self._moments = self._slot(0.0, 2)

    def update(self, gradient: tf.IndexedSlices, rate: tf.Tensor, step: tf.Tensor) -> None:
        values, rows = gradient.values, gradient.indices
        mean, square = tf.split(tf.gather(self._moments, rows), 2, axis=1)
        mean = BETA_1 * mean + (1 - BETA_1) * values
        square = BETA_2 * square + (1 - BETA_2) * tf.square(values)
        self._moments.scatter_update(tf.IndexedSlices(tf.concat([mean, square], axis=1), rows))
        rate *= tf.sqrt(1 - tf.pow(BETA_2, step)) / (1 - tf.pow(BETA_1, step))
        self._table.scatter_sub(tf.IndexedSlices(rate * mean / (tf.sqrt(square) + EPSILON), rows))


class _Sgd(_TableUpdate):
    """Stochastic gradient descent without momentum."""

    def update(self, gradient: tf.IndexedSlices, rate: tf.Tensor, step: tf.Tensor) -> None:
        self._table.scatter_sub(tf.IndexedSlices(rate * gradient.values, gradient.indices))


_TABLE_UPDATES: dict[str, type[_TableUpdate]] = {"adam": _LazyAdam, "adagrad": _Adagrad, "sgd": _Sgd}


def _deduplicated(gradient: tf.IndexedSlices) -> tf.IndexedSlices:
    """Sums the gradients of each row, so that each row occurs once."""
    indices = tf.reshape(gradient.indices, [-1])
    values = tf.reshape(gradient.values, [tf.size(indices), gradient.values.shape[-1]])
    rows, segments = tf.unique(indices)
    return tf.IndexedSlices(tf.math.unsorted_segment_sum(values, segments, tf.size(rows)), rows)
