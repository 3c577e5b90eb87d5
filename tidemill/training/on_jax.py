"""Training steps by JAX, on the CPU or on all GPUs of one machine.

A step is one compiled function from all state to all state, whose memory it takes over. Batches are split over the
devices and weights are on each, so that XLA adds the gradients up over the devices.
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
from tidemill.models.core.inputs import Layout, Rows
from tidemill.models.core.layers import looked_up_by
from tidemill.models.core.network import network_inputs
from tidemill.training import jax_tables
from tidemill.training.schedules import dense_optimizer, learning_rate
from tidemill.training.stepper import Stepper

UNDER_WAY = 3
"""Steps that are handed to the device ahead of it. While it computes one, the next one's rows go there."""
_LEAST_SCORED = 256

Values = dict[str, Any]


def prepare(seed: int, threads: int | None) -> None:
    """Seeds what Keras draws its seeds from, and NumPy. Keras's own function would import TensorFlow too. Threads are
    set where the backend is selected, before JAX first runs."""
    random.seed(seed)
    np.random.seed(seed)


def scorer(network: keras.Model) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A network as a compiled function from ids [rows, id features] int32 and numbers [rows, number features] float32
    to probabilities [rows, labels] float32. It multiplies in float32 where a GPU would by default take fewer bits: the
    exported model must give the same."""

    @jax.jit
    def scores(trainable: list, other: list, inputs: dict[str, jax.Array]) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return network.stateless_call(trainable, other, inputs, training=False)[0]

    def score(ids: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        rows = len(ids)
        # Each number of rows compiles anew, so there are few.
        more = max(_LEAST_SCORED, 1 << (rows - 1).bit_length()) - rows if rows else 0
        inputs = network_inputs(network, *(np.pad(part, ((0, more), (0, 0))) for part in (ids, numbers)))
        groups = (network.trainable_variables, network.non_trainable_variables)
        return np.array(scores(*([variable.value for variable in group] for group in groups), inputs))[:rows]

    return score


class Steps(Stepper):
    """The steps of a network. Each number of rows is compiled once: an epoch's last batch compiles a second time, and
    with `training.negative_rate`, which leaves another number in each epoch, once an epoch.

    Args:
        network: From its inputs to logits [batch, labels].
        tables: Its embedding tables, of which a step updates the rows of its batch alone.
        layout: The features and labels.
        training: Optimizer and weights of rows.
        steps: Number of steps of the whole training, over which a schedule goes.

    Attributes:
        devices: As many of the machine's as divide `training.batch_size`. A batch that they do not divide, an epoch's
            last one, is computed by each as a whole: filled up with rows that do not count it would change what layers
            make of a batch, such as the penalty on its embeddings.
    """

    def __init__(
        self, network: keras.Model, tables: Sequence[keras.Variable], layout: Layout, training: Training, steps: int
    ):
        named = {id(table) for table in tables}
        trainable = network.trainable_variables
        self._is_table = [id(variable) in named for variable in trainable]
        self._network, self._config, self._positive_weight = network, training.optimizer, training.positive_weight
        self._variables = {
            "dense": [variable for variable in trainable if id(variable) not in named],
            "tables": [variable for variable in trainable if id(variable) in named],
            "other": network.non_trainable_variables,
        }
        self._optimizer = dense_optimizer(self._config, steps)
        self._optimizer.build(self._variables["dense"])
        self._rate = learning_rate(self._config, steps)
        found = jax.local_devices()
        self.devices = max(n for n in range(1, len(found) + 1) if training.batch_size % n == 0)
        mesh = Mesh(np.array(found[: self.devices]), ("rows",))
        self._on_all = NamedSharding(mesh, PartitionSpec())
        self._split = NamedSharding(mesh, PartitionSpec("rows"))
        values: Values = {name: [variable.value for variable in group] for name, group in self._variables.items()}
        values["optimizer"] = [variable.value for variable in self._optimizer.variables]
        values["slots"] = [jax_tables.slots(self._config.name, table) for table in values["tables"]]
        values["steps"] = jnp.zeros((), jnp.int32)
        self._values = jax.device_put(values, self._on_all)
        self._losses: list[tuple[jax.Array, int]] = []
        self._loss_sum = 0.0
        self._step = jax.jit(self._stepped, donate_argnums=0, out_shardings=self._on_all)
        self.publish()  # so that the initial values are not kept twice

    def step(self, rows: Rows) -> None:
        sharding = self._on_all if len(rows) % self.devices else self._split
        batch = jax.device_put((rows.ids, rows.numbers, rows.labels), sharding)
        self._values, loss = self._step(self._values, *batch)
        self._losses.append((loss, len(rows)))
        if len(self._losses) > UNDER_WAY:
            self._losses[-1 - UNDER_WAY][0].block_until_ready()

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
        values = dict(self._by_variable())
        return [_copied(values[id(variable)]) for variable in self._network.variables]

    def set_weights(self, weights: list[np.ndarray]) -> None:
        given = {id(v): weight for v, weight in zip(self._network.variables, weights, strict=True)}
        for name, group in self._variables.items():
            self._values[name] = self._placed([given[id(variable)] for variable in group])

    def state(self) -> dict[str, list[np.ndarray]]:
        own = [_copied(value) for value in jax.tree.leaves(self._own())]
        return {"weights": self.weights(), "optimizer": own, "loss": [np.float64(self.loss_sum())]}

    def restore(self, state: dict[str, list[np.ndarray]]) -> None:
        self.reset()
        self._loss_sum = float(state["loss"][0])
        self.set_weights(state["weights"])
        own = jax.tree.unflatten(jax.tree.structure(self._own()), state["optimizer"])
        self._values |= self._placed(own)

    def _placed(self, values: Any) -> Any:
        """Arrays on all devices, and in memory of their own, because the next step takes it over."""
        return jax.device_put(jax.tree.map(jnp.array, values), self._on_all)

    def _own(self) -> Values:
        """What the optimizer keeps."""
        return {name: self._values[name] for name in ("optimizer", "slots", "steps")}

    def _by_variable(self) -> list[tuple[int, jax.Array]]:
        return [
            (id(variable), value)
            for name, group in self._variables.items()
            for variable, value in zip(group, self._values[name], strict=True)
        ]

    def _stepped(
        self, values: Values, ids: jax.Array, numbers: jax.Array, labels: jax.Array
    ) -> tuple[Values, jax.Array]:
        """All values after a batch, and its loss."""
        inputs = network_inputs(self._network, ids, numbers)
        # Gradients of the looked-up rows, and not of tables, are those of zeros that are added to them.
        lookups = self._lookups(values, inputs)
        added = [jnp.zeros(shape, jnp.float32) for _, shape in lookups]
        gradients = jax.grad(self._total, argnums=(0, 1), has_aux=True)
        (of_dense, of_rows), (loss, other, places) = gradients(values["dense"], added, values, inputs, labels)
        of_tables = {}
        for place, table in enumerate(values["tables"]):
            calls = [call for call, (of, _) in enumerate(lookups) if of == place]
            if calls:
                at = jnp.concatenate([places[call].reshape(-1) for call in calls])
                gradient = jnp.concatenate([of_rows[call].reshape(-1, table.shape[1]) for call in calls])
                at, gradient = jax.lax.with_sharding_constraint((at, gradient), self._on_all)
                of_tables[place] = jax_tables.summed(at, gradient, table.shape[0])
        of_dense, of_tables = self._clipped(of_dense, of_tables)
        new = self._updated(values, of_dense, of_tables)
        return new | {"other": other, "steps": values["steps"] + 1}, loss

    def _updated(self, values: Values, of_dense: list, of_tables: dict) -> Values:
        step = (values["steps"] + 1).astype(jnp.float32)
        rate = self._rate(values["steps"]) if callable(self._rate) else self._rate
        rate = jnp.asarray(rate, jnp.float32)
        tables, slots = list(values["tables"]), list(values["slots"])
        for place, (rows, gradient) in of_tables.items():
            tables[place], slots[place] = jax_tables.update(
                self._config.name, tables[place], slots[place], rows, gradient, rate, step
            )
        dense, optimizer = self._optimizer.stateless_apply(values["optimizer"], of_dense, values["dense"])
        return {"dense": dense, "tables": tables, "optimizer": optimizer, "slots": slots}

    def _clipped(self, of_dense: list, of_tables: dict) -> tuple[list, dict]:
        """The gradients, scaled so that the norm of all together is at most `clip_norm`."""
        largest = self._config.clip_norm
        if largest is None:
            return of_dense, of_tables
        squares = [jnp.sum(jnp.square(g)) for g in [*of_dense, *(g for _, g in of_tables.values())]]
        norm = jnp.sqrt(sum(squares))
        scale = largest * jnp.minimum(1 / norm, 1 / largest) + (norm - norm)  # not a number where the norm is infinite
        return [g * scale for g in of_dense], {place: (rows, g * scale) for place, (rows, g) in of_tables.items()}

    def _total(
        self, dense: list, added: list, values: Values, inputs: dict, labels: jax.Array
    ) -> tuple[jax.Array, tuple]:
        """The batch's loss with the penalties of the layers; and the loss, what changed beside the weights, and the
        places that were looked up."""
        places: list[jax.Array] = []

        def look_up(variable: keras.Variable, at: jax.Array) -> jax.Array:
            places.append(at)
            return jnp.take(variable.value, at, axis=0, mode="clip") + added[len(places) - 1]

        logits, other, penalties = self._called(dense, values, inputs, look_up)
        logits = logits.astype(jnp.float32)
        losses = jax.nn.softplus(logits) - labels * logits
        if self._positive_weight != 1:
            losses *= 1 + (self._positive_weight - 1) * labels
        loss = jnp.mean(losses)
        return sum(penalties, loss), (loss, other, places)

    def _lookups(self, values: Values, inputs: dict) -> list[tuple[int, tuple[int, ...]]]:
        """In the order of the calls, the table that is looked up in, by its place, and the shape of what it gives."""
        tables = {id(variable): place for place, variable in enumerate(self._variables["tables"])}
        found: list[tuple[int, tuple[int, ...]]] = []

        def look_up(variable: keras.Variable, at: jax.Array) -> jax.Array:
            rows = jnp.take(variable.value, at, axis=0, mode="clip")
            found.append((tables[id(variable)], rows.shape))
            return rows

        jax.eval_shape(lambda values, inputs: self._called(values["dense"], values, inputs, look_up), values, inputs)
        return found

    def _called(self, dense: list, values: Values, inputs: dict, look_up: Callable) -> tuple[jax.Array, list, list]:
        """Logits, what changed beside the weights, and penalties."""
        rest = {True: iter(values["tables"]), False: iter(dense)}
        trainable = [next(rest[is_table]) for is_table in self._is_table]
        with looked_up_by(look_up):
            return self._network.stateless_call(trainable, values["other"], inputs, training=True, return_losses=True)


def _copied(value: jax.Array) -> np.ndarray:
    """On this machine's memory. A copy, because the next step takes over the memory of the value."""
    return np.array(value.addressable_data(0))
