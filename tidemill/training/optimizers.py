"""Optimizers that update, of an embedding table, the rows of the batch alone; in TensorFlow.

Keras's optimizers add a gradient to the whole of a table, so a step's time grows with the table. Here the dense weights
are Keras's, and tables have an update of their own.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

import keras
import tensorflow as tf

from tidemill.experiment.training import Optimizer
from tidemill.training.schedules import ADAGRAD_START, BETA_1, BETA_2, EPSILON, dense_optimizer


class Updates:
    """What one step changes.

    Args:
        config: The optimizer's section of the experiment.
        steps: Number of steps of the whole training, over which a schedule goes.
        variables: The network's trainable variables.
        tables: Those of them that are embedding tables.
    """

    def __init__(
        self, config: Optimizer, steps: int, variables: Sequence[keras.Variable], tables: Sequence[keras.Variable]
    ):
        names = {id(table) for table in tables}
        self._is_table = [id(variable) in names for variable in variables]
        self.trained = [variable.value for variable in variables]
        """What gradients are taken of."""
        self._clip = config.clip_norm
        dense = [variable for variable in variables if id(variable) not in names]
        self._dense = dense_optimizer(config, steps)
        self._dense.build(dense)
        self._tables = [_TABLES[config.name](table.value) for table in tables]

    @property
    def variables(self) -> list[tf.Variable]:
        """The state, which goes into a checkpoint."""
        own = [variable for table in self._tables for variable in table.state]
        return [variable.value for variable in self._dense.variables] + own

    def apply(self, gradients: Sequence[tf.Tensor | tf.IndexedSlices | None]) -> None:
        """Changes the weights by the gradients of `trained`; None where the loss does not depend on them."""
        gradients = [_summed(g) if isinstance(g, tf.IndexedSlices) else g for g in gradients]
        if self._clip is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self._clip)
        # The dense update counts the step, so the tables come before it.
        rate, step = self._dense.learning_rate, tf.cast(self._dense.iterations.value + 1, tf.float32)
        of_tables = [g for g, is_table in zip(gradients, self._is_table, strict=True) if is_table]
        for table, gradient in zip(self._tables, of_tables, strict=True):
            if gradient is not None:  # the network looks nothing up there
                table.update(gradient, tf.cast(rate, tf.float32), step)
        of_dense = [g for g, is_table in zip(gradients, self._is_table, strict=True) if not is_table]
        self._dense.apply(of_dense)
        if not of_dense:
            # Keras counts no step without a gradient, but a schedule and Adam's correction need it.
            self._dense.iterations.assign_add(1)


class _Table(abc.ABC):
    """The update of one table."""

    def __init__(self, table: tf.Variable):
        self._table = table
        self.state: list[tf.Variable] = []

    @abc.abstractmethod
    def update(self, gradient: tf.IndexedSlices, rate: tf.Tensor, step: tf.Tensor) -> None:
        """Changes the rows that the gradient names, each once."""

    def _slot(self, value: float, numbers: int = 1) -> tf.Variable:
        """Some numbers for each of the table's, side by side: a row far away in memory is waited for once."""
        rows, dim = self._table.shape
        slot = tf.Variable(tf.fill([rows, numbers * dim], tf.constant(value, self._table.dtype)), trainable=False)
        self.state.append(slot)
        return slot


class _Adagrad(_Table):
    """Adagrad (Duchi et al., 2011): rows without a gradient are not changed by it, so this is the same."""

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


class _LazyAdam(_Table):
    """Adam (Kingma & Ba, 2015, arXiv:1412.6980) whose moments decay when a row is seen, and only then. The correction
    of the bias is by the step."""

    def __init__(self, table: tf.Variable):
        super().__init__(table)
        self._moments = self._slot(0.0, 2)

    def update(self, gradient: tf.IndexedSlices, rate: tf.Tensor, step: tf.Tensor) -> None:
        values, rows = gradient.values, gradient.indices
        mean, square = tf.split(tf.gather(self._moments, rows), 2, axis=1)
        mean = BETA_1 * mean + (1 - BETA_1) * values
        square = BETA_2 * square + (1 - BETA_2) * tf.square(values)
        self._moments.scatter_update(tf.IndexedSlices(tf.concat([mean, square], axis=1), rows))
        rate *= tf.sqrt(1 - BETA_2**step) / (1 - BETA_1**step)
        self._table.scatter_sub(tf.IndexedSlices(rate * mean / (tf.sqrt(square) + EPSILON), rows))


class _Sgd(_Table):
    """Stochastic gradient descent without momentum."""

    def update(self, gradient: tf.IndexedSlices, rate: tf.Tensor, step: tf.Tensor) -> None:
        self._table.scatter_sub(tf.IndexedSlices(rate * gradient.values, gradient.indices))


_TABLES: dict[str, type[_Table]] = {"adam": _LazyAdam, "adagrad": _Adagrad, "sgd": _Sgd}


def _summed(gradient: tf.IndexedSlices) -> tf.IndexedSlices:
    """The gradient with each row once."""
    indices = tf.reshape(gradient.indices, [-1])
    values = tf.reshape(gradient.values, [tf.size(indices), gradient.values.shape[-1]])
    rows, places = tf.unique(indices)
    return tf.IndexedSlices(tf.math.unsorted_segment_sum(values, places, tf.size(rows)), rows)
