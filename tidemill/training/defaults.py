"""Defaults that adapt to the data: the settings that an experiment leaves open, by the rows of train.

Networks take enough optimizer steps to learn from few rows, and not too many on many rows: small data gets small
batches and many epochs, large data large batches and few epochs. Early stopping is the real end of a training run.
"""

from __future__ import annotations

import math
from typing import TypeVar

from tidemill.experiment.training import EarlyStopping, Training
from tidemill.models.core.family import Family, Network

T = TypeVar("T")
_BATCH_SIZES = (64, 4096)
_STEPS = 40_000
"""Steps after which a network has learned what it can, whatever the number of rows."""
_EPOCHS = (5, 200)
_PATIENCE = (2, 10)
_LEARNING_RATE, _LINEAR_LEARNING_RATE = 1e-3, 1e-2


def resolve(training: Training, config: Family, rows: int) -> tuple[Training, Family]:
    """Returns the settings and the hyperparameters of a member, with a value for each that was left open.

    Args:
        training: The settings of the member.
        config: The member's hyperparameters.
        rows: Number of rows that it is trained on.
    """
    return _resolve_training(training, config, max(rows, 1)), config.resolved(rows)


def known(value: T | None) -> T:
    """Returns a setting that `resolve` has filled in.

    Raises:
        ValueError: The setting is open.
    """
    if value is None:
        raise ValueError("the settings are not resolved")
    return value


def _resolve_training(training: Training, config: Family, rows: int) -> Training:
    # A power of two near the square root of the rows: as many steps an epoch as rows in a batch.
    batch_size = training.batch_size or _within(_BATCH_SIZES, 2 ** round(math.log2(rows) / 2))
    epochs = training.epochs or _within(_EPOCHS, round(_STEPS * batch_size / rows))
    optimizer, stopping = training.optimizer, training.early_stopping
    if optimizer.learning_rate is None:
        is_linear = isinstance(config, Network) and config.linear and not config.embeds
        rate = _LINEAR_LEARNING_RATE if is_linear else _LEARNING_RATE
        optimizer = optimizer.model_copy(update={"learning_rate": rate})
    if stopping is not None and stopping.patience is None:
        stopping = EarlyStopping(**{**stopping.model_dump(), "patience": _within(_PATIENCE, round(epochs / 10))})
    changes = {"batch_size": batch_size, "epochs": epochs, "optimizer": optimizer, "early_stopping": stopping}
    return training.model_copy(update=changes)


def _within(limits: tuple[int, int], value: int) -> int:
    return min(max(value, limits[0]), limits[1])
