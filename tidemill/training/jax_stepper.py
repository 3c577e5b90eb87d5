"""The stepper of JAX: training steps on the CPU or on all GPUs of one machine.

A step is one compiled function from all state to all state, and reuses the state's memory. Batches are split over the
devices and weights are replicated, so that XLA sums the gradients over the devices. Embedding tables have updates of
their own, which touch only the rows in the batch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tidemill.experiment.training import Training
from tidemill.models.core.backend import network_inputs
from tidemill.models.core.inputs import Layout, Rows
from tidemill.models.core.layers import LookUp, looked_up_by
from tidemill.training.defaults import known
from tidemill.training.stepper import (
    ADAGRAD_START,
    BETA_1,
    BETA_2,
    EPSILON,
    Stepper,
    dense_optimizer,
    learning_rate,
)

QUEUED_STEPS = 3
"""Steps that are queued on the device. While it computes one, the rows of the next are transferred."""

Values = dict[str, Any]
Slots = tuple[jax.Array, ...]
"""The optimizer's state for a table."""
TableGradients = dict[int, tuple[jax.Array, jax.Array]]
"""Rows and their gradients, by the table's index."""


class JaxStepper(Stepper):
    """A stepper that runs on JAX. Arguments as for `Stepper`.

    JAX compiles once for each number of rows: a second time for an epoch's last batch, and once in each epoch with
    `training.negative_rate`, which leaves another number of rows each time.

    Attributes:
        devices: The largest number of the machine's devices that divides `training.batch_size`. If it does not divide a
            batch, such as an epoch's last one, each device computes the whole batch: padding it would change what
            layers compute from a batch, such as the penalty on its embeddings.
    """

    def __init__(
        self, network: keras.Model, tables: Sequence[keras.Variable], layout: Layout, training: Training, steps: int
    ):
        table_ids = {id(table) for table in tables}
        trainable = network.trainable_variables
        self._is_table = [id(variable) in table_ids for variable in trainable]
        self._network, self._config, self._positive_weight = network, training.optimizer, training.positive_weight
        self._variables = {
            "dense": [variable for variable in trainable if id(variable) not in table_ids],
            "tables": [variable for variable in trainable if id(variable) in table_ids],
            "other": network.non_trainable_variables,
        }
        self._optimizer = dense_optimizer(self._config, steps)
        self._optimizer.build(self._variables["dense"])
        self._rate = learning_rate(self._config, steps)
        available = jax.local_devices()
        self.devices = max(n for n in range(1, len(available) + 1) if known(training.batch_size) % n == 0)
        mesh = Mesh(np.array(available[: self.devices]), ("rows",))
        self._replicated = NamedSharding(mesh, PartitionSpec())
        self._split = NamedSharding(mesh, PartitionSpec("rows"))
        values: Values = {name: [variable.value for variable in group] for name, group in self._variables.items()}
        values["optimizer"] = [variable.value for variable in self._optimizer.variables]
        values["slots"] = [table_slots(self._config.name, table) for table in values["tables"]]
        values["steps"] = jnp.zeros((), jnp.int32)
        self._values = jax.device_put(values, self._replicated)
        self._losses: list[tuple[jax.Array, int]] = []
        self._loss_sum = 0.0
        self._step = jax.jit(self._stepped, donate_argnums=0, out_shardings=self._replicated)
        self.publish()  # releases the initial values

    @staticmethod
    def prepare(seed: int, threads: int | None) -> None:
        """Seeds Keras's seed generator and NumPy.

        Keras's own function would import TensorFlow. Threads are set when the backend is selected.
        """
        random.seed(seed)
        np.random.seed(seed)

    def step(self, rows: Rows) -> None:
        sharding = self._replicated if len(rows) % self.devices else self._split
        batch = jax.device_put((rows.ids, rows.numbers, rows.labels), sharding)
        self._values, loss = self._step(self._values, *batch)
        self._losses.append((loss, len(rows)))
        if len(self._losses) > QUEUED_STEPS:
            self._losses[-1 - QUEUED_STEPS][0].block_until_ready()

    def loss_sum(self) -> float:
        losses = jax.device_get([loss for loss, _ in self._losses])
        for loss, (_, rows) in zip(losses, self._losses, strict=True):
            self._loss_sum += float(loss) * rows
        self._losses.clear()
        return self._loss_sum

    def reset(self) -> None:
        self._losses.clear()
        self._loss_sum = 0.0

    def publish(self) -> None:
        for name, group in self._variables.items():
            for variable, value in zip(group, self._values[name], strict=True):
                variable.assign(value.addressable_data(0))

    def weights(self) -> list[np.ndarray]:
        values = {
            id(variable): value
            for name, group in self._variables.items()
            for variable, value in zip(group, self._values[name], strict=True)
        }
        return _to_host([values[id(variable)] for variable in self._network.variables])

    def set_weights(self, weights: list[np.ndarray]) -> None:
        by_id = {id(v): weight for v, weight in zip(self._network.variables, weights, strict=True)}
        for name, group in self._variables.items():
            self._values[name] = self._place([by_id[id(variable)] for variable in group])

    def state(self) -> dict[str, list[np.ndarray]]:
        optimizer = _to_host(jax.tree.leaves(self._optimizer_values()))
        return {"weights": self.weights(), "optimizer": optimizer, "loss": [np.array(self.loss_sum())]}

    def restore(self, state: dict[str, list[np.ndarray]]) -> None:
        self.reset()
        self._loss_sum = float(state["loss"][0])
        self.set_weights(state["weights"])
        optimizer = jax.tree.unflatten(jax.tree.structure(self._optimizer_values()), state["optimizer"])
        self._values |= self._place(optimizer)

    def _place(self, values: Any) -> Any:
        """Copies arrays to all devices. The memory is new, because the next step reuses it."""
        return jax.device_put(jax.tree.map(jnp.array, values), self._replicated)

    def _optimizer_values(self) -> Values:
        return {name: self._values[name] for name in ("optimizer", "slots", "steps")}

    def _stepped(
        self, values: Values, ids: jax.Array, numbers: jax.Array, labels: jax.Array
    ) -> tuple[Values, jax.Array]:
        """Returns all values after a batch, and its loss."""
        inputs = network_inputs(self._network, ids, numbers)
        # The gradient of a looked-up row is the gradient of a zero that is added to it.
        lookups = self._lookups(values, inputs)
        zeros = [jnp.zeros(shape, jnp.float32) for _, shape in lookups]
        gradients = jax.grad(self._penalized_loss, argnums=(0, 1), has_aux=True)
        (dense, rows), (loss, other, indices) = gradients(values["dense"], zeros, values, inputs, labels)
        tables: TableGradients = {}
        for i, table in enumerate(values["tables"]):
            calls = [call for call, (table_index, _) in enumerate(lookups) if table_index == i]
            if calls:
                at = jnp.concatenate([indices[call].reshape(-1) for call in calls])
                gradient = jnp.concatenate([rows[call].reshape(-1, table.shape[1]) for call in calls])
                at, gradient = jax.lax.with_sharding_constraint((at, gradient), self._replicated)
                tables[i] = deduplicated(at, gradient, table.shape[0])
        dense, tables = self._clipped(dense, tables)
        updated = self._updated(values, dense, tables)
        return updated | {"other": other, "steps": values["steps"] + 1}, loss

    def _updated(self, values: Values, dense_gradients: list, table_gradients: TableGradients) -> Values:
        step = (values["steps"] + 1).astype(jnp.float32)
        rate = self._rate(values["steps"]) if callable(self._rate) else self._rate
        rate = jnp.asarray(rate, jnp.float32)
        tables, slots = list(values["tables"]), list(values["slots"])
        for i, (rows, gradient) in table_gradients.items():
            tables[i], slots[i] = update_table(self._config.name, tables[i], slots[i], rows, gradient, rate, step)
        dense, optimizer = self._optimizer.stateless_apply(values["optimizer"], dense_gradients, values["dense"])
        return {"dense": dense, "tables": tables, "optimizer": optimizer, "slots": slots}

    def _clipped(self, dense: list, tables: TableGradients) -> tuple[list, TableGradients]:
        """Scales all gradients so that their global norm is at most `clip_norm`."""
        max_norm = self._config.clip_norm
        if max_norm is None:
            return dense, tables
        squares = [jnp.sum(jnp.square(g)) for g in [*dense, *(g for _, g in tables.values())]]
        norm = jnp.sqrt(sum(squares))
        scale = max_norm * jnp.minimum(1 / norm, 1 / max_norm) + (norm - norm)  # NaN if the norm is infinite
        return [g * scale for g in dense], {i: (rows, g * scale) for i, (rows, g) in tables.items()}

    def _penalized_loss(
        self, dense: list, zeros: list, values: Values, inputs: dict[str, jax.Array], labels: jax.Array
    ) -> tuple[jax.Array, tuple]:
        """Returns the batch's loss with the penalties of layers; and, as auxiliary values, the loss without them, the
        non-trainable variables after the batch, and the indices of the looked-up rows."""
        indices: list[jax.Array] = []

        def look_up(table: keras.Variable, at: jax.Array) -> jax.Array:
            indices.append(at)
            return jnp.take(table.value, at, axis=0, mode="clip") + zeros[len(indices) - 1]

        logits, other, penalties = self._call_network(dense, values, inputs, look_up)
        logits = logits.astype(jnp.float32)
        losses = jax.nn.softplus(logits) - labels * logits
        if self._positive_weight != 1:
            losses *= 1 + (self._positive_weight - 1) * labels
        loss = jnp.mean(losses)
        return sum(penalties, loss), (loss, other, indices)

    def _lookups(self, values: Values, inputs: dict[str, jax.Array]) -> list[tuple[int, tuple[int, ...]]]:
        """Returns, for each lookup in the order of the calls, the table's index and the shape of the rows."""
        table_index = {id(table): i for i, table in enumerate(self._variables["tables"])}
        lookups: list[tuple[int, tuple[int, ...]]] = []

        def look_up(table: keras.Variable, at: jax.Array) -> jax.Array:
            rows = jnp.take(table.value, at, axis=0, mode="clip")
            lookups.append((table_index[id(table)], rows.shape))
            return rows

        def call(values: Values, inputs: dict[str, jax.Array]) -> tuple:
            return self._call_network(values["dense"], values, inputs, look_up)

        jax.eval_shape(call, values, inputs)
        return lookups

    def _call_network(
        self, dense: list, values: Values, inputs: dict[str, jax.Array], look_up: LookUp
    ) -> tuple[jax.Array, list, list]:
        """Returns logits, the non-trainable variables after the call, and the penalties of layers."""
        remaining = {True: iter(values["tables"]), False: iter(dense)}
        trainable = [next(remaining[is_table]) for is_table in self._is_table]
        with looked_up_by(look_up):
            call: Callable[..., Any] = self._network.stateless_call
            return call(trainable, values["other"], inputs, training=True, return_losses=True)


def _to_host(values: Sequence[jax.Array]) -> list[np.ndarray]:
    """Copies values to host memory, all at once. The next step reuses the values' own memory."""
    local = [value.addressable_data(0) for value in values]
    for value in local:
        value.copy_to_host_async()
    # On the CPU, an array shares its value's memory.
    return [np.array(value) if value.platform() == "cpu" else np.asarray(value) for value in local]


def deduplicated(indices: jax.Array, values: jax.Array, rows: int) -> tuple[jax.Array, jax.Array]:
    """Sums the gradients of each row, so that each row occurs once.

    Later writes go to rows that occur once, so their order does not matter: a step returns the same bits each time,
    also on a GPU, where additions to one row from several threads would not.

    Args:
        indices: [n] int32, rows of a table, in any order and any number of times.
        values: [n, size] float32, the gradient at each.
        rows: Number of rows of the table.

    Returns:
        [n] int32 and [n, size] float32: each row once, with the sum of its gradients. The other entries have distinct
        indices beyond the table, and zeros.
    """
    order = jnp.argsort(indices)
    indices, values = indices[order], values[order]
    differs = indices[1:] != indices[:-1]
    first, last = jnp.append(True, differs), jnp.append(differs, True)

    def add(left: tuple[jax.Array, jax.Array], right: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Sums within one row, and starts over at the first entry of the next."""
        starts = right[0]
        return left[0] | starts, right[1] + jnp.where(starts[:, None], 0, left[1])

    _, sums = jax.lax.associative_scan(add, (first, values))
    beyond = rows + jnp.arange(len(indices), dtype=indices.dtype)
    return jnp.where(last, indices, beyond), jnp.where(last[:, None], sums, 0)


def table_slots(name: str, table: jax.Array) -> Slots:
    """Returns the optimizer's state for a table before the first step."""
    return tuple(jnp.full_like(table, start) for start in _SLOT_STARTS[name])


def update_table(
    name: str, table: jax.Array, slots: Slots, rows: jax.Array, gradient: jax.Array, rate: jax.Array, step: jax.Array
) -> tuple[jax.Array, Slots]:
    """Updates the rows of a table that are in the batch.

    Args:
        name: `adam`, `adagrad` or `sgd`.
        table: [rows of the table, size] float32.
        slots: As from `table_slots`.
        rows: [n] int32, from `deduplicated`.
        gradient: [n, size] float32, from `deduplicated`.
        rate: The learning rate, float32.
        step: Counted from 1, float32.

    Returns:
        The new table and slots.
    """
    change, updated = _UPDATES[name]([_get(slot, rows) for slot in slots], gradient, rate, step)
    table = table.at[rows].add(-change, mode="drop", unique_indices=True)
    pairs = zip(slots, updated, strict=True)
    return table, tuple(slot.at[rows].set(value, mode="drop", unique_indices=True) for slot, value in pairs)


def _get(table: jax.Array, rows: jax.Array) -> jax.Array:
    return table.at[rows].get(mode="fill", fill_value=0, unique_indices=True)


def _adagrad(
    slots: list[jax.Array], gradient: jax.Array, rate: jax.Array, step: jax.Array
) -> tuple[jax.Array, list[jax.Array]]:
    """Updates rows by Adagrad (Duchi et al., 2011)."""
    squares = slots[0] + jnp.square(gradient)
    return rate * gradient / (jnp.sqrt(squares) + EPSILON), [squares]


def _lazy_adam(
    slots: list[jax.Array], gradient: jax.Array, rate: jax.Array, step: jax.Array
) -> tuple[jax.Array, list[jax.Array]]:
    """Updates rows by Adam (Kingma & Ba, 2015, arXiv:1412.6980), whose moments decay only when a row is in the batch.

    The bias correction uses the number of all steps.
    """
    mean = BETA_1 * slots[0] + (1 - BETA_1) * gradient
    square = BETA_2 * slots[1] + (1 - BETA_2) * jnp.square(gradient)
    rate = rate * jnp.sqrt(1 - BETA_2**step) / (1 - BETA_1**step)
    return rate * mean / (jnp.sqrt(square) + EPSILON), [mean, square]


def _sgd(
    slots: list[jax.Array], gradient: jax.Array, rate: jax.Array, step: jax.Array
) -> tuple[jax.Array, list[jax.Array]]:
    """Updates rows by stochastic gradient descent without momentum."""
    return rate * gradient, []


_UPDATES: dict[str, Callable] = {"adam": _lazy_adam, "adagrad": _adagrad, "sgd": _sgd}
_SLOT_STARTS: dict[str, tuple[float, ...]] = {"adam": (0.0, 0.0), "adagrad": (ADAGRAD_START,), "sgd": ()}
