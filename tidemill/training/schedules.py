"""What the optimizers of all frameworks share: their constants, the learning rate, and Keras's optimizer of the weights
beside the embedding tables."""

from __future__ import annotations

import keras
import numpy as np

from tidemill.experiment.training import Optimizer

ADAGRAD_START = 0.1
"""Adagrad's sum of squares before the first step; this and the others as in Keras."""
BETA_1, BETA_2 = 0.9, 0.999
"""Adam's."""
EPSILON = 1e-7
"""What is added to a root that is divided by."""
_DENSE = {"adam": keras.optimizers.Adam, "adagrad": keras.optimizers.Adagrad, "sgd": keras.optimizers.SGD}


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate: from 0 up to `rate` over the first `warmup` steps, linearly; then by `kind` to 0 at the end.

    Args:
        rate: The largest learning rate.
        kind: `constant`, `linear`, or `cosine` (Loshchilov & Hutter, 2017, arXiv:1608.03983).
        warmup: Number of steps.
        steps: Number of steps in all.
    """

    def __init__(self, rate: float, kind: str, warmup: int, steps: int):
        super().__init__()
        self.rate, self.kind, self.warmup, self.steps = rate, kind, warmup, steps

    def __call__(self, step):
        step = keras.ops.cast(step, "float32") + 1.0
        left = 1.0 - keras.ops.clip((step - 1.0 - self.warmup) / max(1, self.steps - self.warmup), 0.0, 1.0)
        shape = {"constant": 1.0, "linear": left, "cosine": 0.5 - 0.5 * keras.ops.cos(np.pi * left)}[self.kind]
        return self.rate * keras.ops.minimum(1.0, step / max(1, self.warmup)) * shape

    def get_config(self) -> dict:
        return {"rate": self.rate, "kind": self.kind, "warmup": self.warmup, "steps": self.steps}


def learning_rate(config: Optimizer, steps: int) -> float | Schedule:
    """The learning rate, or what gives it for a step, counted from 0.

    Args:
        config: The optimizer's section of the experiment.
        steps: Number of steps of the whole training, over which a schedule goes.
    """
    warmup = min(config.warmup_steps, steps)
    if config.schedule == "constant" and not warmup:
        return config.learning_rate
    return Schedule(config.learning_rate, config.schedule, warmup, steps)


def dense_optimizer(config: Optimizer, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer of the dense weights, not yet built. Arguments as of `learning_rate`."""
    decay = {"weight_decay": config.weight_decay} if config.weight_decay else {}
    return _DENSE[config.name](learning_rate=learning_rate(config, steps), **decay)
