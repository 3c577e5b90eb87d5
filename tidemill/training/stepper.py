"""The interface between the training loop and a framework, and the optimizer settings that all frameworks share."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tidemill.experiment.training import Optimizer, Training
from tidemill.models.core.inputs import Layout, Rows
from tidemill.training.defaults import known

# As in Keras.
ADAGRAD_START = 0.1
"""Adagrad's sum of squares before the first step."""
BETA_1, BETA_2 = 0.9, 0.999
"""Adam's decay rates."""
EPSILON = 1e-7
"""Added to a square root before dividing by it."""
ops: Any = keras.ops
"""Not typed, because Keras's annotations allow None for every result."""
_DENSE = {"adam": keras.optimizers.Adam, "adagrad": keras.optimizers.Adagrad, "sgd": keras.optimizers.SGD}


class Stepper(abc.ABC):
    """A stepper: a network's weights and the steps that change them.

    Args:
        network: From its inputs to logits [batch, labels].
        tables: The network's embedding tables. Each step updates only the rows in its batch.
        layout: The features and labels.
        training: Optimizer, weights of rows, and compilation.
        steps: Number of steps of the whole training run, which learning rate schedules span.

    Attributes:
        devices: Number of devices that share a batch.
    """

    devices: int = 1

    @abc.abstractmethod
    def __init__(
        self, network: keras.Model, tables: Sequence[keras.Variable], layout: Layout, training: Training, steps: int
    ): ...

    @staticmethod
    @abc.abstractmethod
    def prepare(seed: int, threads: int | None) -> None:
        """Seeds the random generators and sets up the framework. Call it before building the network."""

    @abc.abstractmethod
    def step(self, rows: Rows) -> None:
        """Changes the weights by one batch of at least one row. May return before the step is computed."""

    @abc.abstractmethod
    def loss_sum(self) -> float:
        """Returns the sum of the batches' losses, each times its rows, since the last `reset`.

        Excludes the penalties of layers. Waits for all steps so far.
        """

    @abc.abstractmethod
    def reset(self) -> None:
        """Resets the sum of losses to 0."""

    @abc.abstractmethod
    def publish(self) -> None:
        """Copies the current weights to the network, for predicting and saving. They are valid until the next step."""

    @abc.abstractmethod
    def weights(self) -> list[np.ndarray]:
        """Returns copies of the network's variables, in its order."""

    @abc.abstractmethod
    def set_weights(self, weights: list[np.ndarray]) -> None:
        """Sets the variables to what `weights` returned."""

    @abc.abstractmethod
    def state(self) -> dict[str, list[np.ndarray]]:
        """Returns copies of everything that the next steps depend on, except their rows, by name.

        They are in host memory. The training waits for this, so it copies once.
        """

    @abc.abstractmethod
    def restore(self, state: dict[str, list[np.ndarray]]) -> None:
        """Restores what `state` returned, possibly in another process. Both steppers need equal arguments."""


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate schedule: linear warm-up from 0 to `rate`, then `kind` down to 0 at the last step.

    Args:
        rate: The largest learning rate.
        kind: `constant`, `linear`, or `cosine` (Loshchilov & Hutter, 2017, arXiv:1608.03983).
        warmup: Number of warm-up steps.
        steps: Number of all steps.
    """

    def __init__(self, rate: float, kind: str, warmup: int, steps: int):
        super().__init__()
        self.rate, self.kind, self.warmup, self.steps = rate, kind, warmup, steps

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32") + 1.0
        left = 1.0 - ops.clip((step - 1.0 - self.warmup) / max(1, self.steps - self.warmup), 0.0, 1.0)
        shape = {"constant": 1.0, "linear": left, "cosine": 0.5 - 0.5 * ops.cos(np.pi * left)}[self.kind]
        return self.rate * ops.minimum(1.0, step / max(1, self.warmup)) * shape

    def get_config(self) -> dict[str, Any]:
        return {"rate": self.rate, "kind": self.kind, "warmup": self.warmup, "steps": self.steps}


def learning_rate(config: Optimizer, steps: int) -> float | Schedule:
    """Returns the learning rate, or a schedule from the step, counted from 0, to the learning rate.

    Args:
        config: The optimizer's section of the experiment.
        steps: Number of steps of the whole training run, which a schedule spans.
    """
    warmup = min(config.warmup_steps, steps)
    if config.schedule == "constant" and not warmup:
        return known(config.learning_rate)
    return Schedule(known(config.learning_rate), config.schedule, warmup, steps)


def dense_optimizer(config: Optimizer, steps: int) -> keras.optimizers.Optimizer:
    """Returns Keras's optimizer for the weights other than embedding tables, not built yet.

    Arguments as for `learning_rate`.
    """
    decay = {"weight_decay": config.weight_decay} if config.weight_decay else {}
    return _DENSE[config.name](learning_rate=learning_rate(config, steps), **decay)
