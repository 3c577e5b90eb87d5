"""What the training loop drives, whichever framework computes."""

from __future__ import annotations

import abc

import numpy as np

from tidemill.models.core.inputs import Rows


class Stepper(abc.ABC):
    """A network's weights, and the steps that change them.

    Attributes:
        devices: Number of devices that share a batch.
    """

    devices: int = 1

    @abc.abstractmethod
    def step(self, rows: Rows) -> None:
        """Changes the weights by one batch of at least one row. May return before it is computed."""

    @abc.abstractmethod
    def loss_sum(self) -> float:
        """The batches' losses, each times its rows, since the last `reset`. Penalties of layers are not part of it.
        Waits for the steps so far."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Begins the sum of losses anew."""

    @abc.abstractmethod
    def publish(self) -> None:
        """Puts the present weights into the network, for predicting and saving. They are good until the next step."""

    @abc.abstractmethod
    def weights(self) -> list[np.ndarray]:
        """Copies of the network's variables, in its order."""

    @abc.abstractmethod
    def set_weights(self, weights: list[np.ndarray]) -> None:
        """Takes what `weights` gave."""

    @abc.abstractmethod
    def state(self) -> dict[str, list[np.ndarray]]:
        """Copies of all that the next steps depend on, beside their rows: lists of arrays by name, for `restore` in
        another process."""

    @abc.abstractmethod
    def restore(self, state: dict[str, list[np.ndarray]]) -> None:
        """Takes what `state` gave, of a stepper made of the same arguments."""
